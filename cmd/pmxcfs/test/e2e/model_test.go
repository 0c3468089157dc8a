package e2e

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"pmxcfs/memdb"
)

// model is the mount as the specification describes it, in the simplest way:
// what each path is, and what each open file will do.
type model struct {
	at     map[string]*modelFile // by path; the root is not in it
	guests map[string]string     // VMID → directory of its configuration

	// history holds the states that a kill may lead back to: the last one that
	// is promised to be in the file, and those after it.
	history []modelState
	seq     int // of the newest state in history
}

type modelFile struct {
	dir    bool
	data   string
	ino    uint64 // 0: not seen yet
	mtime  [2]int64
	orphan bool // deleted, but open
}

// modelHandle is an open file.
type modelHandle struct {
	file      *modelFile
	flags     int
	truncate  bool // opened with O_TRUNC, and nothing written yet
	lastWrite int  // seq of the state after the last write; 0: none
}

type modelState struct {
	seq int
	at  map[string]modelFile
}

func newModel() *model {
	m := &model{at: map[string]*modelFile{}, guests: map[string]string{}}
	m.note()
	m.stored(m.seq)
	return m
}

// note adds the present state to those that a kill may lead to.
func (m *model) note() {
	m.seq++
	s := modelState{m.seq, make(map[string]modelFile, len(m.at))}
	for p, f := range m.at {
		s.at[p] = *f
	}
	m.history = append(m.history, s)
}

// stored drops what is older than a state that is promised to be in the file.
func (m *model) stored(seq int) {
	for len(m.history) > 1 && m.history[0].seq < seq {
		m.history = m.history[1:]
	}
}

// done notes a change that was in the file when its call returned.
func (m *model) done() {
	m.note()
	m.stored(m.seq)
}

// restore makes a state of the history the present one, and makes the VM list
// anew, as loading does.
func (m *model) restore(s modelState) {
	m.at = map[string]*modelFile{}
	m.guests = map[string]string{}
	for p, f := range s.at {
		m.at[p] = &f
		if vmid, dir, ok := guestOf(p); ok && !f.dir {
			m.guests[vmid] = dir
		}
	}
	m.done()
}

var guestPattern = regexp.MustCompile(`^nodes/([A-Za-z0-9]+)/(qemu-server|lxc|openvz)/([1-9][0-9]*)\.conf$`)

func guestOf(p string) (vmid, dir string, ok bool) {
	if s := guestPattern.FindStringSubmatch(p); s != nil {
		return s[3], path.Dir(p), true
	}
	return "", "", false
}

// walk is what the kernel finds on the way to a path.
func (m *model) walk(p string) syscall.Errno {
	for i, c := range p {
		if c != '/' {
			continue
		}
		switch f := m.at[p[:i]]; {
		case f == nil:
			return syscall.ENOENT
		case !f.dir:
			return syscall.ENOTDIR
		}
	}
	return 0
}

func (m *model) empty(dir string) bool {
	for p := range m.at {
		if strings.HasPrefix(p, dir+"/") {
			return false
		}
	}
	return true
}

func (m *model) taken(p string) bool {
	vmid, dir, ok := guestOf(p)
	have, registered := m.guests[vmid]
	return ok && registered && have != dir
}

func (m *model) isLock(p string) bool {
	f := m.at[p]
	return f != nil && f.dir && path.Dir(p) == "priv/lock"
}

func now() [2]int64 { return [2]int64{time.Now().Unix(), 0} }

// during ends a time that began at t.
func during(t [2]int64) [2]int64 { return [2]int64{t[0], time.Now().Unix()} }

func (m *model) open(p string, flags int, t [2]int64) (*modelHandle, syscall.Errno) {
	if errno := m.walk(p); errno != 0 {
		return nil, errno
	}
	f := m.at[p]
	create, excl := flags&syscall.O_CREAT != 0, flags&syscall.O_EXCL != 0
	switch {
	case f == nil && !create:
		return nil, syscall.ENOENT
	case f == nil && m.taken(p), f != nil && create && excl:
		return nil, syscall.EEXIST
	case f != nil && f.dir:
		return nil, syscall.EISDIR
	}
	h := &modelHandle{file: f, flags: flags, truncate: flags&syscall.O_TRUNC != 0}
	if f == nil {
		h.file, h.truncate = &modelFile{mtime: t}, false
		m.at[p] = h.file
		if vmid, dir, ok := guestOf(p); ok {
			m.guests[vmid] = dir
		}
		m.done()
	}
	return h, 0
}

// write writes at an offset, or at the end if the file was opened so.
func (m *model) write(h *modelHandle, offset int, data string, t [2]int64) syscall.Errno {
	f := h.file
	old := f.data
	if h.truncate {
		old = ""
	}
	if h.flags&syscall.O_APPEND != 0 {
		offset = len(old)
	}
	end := offset + len(data)
	if len(data) == 0 { // the kernel doesn't pass it on
		return 0
	}
	if end > memdb.MaxFileSize {
		return syscall.EFBIG
	}
	grown := resized(old, max(len(old), end))
	f.data, f.mtime, h.truncate = grown[:offset]+data+grown[end:], t, false
	if !f.orphan {
		m.note()
		h.lastWrite = m.seq
	}
	return 0
}

func (m *model) resize(f *modelFile, h *modelHandle, size int, t [2]int64) syscall.Errno {
	if size > memdb.MaxFileSize {
		return syscall.EFBIG
	}
	old := f.data
	if h != nil && h.truncate {
		old, h.truncate = "", false
	}
	f.data, f.mtime = resized(old, size), t
	if !f.orphan {
		m.done()
	}
	return 0
}

