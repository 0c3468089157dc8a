// Package signals lets a command that is ended by a signal clean up first.
package signals

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// Held are the signals that end a command, while it has something on the disk that must
// not stay. They are not lost: whoever else asked for them gets them at once, and
// Release has them take effect.
type Held chan os.Signal

// Hold begins to hold back the signals that end a command, but for those that it ignores.
func Hold() Held {
	h := make(Held, 8)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(h, s)
		}
	}
	return h
}

// Release has a signal that came meanwhile take effect.
func (h Held) Release() {
	signal.Stop(h)
	select {
	case s := <-h:
		if s, ok := s.(syscall.Signal); ok {
			_ = syscall.Kill(os.Getpid(), s)
		}
	default:
	}
}

// Err is not nil when a signal has come: then long work should end.
func (h Held) Err() error {
	if len(h) > 0 {
		return errors.New("interrupted")
	}
	return nil
}

// Write makes a held signal end a long copy.
func (h Held) Write(b []byte) (int, error) {
	if err := h.Err(); err != nil {
		return 0, err
	}
	return len(b), nil
}
