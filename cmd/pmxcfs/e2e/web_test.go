package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pmxcfs/status/health"
	"pmxcfs/status/web"
)

// get asks a daemon, over its Unix socket if there is no address.
func (n *instance) get(address, path string) (code int, body string) {
	n.t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if address == "" {
			return web.Dial(ctx, n.socket())
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	r, err := c.Get("http://daemon" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	must(n.t, err)
	return r.StatusCode, string(b)
}

func (n *instance) socket() string { return filepath.Join(n.root, "run/pve-cluster/pmxcfs.sock") }

// freeAddress is one on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestHealthIsToldOnTheSocketAndOnTCP(t *testing.T) {
	n := newInstance(t)
	address := freeAddress(t)
	n.start("--metrics-listen", address)
	for _, where := range []string{"", address} {
		n.eventually("it is ready", func() bool {
			code, body := n.get(where, "/readyz")
			return code == 200 && strings.HasPrefix(body, "ready, local mode; database version ")
		})
		if code, body := n.get(where, "/healthz"); code != 200 || body != "alive\n" {
			t.Errorf("%d %q", code, body)
		}
		if code, _ := n.get(where, "/"); code != 404 {
			t.Errorf("/ answers %d", code)
		}
	}
	var d health.Document
	_, body := n.get("", "/readyz?format=json")
	must(t, json.Unmarshal([]byte(body), &d))
	if !d.Ready || d.Node != "node1" || d.Mode != "local" || !d.Mounted || !d.Writable || !d.Quorate || d.Version == 0 || d.Config != nil {
		t.Errorf("%s", body)
	}
	st, err := os.Stat(n.socket())
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v", st.Mode())
	}
	n.stop()
	if _, err := os.Lstat(n.socket()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket after the end: %v", err)
	}
}

func TestTakenPortAndLeftSocketDoNotKeepTheDaemonFromStarting(t *testing.T) {
	n := newInstance(t)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer other.Close()
	address := other.Addr().String()
	n.start("--metrics-listen", address)
	n.eventually("it warns", func() bool { return strings.Contains(n.logText(), "address already in use") })
	n.write("file", "content")
	n.eventually("the socket is served", func() bool { code, _ := n.get("", "/readyz"); return code == 200 })
	other.Close()
	n.eventually("the port is served", func() bool { code, _ := n.get(address, "/readyz"); return code == 200 })
	n.signal(syscall.SIGKILL)
	<-n.done
	n.start()
	n.eventually("the socket is served again", func() bool { code, _ := n.get("", "/readyz"); return code == 200 })
	n.stop()
}

func TestNothingIsServedIfAskedFor(t *testing.T) {
	n := newInstance(t)
	n.start("--socket", "", "--metrics-listen", "")
	n.write("file", "content")
	if _, err := os.Lstat(n.socket()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a socket: %v", err)
	}
	n.stop()
}
