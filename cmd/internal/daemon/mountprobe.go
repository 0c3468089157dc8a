package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Whether the mount answers shows only to who uses it as everybody does, through
// the kernel. The daemon itself must not: a process that waits for its own answer
// can't be killed. So the guard does it, on the daemon's request: one line each
// way, on a socket pair that is the guard's standard input and output.

const (
	probeRequest = "probe\n"
	probeAnswer  = "answer " // and the errno, 0 if there was none
)

// probeFile is a file of the mount that is made anew each time it is opened: the
// kernel has no answer of its own for it.
const probeFile = ".version"

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
		if _, err := l.conn.WriteString(probeRequest); err != nil {
			return ctx.Err()
		}
		l.asked = true
	}
	var text []byte
	for b := make([]byte, 1); len(text) == 0 || text[len(text)-1] != '\n'; {
		if _, err := l.conn.Read(b); err != nil {
			return ctx.Err()
		}
		text = append(text, b[0])
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

// answerProbes is the guard's end. It returns when the daemon's is closed.
func answerProbes(mountPoint string, in io.Reader, out io.Writer) {
	answer := syscall.Errno(0) // that the guard is there
	for lines := bufio.NewReader(in); ; answer = useMount(filepath.Join(mountPoint, probeFile)) {
		if _, err := fmt.Fprintf(out, "%s%d\n", probeAnswer, answer); err != nil {
			return
		}
		if _, err := lines.ReadString('\n'); err != nil {
			return
		}
	}
}

// useMount reads from a file. Not by package os, whose poller may put the file
// under watch, and so wait for the mount with a processor of the runtime's in its
// hand.
func useMount(path string) syscall.Errno {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		_, err = syscall.Read(fd, make([]byte, 512))
		err = errors.Join(err, syscall.Close(fd))
	}
	errno, ok := errors.AsType[syscall.Errno](err)
	if err != nil && !ok {
		return syscall.EIO
	}
	return errno
}
