package status

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"pmxcfs/status/rrd"
)

// MaxValue is the largest value in bytes (the specification of the status store,
// "Keys and values").
const MaxValue = 32 << 10

const (
	// keyField is the size of a key on the wire, its NUL included.
	keyField = 256
	// maxAddress is what a nodeip value must be shorter than, its NUL included.
	maxAddress = 256

	nodeIPKey = "nodeip"
	rrdPrefix = "rrd/"

	// maxKeys and maxBytes (messages' payloads) bound what is kept of one node:
	// tens of times what Proxmox's daemons set.
	maxKeys  = 4096
	maxBytes = 16 << 20
)

// The faults of a value. Each wraps the errno that answers a client.
var (
	ErrKey      = fmt.Errorf("status: not a key: %w", syscall.EINVAL)
	ErrTooLarge = fmt.Errorf("status: value too large: %w", syscall.EFBIG)
	ErrText     = fmt.Errorf("status: malformed text value: %w", syscall.ENOMEM)
	ErrFull     = fmt.Errorf("status: too many values: %w", syscall.ENOSPC)
)

// values are the key/value pairs of one node.
type values struct {
	byKey map[string]value
	keys  []string // sorted
	bytes int      // of all messages
	used  bool     // something was set, ever
}

// value is kept as the update's payload that tells it, so that a synchronisation
// need not copy values to tell them again.
type value struct {
	message []byte // never written to again
	version uint32 // 0 at first, then one more for each set
}

func (v value) data() []byte { return v.message[keyField:] }

// set takes over the payload of an update of key. An empty value deletes the key.
func (v *values) set(key string, message []byte) error {
	old, known := v.byKey[key]
	at, _ := slices.BinarySearch(v.keys, key)
	switch {
	case len(message) == keyField:
		if known {
			delete(v.byKey, key)
			v.keys = slices.Delete(v.keys, at, at+1)
			v.bytes -= len(old.message)
		}
		return nil
	case v.bytes-len(old.message)+len(message) > maxBytes, !known && len(v.keys) >= maxKeys:
		return ErrFull
	case known:
		old.version++
	default:
		key = strings.Clone(key)
		v.keys = slices.Insert(v.keys, at, key)
	}
	if v.byKey == nil {
		v.byKey = make(map[string]value)
	}
	v.bytes += len(message) - len(old.message)
	v.byKey[key] = value{message, old.version}
	v.used = true
	return nil
}

// Set sets this node's value of a name and tells the other nodes; if this node is
// not in the group now, they learn of it with the next synchronisation. An empty
// value deletes the name. "nodeip" and "rrd/…" are not kept as values but go into
// .members and .rrd: texts that end in a NUL, which alone are told, without what may
// follow. An empty name is told like any other, but nobody can ask for it. Set waits for
// nobody, and keeps nothing of value's memory. Errors: ErrKey, ErrTooLarge, ErrText, ErrFull.
func (s *Store) Set(name string, value []byte) error {
	if len(name) >= keyField || strings.IndexByte(name, 0) >= 0 {
		return ErrKey
	}
	if len(value) > MaxValue {
		return ErrTooLarge
	}
	if name == nodeIPKey || strings.HasPrefix(name, rrdPrefix) {
		if n := bytes.IndexByte(value, 0); n >= 0 && value[len(value)-1] == 0 {
			value = value[:n+1]
		}
	}
	message := encodeUpdate(name, value)
	if key, ok := strings.CutPrefix(name, rrdPrefix); ok {
		if err := s.setSample(key, value); err != nil {
			return err
		}
		s.post(subtypeUpdate, message)
		return nil
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	if err := s.setOwn(name, message); err != nil {
		return err
	}
	s.post(subtypeUpdate, message)
	return nil
}

func (s *Store) setOwn(name string, message []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setValue(s.self, name, message)
}

// setValue sets a node's value or address, and takes over the payload of the update
// that tells it. The lock is held.
func (s *Store) setValue(n *node, name string, message []byte) error {
	if name == nodeIPKey {
		ip, err := addressText(message[keyField:])
		if err == nil {
			s.setAddress(n, ip)
		}
		return err
	}
	if err := n.values.set(name, message); err != nil {
		return err
	}
	n.rendered = nil
	s.changes.Add(1)
	return nil
}

// addressText is the text of a nodeip value: up to the first NUL, and the value
// ends in one.
func addressText(value []byte) (string, error) {
	if len(value) == 0 || len(value) >= maxAddress || value[len(value)-1] != 0 {
		return "", ErrText
	}
	ip, _, _ := strings.Cut(string(value), "\x00")
	if ip == "" {
		return "", ErrText
	}
	return ip, nil
}

// setSample keeps an RRD sample and has it written. The lock is not held: what
// writes must never hold up the store.
func (s *Store) setSample(key string, value []byte) error {
	text, err := rrd.Text(value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrText, err)
	}
	switch err := s.samples.Set(key, text); {
	case errors.Is(err, rrd.ErrFull):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	if s.rrd != nil {
		s.rrd.Submit(key, text)
	}
	return nil
}

// Get returns a node's value of a name, or false. An empty node is this one. The
// value is shared: it must not be written to.
func (s *Store) Get(name, node string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.self
	if node != "" && node != s.self.name {
		if n = s.nodes[node]; n == nil {
			return nil, false
		}
	}
	v, ok := n.values.byKey[name]
	if !ok || name == "" {
		return nil, false
	}
	return v.data(), true
}

// RRD returns the content of .rrd: the newest sample of each key heard of within
// the last 5 minutes. It may be 2 s old. The result is shared: it must not be
// written to.
func (s *Store) RRD() []byte { return s.samples.Dump() }

// RRDWithNUL is RRD with a NUL at its end: what IPC clients get.
func (s *Store) RRDWithNUL() []byte { return s.samples.DumpNUL() }
