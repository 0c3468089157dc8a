package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Whether the mount answers shows only to who uses it as everybody does, through
// the kernel. The daemon itself must not: a process that waits for its own answer
// can't be killed. So the guard does it, on the daemon's request: one line each
// way, on a socket pair that is the guard's standard input and output. On the same
// line the guard is told which connection the mount is; there is no answer to that.

const (
	probeRequest = "probe"
	probeAnswer  = "answer "     // and the errno, 0 if there was none
	probeWatch   = "connection " // and its number; guard.c has the other end of all three
)

// probeLine is the daemon's end.
type probeLine struct {
	mu    sync.Mutex // one question at a time
	conn  *os.File
	asked bool // and not answered
}

// newProbeLine returns a line, and the end to give to a guard. The first answer comes
// unasked, when the guard looks on.
func newProbeLine() (*probeLine, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil { // for deadlines
		return nil, nil, errors.Join(err, syscall.Close(fds[0]), syscall.Close(fds[1]))
	}
	return &probeLine{conn: os.NewFile(uintptr(fds[0]), "probe"), asked: true}, os.NewFile(uintptr(fds[1]), "probe"), nil
}

func (l *probeLine) close() { l.conn.Close() }

// watch tells the guard which connection the mount is. Should the guard have ended,
// the next one is told.
func (l *probeLine) watch(connection uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.conn.SetDeadline(time.Time{}) // a question's that was given up
	_, _ = fmt.Fprintf(l.conn, "%s%d\n", probeWatch, connection)
}

// ask has the guard use the mount. It returns nil when that was answered, or when
// the guard has ended; an error when the mount is dead, and ctx's.
func (l *probeLine) ask(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.conn.SetDeadline(time.Time{}); err != nil {
		return nil // closed
	}
	defer context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })()
	if !l.asked {
		if _, err := l.conn.WriteString(probeRequest + "\n"); err != nil {
			return ctx.Err()
		}
		l.asked = true
	}
	var text []byte
	for b := make([]byte, 64); len(text) == 0 || text[len(text)-1] != '\n'; { // one answer to one question
		n, err := l.conn.Read(b)
		if err != nil {
			return ctx.Err()
		}
		text = append(text, b[:n]...)
	}
	l.asked = false
	number, ok := strings.CutPrefix(strings.TrimSpace(string(text)), probeAnswer)
	errno, err := strconv.Atoi(number)
	if !ok || err != nil {
		return fmt.Errorf("the guard answers %q", text)
	}
	switch e := syscall.Errno(errno); e {
	case syscall.ENOTCONN, syscall.ECONNABORTED:
		return e // nobody serves it
	}
	return nil // any other answer is one
}
