package logging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	identifier = "pmxcfs"
	facility   = 3 // daemon, syslog(3)

	journalSocket = "/run/systemd/journal/socket"
	syslogSocket  = "/dev/log"
)

// journal is a connection to the journal, or to the syslog where there is none.
type journal struct {
	native bool
	dial   func() *journal        // where it is after a restart: dialJournal
	node   atomic.Pointer[string] // this node's name, once it is known

	mu    sync.Mutex // guards all below
	conn  *net.UnixConn
	quiet time.Time // nothing is sent before: nobody reads
	lost  int       // records since then
}

const (
	// journalPatience is how long a record waits for a journal that does not read.
	// The caller may hold locks.
	journalPatience = 200 * time.Millisecond
	// journalPause is how long nothing is sent after that.
	journalPause = 10 * time.Second
)

// dialJournal connects to the journal or the syslog; nil if neither is there.
func dialJournal() *journal {
	for _, path := range []string{journalSocket, syslogSocket} {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err == nil {
			return &journal{conn: conn, native: path == journalSocket, dial: dialJournal}
		}
	}
	return nil
}

// Journal returns a logger of the domain main that leads to the journal (or
// syslog) alone, for a process that has no other log. It is nil if neither is there.
func Journal(node string) *slog.Logger {
	j := dialJournal()
	if j == nil {
		return nil
	}
	j.node.Store(&node)
	return slog.New(newHandler(slog.LevelInfo, j.write)).With(domainKey, "main")
}

// isStderr reports whether stderr leads to the journal already, as it does in a
// service of systemd (systemd.exec(5), JOURNAL_STREAM).
func (j *journal) isStderr() bool {
	var st unix.Stat_t
	if unix.Fstat(2, &st) != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// write sends a record. One that nobody takes is lost, and
// counted.
func (j *journal) write(r *record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if time.Now().Before(j.quiet) {
		j.lost++
		return
	}
	if j.lost > 0 {
		lost := &record{time: r.time, level: slog.LevelWarn, domain: "main", text: fmt.Sprintf("%d messages could not be logged: the journal did not take them", j.lost)}
		if !j.send(lost) {
			j.lost++
			return
		}
		j.lost = 0
	}
	if !j.send(r) {
		j.lost++
	}
}

// send sends a record, and returns false if nobody takes it. mu is held.
func (j *journal) send(r *record) bool {
	var b []byte
	if j.native {
		b = appendNative(nil, r)
		if node := j.node.Load(); node != nil && !slices.ContainsFunc(r.attrs, func(a slog.Attr) bool { return a.Key == nodeKey }) {
			b = appendField(b, "PMXCFS_NODE", *node)
		}
	} else {
		b = fmt.Appendf(nil, "<%d>%s[%d]: [%s] %s", facility<<3|priority(r.level), identifier, os.Getpid(), r.domain, r.text)
	}
	_ = j.conn.SetWriteDeadline(time.Now().Add(journalPatience))
	_, err := j.conn.Write(b)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		j.quiet = time.Now().Add(journalPause)
		return false
	case errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS):
		j.sendLarge(b)
	default:
		// It was restarted: its socket is another one.
		return j.sendAgain(b)
	}
	return true
}

// sendAgain sends a record over a new connection, which stays. mu is held.
func (j *journal) sendAgain(b []byte) bool {
	again := j.dial()
	if again == nil {
		return false
	}
	if again.native != j.native { // which b is not for
		again.conn.Close()
		return false
	}
	j.conn.Close()
	j.conn = again.conn
	_ = j.conn.SetWriteDeadline(time.Now().Add(journalPatience))
	_, err := j.conn.Write(b)
	return err == nil
}

// sendLarge sends a record that is too large for a datagram: the native protocol
// takes a sealed memfd instead; of a syslog message the beginning has to do. mu is
// held.
func (j *journal) sendLarge(b []byte) {
	if !j.native {
		_, _ = j.conn.Write(b[:min(len(b), 8<<10)])
		return
	}
	fd, err := unix.MemfdCreate("journal", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "journal")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		return
	}
	if raw, err := j.conn.SyscallConn(); err == nil { // net won't send on a connected socket without bytes
		_ = raw.Write(func(sock uintptr) bool {
			return unix.Sendmsg(int(sock), nil, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL) != unix.EAGAIN
		})
	}
}

// appendNative appends a record in the journal's native protocol
// (systemd.journal-fields(7)).
func appendNative(b []byte, r *record) []byte {
	b = appendField(b, "MESSAGE", "["+r.domain+"] "+r.text)
	if id := messageID(r.event); id != "" {
		b = appendField(b, "MESSAGE_ID", id)
		b = appendField(b, "PMXCFS_EVENT", string(r.event))
	}
	b = appendField(b, "PRIORITY", strconv.Itoa(priority(r.level)))
	b = appendField(b, "SYSLOG_FACILITY", strconv.Itoa(facility))
	b = appendField(b, "SYSLOG_IDENTIFIER", identifier)
	b = appendField(b, "SYSLOG_PID", strconv.Itoa(os.Getpid()))
	b = appendField(b, "PMXCFS_DOMAIN", r.domain)
	for _, list := range [][]slog.Attr{r.attrs, r.fields} {
		for _, a := range list {
			b = appendAttr(b, a)
		}
	}
	return b
}

// appendAttr appends an attribute as a field: times and durations as numbers of
// microseconds, with _USEC behind the name, and an error's errno beside its text.
func appendAttr(b []byte, a slog.Attr) []byte {
	name := fieldName(a.Key)
	switch a.Value.Kind() {
	case slog.KindDuration:
		return appendField(b, name+"_USEC", strconv.FormatInt(a.Value.Duration().Microseconds(), 10))
	case slog.KindTime:
		return appendField(b, name+"_USEC", strconv.FormatInt(a.Value.Time().UnixMicro(), 10))
	}
	if err, ok := a.Value.Any().(error); ok && a.Key == errorKey {
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			b = appendField(b, "ERRNO", strconv.Itoa(int(errno)))
		}
	}
	return appendField(b, name, a.Value.String())
}

func appendField(b []byte, name, value string) []byte {
	if !strings.Contains(value, "\n") {
		return append(append(append(append(b, name...), '='), value...), '\n')
	}
	b = append(append(b, name...), '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	return append(append(b, value...), '\n')
}

// fieldName makes a key into a journal field's name.
func fieldName(key string) string {
	name := []byte("PMXCFS_" + strings.ToUpper(key))
	for i, c := range name {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			name[i] = '_'
		}
	}
	return string(bytes.TrimRight(name, "_"))
}
