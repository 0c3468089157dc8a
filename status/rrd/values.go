package rrd

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxValue is what a value must be shorter than, its NUL included.
	maxValue = 4096

	// keptFor is how long a value is shown after it was heard of.
	keptFor = 5 * time.Minute

	// dumpAge is how old a dump may be.
	dumpAge = 2 * time.Second

	// maxKept bounds the number of keys: several times what the largest
	// cluster has guests, storages and nodes.
	maxKept = 1 << 16

	// maxKeptBytes bounds all keys and values together.
	maxKeptBytes = 64 << 20
)

// ErrFull is the error about a value for which there is no room: so many keys
// or bytes come from no sane cluster.
var ErrFull = errors.New("rrd: too many values")

// Values keeps the newest value of each key for .rrd and the IPC service. All
// methods may be called concurrently; none does I/O. The zero value is not
// usable.
type Values struct {
	now func() time.Time

	mu      sync.Mutex // guards all below
	kept    map[string]kept
	bytes   int    // of all keys and values
	dump    []byte // with a NUL at its end; never written to again
	dumpDue time.Time
}

type kept struct {
	value string
	heard time.Time
}

// NewValues makes an empty store with the given clock.
func NewValues(now func() time.Time) *Values {
	return &Values{now: now, kept: make(map[string]kept)}
}

// Text checks the value of an "rrd/" key as it comes from a client or a peer:
// it must be shorter than 4096 bytes and end in a NUL. It gives the text before
// the first NUL. The error wraps ErrValue.
func Text(value []byte) (string, error) {
	if len(value) >= maxValue {
		return "", fmt.Errorf("%w: %d bytes", ErrValue, len(value))
	}
	if len(value) == 0 || value[len(value)-1] != 0 {
		return "", fmt.Errorf("%w: does not end in a NUL", ErrValue)
	}
	text := string(value[:bytes.IndexByte(value, 0)])
	if text == "" {
		return "", fmt.Errorf("%w: empty", ErrValue)
	}
	if control(text) {
		return "", fmt.Errorf("%w: a control character", ErrValue)
	}
	return text, nil
}

// control tells whether s has a control character, which would break .rrd's
// lines.
func control(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Set keeps text (as Text gives it) under key (what follows "rrd/"). Errors:
// ErrKey for a key that is empty or has control characters, ErrFull.
func (v *Values) Set(key, text string) error {
	if key == "" || len(key) >= 256 || control(key) {
		return fmt.Errorf("%w: %q", ErrKey, key)
	}
	now := v.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	grown, ok := v.fits(key, text)
	if !ok {
		v.refresh(now) // forgets what is too old
		if grown, ok = v.fits(key, text); !ok {
			return ErrFull
		}
	}
	v.bytes += grown
	v.kept[strings.Clone(key)] = kept{strings.Clone(text), now}
	return nil
}

// fits tells whether there is room for the value, and by how much the bytes
// kept would grow. The caller holds mu.
func (v *Values) fits(key, text string) (grown int, ok bool) {
	old, known := v.kept[key]
	if known {
		grown = len(text) - len(old.value)
	} else {
		grown = len(key) + len(text)
	}
	return grown, (known || len(v.kept) < maxKept) && v.bytes+grown <= maxKeptBytes
}

// Dump is the content of .rrd: a line KEY:VALUE for each key heard of within
// the last 5 minutes, sorted. It may be 2 s old. The caller must not change it.
func (v *Values) Dump() []byte {
	b := v.DumpNUL()
	return b[: len(b)-1 : len(b)-1]
}

// DumpNUL is Dump with a NUL at its end: the IPC service's form. The caller
// must not change it.
func (v *Values) DumpNUL() []byte {
	now := v.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refresh(now)
	return v.dump
}

// refresh makes the dump anew and forgets what is too old, unless that was done
// within dumpAge. The caller holds mu.
func (v *Values) refresh(now time.Time) {
	if v.dump != nil && now.Before(v.dumpDue) && !now.Before(v.dumpDue.Add(-dumpAge)) {
		return
	}
	size := 1
	keys := make([]string, 0, len(v.kept))
	for k, e := range v.kept {
		if age := now.Sub(e.heard); age > keptFor || age < -keptFor {
			delete(v.kept, k)
			v.bytes -= len(k) + len(e.value)
			continue
		}
		keys = append(keys, k)
		size += len(k) + len(e.value) + 2
	}
	slices.Sort(keys)
	b := make([]byte, 0, size)
	for _, k := range keys {
		b = append(b, k...)
		b = append(b, ':')
		b = append(b, v.kept[k].value...)
		b = append(b, '\n')
	}
	v.dump, v.dumpDue = append(b, 0), now.Add(dumpAge)
}
