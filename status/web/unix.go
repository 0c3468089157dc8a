package web

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// errInUse means that somebody answers on the socket already.
var errInUse = errors.New("web: another process serves there")

// unixListener serves on a socket in the file system, to its owner.
type unixListener struct{ path string }

func (u *unixListener) String() string { return u.path }

func (u *unixListener) listen(ctx context.Context) (net.Listener, error) {
	try, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if c, err := Dial(try, u.path); err == nil {
		c.Close()
		return nil, errInUse
	}
	// What a daemon that was killed has left.
	if st, err := os.Lstat(u.path); err == nil && st.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(u.path); err != nil {
			return nil, err
		}
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// A socket's file gets the mode that its descriptor has: it is never there
		// with a wider one.
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	address, done, err := shorten(u.path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := lc.Listen(ctx, "unix", address)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // by a name that is valid here only
	return &unlinking{Listener: l, path: u.path}, nil
}

func (u *unixListener) serve(l net.Listener, s *http.Server) error { return s.Serve(l) }

func (u *unixListener) limits(*http.Server) {} // whoever can open it can stop the daemon, too

// limit has more connections wait in the kernel.
func (u *unixListener) limit(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConns) }

// unlinking takes its socket's name away when it is closed.
type unlinking struct {
	net.Listener
	path string
}

func (l *unlinking) Close() error {
	err := l.Listener.Close()
	if err == nil { // not the second time: the name may be somebody else's then
		err = os.Remove(l.path)
	}
	return err
}

// Dial connects to a daemon's socket.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	address, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return (&net.Dialer{}).DialContext(ctx, "unix", address)
}

// maxPath is the longest path that a socket's address holds; see unix(7).
const maxPath = 107

// shorten returns a path by which this process finds the socket until done is called,
// short enough for an address.
func shorten(path string) (address string, done func(), err error) {
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("web: opening the directory of %s: %w", path, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)), func() { unix.Close(dir) }, nil
}
