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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pmxcfs/status/health"
	"pmxcfs/status/metrics/metricstest"
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
	host := address
	if host == "" {
		host = "daemon"
	}
	r, err := c.Get("http://" + host + path)
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
	n := newRaced(t)
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
		switch code, body := n.get(where, "/"); {
		case where == "" && code != 404:
			t.Errorf("/ answers %d on the socket", code)
		case where != "" && (code != 200 || !strings.Contains(body, "ready, local mode") || !strings.Contains(body, `href="/metrics"`)):
			t.Errorf("/ answers %d: %s", code, body)
		}
		if code, _ := n.get(where, "/other"); code != 404 {
			t.Errorf("/other answers %d", code)
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

func TestMetricsAreServedUnlessTheyAreSwitchedOff(t *testing.T) {
	n := newRaced(t)
	n.start()
	n.write("file", "content")
	if err := os.Mkdir(n.path("priv"), 0o755); err != nil {
		t.Error(err)
	}
	ready := func() bool { code, _ := n.get("", "/readyz"); return code == 200 }
	n.eventually("it is ready", ready)
	code, body := n.get("", "/metrics")
	f, err := metricstest.Read(strings.NewReader(body))
	if code != 200 || err != nil {
		t.Fatalf("%d %v", code, err)
	}
	for _, line := range f.List() {
		if !slices.Contains(metricstest.Golden(), line) {
			t.Errorf("%q is not on the list", line)
		}
	}
	for name, want := range map[string]float64{
		"pmxcfs_changes_total": 3, "pmxcfs_change_bytes_total": 7, "pmxcfs_cluster_mode": 0, "pmxcfs_ready": 1, "pmxcfs_quorate": 1,
		"pmxcfs_fuse_request_duration_seconds": -1, "pmxcfs_tree_entries": 3, "go_goroutines": -1, "process_open_fds": -1,
	} {
		if got, ok := f.Value(name); !ok || want >= 0 && got != want || want < 0 && got < 1 {
			t.Errorf("%s is %v", name, got)
		}
	}
	n.stop()
	n.start("--no-metrics")
	n.eventually("it is ready without metrics", ready)
	if code, _ := n.get("", "/metrics"); code != 404 {
		t.Errorf("switched off, it answers %d", code)
	}
	n.write("file", "more")
	n.stop()
}

func TestRelativeRootHoldsInTheBackground(t *testing.T) {
	n := newInstance(t)
	cmd := n.command(append([]string{"--root", filepath.Base(n.root)}, n.args()[2:]...)...)
	cmd.Dir = filepath.Dir(n.root)
	must(t, cmd.Run())
	pid, err := os.ReadFile(filepath.Join(n.root, "run/pve-cluster.pid"))
	must(t, err)
	n.write("file", "content")
	number, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	must(t, err)
	must(t, syscall.Kill(number, syscall.SIGTERM))
	n.eventually("it has ended", func() bool { return syscall.Kill(number, 0) != nil && !n.mounted() })
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
