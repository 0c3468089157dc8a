package ipc

import (
	"bytes"
	"encoding/binary"
	"strings"
	"syscall"

	"pmxcfs/status/clusterlog"
)

// Layout of the requests' data. Integers are little-endian.
const (
	nameLen = 256 // of a key or a node's name, NUL included

	logHeadLen    = 3  // priority, length of ident, length of tag
	getLogHeadLen = 16 // max entries, 3 × reserved

	defaultLogEntries = 50
	maxLogEntries     = 1 << 16 // more than the ring can hold
	maxPriority       = 7

	firstVMID = 100
)

// cString returns the bytes up to the first NUL, or all if there is none.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// terminated returns a string that must end in its only NUL.
func terminated(b []byte) (string, bool) {
	if i := bytes.IndexByte(b, 0); i < 0 || i != len(b)-1 {
		return "", false
	}
	return string(b[:len(b)-1]), true
}

// fixedName returns a name from a field of nameLen bytes. One that fills it is cut: the last
// byte is the NUL's.
func fixedName(b []byte) string { return cString(b[:nameLen-1]) }

type setStatus struct {
	key   string
	value []byte // of the request's bytes
}

// decodeSetStatus takes a request apart; the store judges what is in it.
func decodeSetStatus(b []byte) (setStatus, syscall.Errno) {
	if len(b) < nameLen {
		return setStatus{}, syscall.EINVAL
	}
	return setStatus{key: fixedName(b), value: b[nameLen:]}, 0
}

type getStatus struct{ key, node string }

func decodeGetStatus(b []byte) (getStatus, syscall.Errno) {
	if len(b) < 2*nameLen {
		return getStatus{}, syscall.EINVAL
	}
	return getStatus{key: fixedName(b), node: fixedName(b[nameLen:])}, 0
}

// decodeGetConfig returns the canonical path.
func decodeGetConfig(b []byte) (string, syscall.Errno) {
	if len(b) == 0 {
		return "", syscall.EINVAL
	}
	path, ok := cleanPath(cString(b))
	if !ok {
		return "", syscall.ENOENT
	}
	return path, 0
}

// decodeLog returns a message without its PID.
func decodeLog(b []byte) (clusterlog.Message, syscall.Errno) {
	if len(b) < logHeadLen {
		return clusterlog.Message{}, syscall.EINVAL
	}
	priority, identLen, tagLen := b[0], int(b[1]), int(b[2])
	b = b[logHeadLen:]
	if len(b) < identLen+tagLen {
		return clusterlog.Message{}, syscall.EINVAL
	}
	m := clusterlog.Message{Priority: priority}
	var ok [3]bool
	m.Ident, ok[0] = terminated(b[:identLen])
	m.Tag, ok[1] = terminated(b[identLen : identLen+tagLen])
	m.Text, ok[2] = terminated(b[identLen+tagLen:])
	if ok != [3]bool{true, true, true} {
		return clusterlog.Message{}, syscall.EINVAL
	}
	return m, 0
}

type getLog struct {
	max  int
	user string // empty means all
}

func decodeGetLog(b []byte) (getLog, syscall.Errno) {
	if len(b) <= getLogHeadLen {
		return getLog{}, syscall.EINVAL
	}
	r := getLog{max: defaultLogEntries, user: cString(b[getLogHeadLen:])}
	if n := binary.LittleEndian.Uint32(b); n > 0 {
		r.max = int(min(n, maxLogEntries))
	}
	return r, 0
}

type guestProps struct {
	vmid  uint32   // 0 means all guests
	props []string // at least one, none twice
}

// decodeVMID takes the VMID from the beginning of b.
func decodeVMID(b []byte) (vmid uint32, rest []byte, ok bool) {
	if len(b) < 4 {
		return 0, nil, false
	}
	vmid = binary.LittleEndian.Uint32(b)
	return vmid, b[4:], vmid == 0 || vmid >= firstVMID
}

func decodeGuestProperty(b []byte) (guestProps, syscall.Errno) {
	vmid, rest, ok := decodeVMID(b)
	prop := cString(rest)
	if !ok || prop == "" {
		return guestProps{}, syscall.EINVAL
	}
	return guestProps{vmid: vmid, props: []string{prop}}, 0
}

func decodeGuestProperties(b []byte) (guestProps, syscall.Errno) {
	vmid, rest, ok := decodeVMID(b)
	if !ok || len(rest) < 1 || rest[0] == 0 {
		return guestProps{}, syscall.EINVAL
	}
	count := int(rest[0])
	rest = rest[1:]
	r := guestProps{vmid: vmid, props: make([]string, 0, count)}
	seen := make(map[string]bool, count)
	for range count {
		prop, after, ok := bytes.Cut(rest, []byte{0})
		if !ok || !isPropertyName(prop) {
			return guestProps{}, syscall.EINVAL
		}
		if !seen[string(prop)] {
			seen[string(prop)] = true
			r.props = append(r.props, string(prop))
		}
		rest = after
	}
	if len(rest) > 0 {
		return guestProps{}, syscall.EINVAL
	}
	return r, 0
}

func isPropertyName(b []byte) bool {
	return len(b) > 0 && 'a' <= b[0] && b[0] <= 'z'
}

func decodeVerifyToken(b []byte) (string, syscall.Errno) {
	token, ok := terminated(b)
	if !ok || token == "" || strings.Contains(token, "\n") {
		return "", syscall.EINVAL
	}
	return token, 0
}