func (m *model) truncate(p string, size int, t [2]int64) syscall.Errno {
	errno := m.walk(p)
	switch f := m.at[p]; {
	case errno != 0:
		return errno
	case f == nil:
		return syscall.ENOENT
	case f.dir:
		return syscall.EISDIR
	default:
		return m.resize(f, nil, size, t)
	}
}

// flush is what close and fsync share.
func (m *model) flush(h *modelHandle, t [2]int64) {
	if h.truncate {
		m.resize(h.file, h, 0, t)
	}
	if h.lastWrite > 0 {
		m.stored(h.lastWrite)
	}
}

func (m *model) fsync(h *modelHandle, t [2]int64) {
	m.flush(h, t)
	m.stored(m.seq)
}

func (m *model) mkdir(p string, t [2]int64) syscall.Errno {
	if errno := m.walk(p); errno != 0 {
		return errno
	}
	if m.at[p] != nil {
		return syscall.EEXIST
	}
	m.at[p] = &modelFile{dir: true, mtime: t}
	m.done()
	return 0
}

func (m *model) remove(p string, dir bool) syscall.Errno {
	errno := m.walk(p)
	f := m.at[p]
	switch {
	case errno != 0:
		return errno
	case f == nil:
		return syscall.ENOENT
	case dir && !f.dir:
		return syscall.ENOTDIR
	case !dir && f.dir:
		return syscall.EISDIR
	case dir && !m.empty(p):
		return syscall.ENOTEMPTY
	}
	m.drop(p)
	m.done()
	return 0
}

func (m *model) drop(p string) {
	m.at[p].orphan = true
	delete(m.at, p)
	if vmid, _, ok := guestOf(p); ok {
		delete(m.guests, vmid)
	}
}

func (m *model) rename(from, to string, t [2]int64) syscall.Errno {
	if errno := m.walk(from); errno != 0 {
		return errno
	}
	if errno := m.walk(to); errno != 0 {
		return errno
	}
	f, target := m.at[from], m.at[to]
	fromVMID, _, fromGuest := guestOf(from)
	toVMID, toDir, toGuest := guestOf(to)
	switch {
	case f == nil:
		return syscall.ENOENT
	// What the kernel checks:
	case strings.HasPrefix(to, from+"/"):
		return syscall.EINVAL
	case strings.HasPrefix(from, to+"/"):
		return syscall.ENOTEMPTY
	case f == target:
		return 0
	case target != nil && f.dir && !target.dir:
		return syscall.ENOTDIR
	case target != nil && !f.dir && target.dir:
		return syscall.EISDIR
	// What the tree does:
	case !f.dir && m.taken(to) && !(fromGuest && fromVMID == toVMID):
		return syscall.EEXIST
	case m.isLock(from):
		return syscall.EACCES
	case f.dir && (!m.empty(from) || target != nil && !m.empty(to)):
		return syscall.ENOTEMPTY
	}
	if target != nil {
		m.drop(to)
	}
	delete(m.at, from)
	m.at[to] = f
	f.mtime = t
	if fromGuest {
		delete(m.guests, fromVMID)
	}
	if toGuest && !f.dir {
		m.guests[toVMID] = toDir
	}
	m.done()
	return 0
}

func (m *model) utime(p string, sec int64) syscall.Errno {
	errno := m.walk(p)
	switch f := m.at[p]; {
	case errno != 0:
		return errno
	case f == nil:
		return syscall.ENOENT
	case m.isLock(p) && sec < f.mtime[0]:
		return syscall.EACCES
	default:
		f.mtime = [2]int64{sec, sec}
		m.done()
		return 0
	}
}

// mode is the mode that a path shows.
func (f *modelFile) mode(p string) uint32 {
	parts := strings.Split(p, "/")
	private := parts[0] == "priv" || parts[0] == "nodes" && len(parts) > 2 && parts[2] == "priv"
	mode := uint32(syscall.S_IFREG | 0o640)
	switch {
	case f.dir:
		mode = syscall.S_IFDIR | 0o755
	case scriptPattern.MatchString(path.Base(p)):
		mode |= 0o100
	}
	if private {
		mode &^= 0o077
	}
	return mode
}

var scriptPattern = regexp.MustCompile(`^(vps|[0-9]+)\.(mount|umount|start|stop|premount|postumount)$`)

// list returns the names in a directory, in order.
func (m *model) list(dir string) (names []string) {
	for p := range m.at {
		if d := path.Dir(p); d == dir || dir == "" && d == "." {
			names = append(names, path.Base(p))
		}
	}
	slices.Sort(names)
	return names
}

// same says how a state that was found differs from one of the history; empty
// if it does not.
func (s modelState) diff(found map[string]modelFile) string {
	for _, p := range slices.Sorted(maps.Keys(s.at)) {
		want := s.at[p]
		got, ok := found[p]
		switch {
		case !ok:
			return fmt.Sprintf("%q is missing", p)
		case got.dir != want.dir || got.data != want.data:
			return fmt.Sprintf("%q holds %s, want %s", p, brief(got.data), brief(want.data))
		case want.ino != 0 && got.ino != want.ino:
			return fmt.Sprintf("%q has inode number %d, had %d", p, got.ino, want.ino)
		case got.mtime[0] < want.mtime[0] || got.mtime[0] > want.mtime[1]:
			return fmt.Sprintf("%q has time %d, want %v", p, got.mtime[0], want.mtime)
		}
	}
	for p := range found {
		if _, ok := s.at[p]; !ok {
			return fmt.Sprintf("%q is there", p)
		}
	}
	return ""
}
