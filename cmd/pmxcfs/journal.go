package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	domainKey  = "domain"
	errorKey   = "error"
	identifier = "pmxcfs"
	facility   = 3 // daemon, syslog(3)

	journalSocket = "/run/systemd/journal/socket"
	syslogSocket  = "/dev/log"
)

// record is one log message, ready to be written somewhere.
type record struct {
	time   time.Time
	level  slog.Level
	domain string
	text   string      // message and attributes, as people read it
	attrs  []slog.Attr // keys of groups joined with dots
}

// priority is syslog's number for a level.
func priority(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}

// handler is a slog.Handler that hands records to a function.
type handler struct {
	level  slog.Leveler
	write  func(*record)
	domain string
	attrs  []slog.Attr
	group  string // prefix of keys, with its dot
}

func newHandler(level slog.Leveler, write func(*record)) *handler {
	return &handler{level: level, write: write}
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	rec := &record{time: r.Time, level: r.Level, domain: h.domain, attrs: append([]slog.Attr(nil), h.attrs...)}
	r.Attrs(func(a slog.Attr) bool {
		rec.attrs = flatten(rec.attrs, h.group, a)
		return true
	})
	var b strings.Builder
	b.WriteString(r.Message)
	cause := ""
	for _, a := range rec.attrs {
		value := a.Value.String()
		if a.Key == errorKey {
			cause = ": " + value
			continue
		}
		if value == "" || strings.ContainsAny(value, " \t\n\"") {
			value = strconv.Quote(value)
		}
		b.WriteString(" " + a.Key + "=" + value)
	}
	b.WriteString(cause)
	rec.text = b.String()
	h.write(rec)
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		if a.Key == domainKey && h.group == "" {
			next.domain = a.Value.String()
			continue
		}
		next.attrs = flatten(next.attrs, h.group, a)
	}
	return &next
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.group += name + "."
	return &next
}

// flatten appends an attribute, a group's one by one.
func flatten(list []slog.Attr, prefix string, a slog.Attr) []slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return list
	}
	if a.Value.Kind() != slog.KindGroup {
		a.Key = prefix + a.Key
		return append(list, a)
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, b := range a.Value.Group() {
		list = flatten(list, prefix, b)
	}
	return list
}

// fanout is a handler that passes records on to several.
type fanout []slog.Handler

func (f fanout) Enabled(ctx context.Context, l slog.Level) bool {
	for _, h := range f {
		if h.Enabled(ctx, l) {
			return true
		}
	}
	return false
}

func (f fanout) Handle(ctx context.Context, r slog.Record) error {
	var errs []error
	for _, h := range f {
		if h.Enabled(ctx, r.Level) {
			errs = append(errs, h.Handle(ctx, r.Clone()))
		}
	}
	return errors.Join(errs...)
}

func (f fanout) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := make(fanout, len(f))
	for i, h := range f {
		next[i] = h.WithAttrs(attrs)
	}
	return next
}

func (f fanout) WithGroup(name string) slog.Handler {
	next := make(fanout, len(f))
	for i, h := range f {
		next[i] = h.WithGroup(name)
	}
	return next
}

// textWriter writes records as lines for people.
type textWriter struct {
	out io.Writer
}

func (w textWriter) write(r *record) {
	level := [...]string{3: "error", 4: "warning", 6: "info", 7: "debug"}[priority(r.level)]
	fmt.Fprintf(w.out, "%s [%s] %s: %s\n", r.time.Format("15:04:05.000"), r.domain, level, strings.ReplaceAll(r.text, "\n", "\n\t"))
}

// journal is a connection to the journal, or to the syslog where there is none.
type journal struct {
	mu     sync.Mutex // guards conn
	conn   *net.UnixConn
	native bool
}

// dialJournal connects to the journal or the syslog; nil if neither is there.
func dialJournal() *journal {
	for _, path := range []string{journalSocket, syslogSocket} {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err == nil {
			return &journal{conn: conn, native: path == journalSocket}
		}
	}
	return nil
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

// write sends a record. If the journal is gone, there is nobody to tell.
func (j *journal) write(r *record) {
	var b []byte
	if j.native {
		b = appendNative(nil, r)
	} else {
		b = fmt.Appendf(nil, "<%d>%s[%d]: [%s] %s", facility<<3|priority(r.level), identifier, os.Getpid(), r.domain, r.text)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.conn.Write(b); err == nil || errors.Is(err, unix.EMSGSIZE) {
		return
	}
	// It was restarted: its socket is another one.
	if again := dialJournal(); again != nil && again.native == j.native {
		j.conn.Close()
		j.conn = again.conn
		_, _ = j.conn.Write(b)
	}
}

// appendNative appends a record in the journal's native protocol
// (systemd.journal-fields(7)).
func appendNative(b []byte, r *record) []byte {
	b = appendField(b, "MESSAGE", "["+r.domain+"] "+r.text)
	b = appendField(b, "PRIORITY", strconv.Itoa(priority(r.level)))
	b = appendField(b, "SYSLOG_FACILITY", strconv.Itoa(facility))
	b = appendField(b, "SYSLOG_IDENTIFIER", identifier)
	b = appendField(b, "SYSLOG_PID", strconv.Itoa(os.Getpid()))
	b = appendField(b, "PMXCFS_DOMAIN", r.domain)
	for _, a := range r.attrs {
		b = appendField(b, fieldName(a.Key), a.Value.String())
	}
	return b
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
