package web

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
	"golang.org/x/sys/unix"

	"pmxcfs/internal/event"
)

// protection is a web configuration as it is in force: the last state of its file that was whole, and
// that asks for no less than the one before.
//
// The toolkit reads a file anew with each connection and each request, so it would take whatever
// is there in the middle of a change: of a file that is written in place, nothing, or the part
// without the passwords. So it gets a copy in memory instead, which is replaced as a whole.
type protection struct {
	file string
	log  *slog.Logger

	mu      sync.Mutex
	copy    int // descriptor
	text    []byte
	config  toolkit.Config
	seen    identity
	trouble event.Once
}

// identity tells one state of a file from others.
type identity struct {
	inode        uint64
	size         int64
	mtime, ctime unix.Timespec
}

var errEmpty = errors.New("it is empty, and so asks for no protection; for that, leave the option out")

// protect reads a configuration file at a start: an empty one is an error.
func protect(file string, log *slog.Logger) (*protection, error) {
	p := &protection{file: file, log: log, copy: -1}
	text, err := p.read()
	if err == nil {
		p.text = text
		p.copy, p.config, err = check(text, filepath.Dir(file))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

func (p *protection) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	unix.Close(p.copy)
	p.copy = -1
}

// path is where the toolkit finds the configuration.
func (p *protection) path() string { return pathOf(p.copy) }

func pathOf(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// refresh takes in what has become of the file.
func (p *protection) refresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, err := identify(p.file); p.copy < 0 || err == nil && id == p.seen {
		return
	}
	text, err := p.read()
	if err == nil && bytes.Equal(text, p.text) {
		p.trouble.Over()
		return
	}
	if err == nil {
		err = p.take(text)
	}
	if err == nil {
		p.trouble.Over()
		p.log.Info("the web configuration has changed", "path", p.file)
	} else if p.trouble.New(err) {
		p.log.Warn("the web configuration can't be used as it is; the last one that could stays in force", "path", p.file, "error", err)
	}
}

// take puts a configuration into force. mu is held.
func (p *protection) take(text []byte) error {
	fd, c, err := check(text, filepath.Dir(p.file))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := weaker(&p.config, &c); err != nil {
		return err
	}
	if err := unix.Dup3(fd, p.copy, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("replacing the copy: %w", err)
	}
	p.text, p.config = text, c
	return nil
}

// read reads the file. What changes meanwhile is another one the next time.
func (p *protection) read() (text []byte, err error) {
	if p.seen, err = identify(p.file); err != nil {
		return nil, err
	}
	if time.Now().Unix()-p.seen.ctime.Sec < 2 { // it may change without that showing
		p.seen = identity{}
	}
	if text, err = os.ReadFile(p.file); err == nil && len(bytes.TrimSpace(text)) == 0 {
		err = errEmpty
	}
	return text, err
}

// check checks a configuration, and returns it and a copy of it in memory.
func check(text []byte, dir string) (fd int, c toolkit.Config, err error) {
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return -1, c, err
	}
	if text, err = absolute(text, dir); err != nil {
		return -1, c, err
	}
	if fd, err = unix.MemfdCreate("web-config", unix.MFD_CLOEXEC); err != nil {
		return -1, c, fmt.Errorf("making room for a copy: %w", err)
	}
	if _, err = unix.Write(fd, text); err == nil {
		err = toolkit.Validate(pathOf(fd))
	}
	if err != nil {
		unix.Close(fd)
		return -1, c, err
	}
	return fd, c, nil
}

func identify(file string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return identity{}, fmt.Errorf("looking at the file: %w", err)
	}
	return identity{st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}

// absolute makes the paths in a configuration, which are relative to its directory, absolute.
func absolute(content []byte, dir string) ([]byte, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	var all map[string]any
	if err := yaml.Unmarshal(content, &all); err != nil {
		return nil, err
	}
	if tls, ok := all["tls_server_config"].(map[any]any); ok {
		for _, key := range []string{"cert_file", "key_file", "client_ca_file"} {
			if file, ok := tls[key].(string); ok && file != "" && !filepath.IsAbs(file) {
				tls[key] = filepath.Join(dir, file)
			}
		}
	}
	return yaml.Marshal(all)
}

// weaker returns an error if a configuration asks for less than the one before. Such a one comes
// into force with the next start: it may be the first half of one that asks for as much.
func weaker(old, c *toolkit.Config) error {
	verified := func(c *toolkit.Config) int {
		switch c.TLSConfig.ClientAuth {
		case "RequireAndVerifyClientCert":
			return 3
		case "VerifyClientCertIfGiven", "RequireAnyClientCert", "RequireClientCert":
			return 2
		case "RequestClientCert":
			return 1
		}
		return 0
	}
	less := ""
	switch {
	case old.TLSConfig.IsEnabled() && !c.TLSConfig.IsEnabled():
		less = "TLS"
	case len(old.Users) > 0 && len(c.Users) == 0:
		less = "passwords"
	case verified(old) > verified(c), len(old.TLSConfig.ClientAllowedSans) > 0 && len(c.TLSConfig.ClientAllowedSans) == 0:
		less = "clients' certificates"
	default:
		return nil
	}
	return fmt.Errorf("it does not ask for %s any more: restart the daemon if that is meant", less)
}

// refreshing takes in changes of the configuration before anything that a client sends is judged by
// it.
type refreshing struct {
	net.Listener
	p *protection
}

// Accept returns the next connection.
func (r *refreshing) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &refreshingConn{c, r.p}, nil
}

type refreshingConn struct {
	net.Conn
	p *protection
}

// Read reads from the client.
func (c *refreshingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.p.refresh()
	}
	return n, err
}
