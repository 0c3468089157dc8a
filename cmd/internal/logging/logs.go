package logging

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"pmxcfs/status/inspect"
)

// Logs makes the loggers of a daemon's domains: main, database, dcdb, status,
// ipcs, quorum, confdb, fuse.
type Logs struct {
	level   *slog.LevelVar
	root    *slog.Logger
	Recent  inspect.Recent // warnings and errors
	journal *journal       // nil means there is none
	limits  *limits
}

// Config says what to log and where.
type Config struct {
	Debug bool   // debug messages, too
	File  string // to append to as well; empty means none
}

// New sends logs to the journal (or the syslog, where there is no journal),
// to stderr, and to a file if an option names one. A daemon in the background
// has its parent's stderr until it is ready, and /dev/null from then on.
func New(o Config, stderr io.Writer) (*Logs, error) {
	l := &Logs{level: new(slog.LevelVar)}
	if o.Debug {
		l.level.Set(slog.LevelDebug)
	}
	var handlers fanout
	if l.journal = dialJournal(); l.journal != nil {
		handlers = append(handlers, newHandler(l.level, l.journal.write))
	}
	if l.journal == nil || !l.journal.isStderr() {
		handlers = append(handlers, newHandler(l.level, textWriter{stderr}.write))
	}
	if o.File != "" {
		f, err := os.OpenFile(o.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, fmt.Errorf("opening the log file: %w", err)
		}
		handlers = append(handlers, newHandler(l.level, textWriter{f}.write))
	}
	handlers = append(handlers, newHandler(slog.LevelWarn, l.remember))
	limited := newLimiter(handlers)
	l.root, l.limits = slog.New(limited), limited.shared
	return l, nil
}

// setNode tells this node's name, which every journal entry gets from then on.
func (l *Logs) SetNode(name string) {
	if l.journal != nil {
		l.journal.node.Store(&name)
	}
}

// close logs what was held back as too much of the same.
func (l *Logs) Close() { l.limits.close() }

// remember keeps a warning or an error for those who ask what is wrong.
func (l *Logs) remember(r *record) {
	p := inspect.Problem{First: r.time, Level: "warning", Domain: r.domain, Event: string(r.event), Text: r.text, Remedy: r.event.Remedy()}
	if r.level >= slog.LevelError {
		p.Level = "error"
	}
	l.Recent.Add(p)
}

// domain returns the logger of one part of the daemon.
func (l *Logs) Domain(name string) *slog.Logger { return l.root.With(domainKey, name) }

// readDebug is the content of .debug.
func (l *Logs) ReadDebug() []byte {
	if l.level.Level() <= slog.LevelDebug {
		return []byte("1\n")
	}
	return []byte("0\n")
}

// writeDebug is a write to .debug.
func (l *Logs) WriteDebug(data []byte) error {
	switch string(data) {
	case "0\n":
		l.level.Set(slog.LevelInfo)
	case "1\n":
		l.level.Set(slog.LevelDebug)
	default:
		return errDebugValue
	}
	return nil
}

var errDebugValue = errors.Join(errors.New(`.debug takes "0\n" or "1\n"`), syscall.EIO)
