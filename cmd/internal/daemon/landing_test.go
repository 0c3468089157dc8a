package daemon

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pmxcfs/status/health"
)

func TestLandingPageTellsTheStateAndEscapesIt(t *testing.T) {
	for _, c := range []struct {
		node    health.Node
		metrics bool
		want    []string
	}{
		{health.Node{Name: "node1", Mounted: true, Up: true, Version: 7}, true, []string{"node node1", "ready, local mode; database version 7", `href="/metrics"`, `href="/readyz"`, `href="/healthz"`, "1.2.3"}},
		{health.Node{Name: "<b>", Mounted: true, Up: true, Database: errors.New("<script>")}, false, []string{"&lt;b&gt;", "can&#39;t be written: &lt;script&gt;", "see to the disk"}},
	} {
		w := httptest.NewRecorder()
		landingPage("1.2.3", c.metrics, func() health.Node { return c.node }, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		body := w.Body.String()
		for _, want := range c.want {
			if !strings.Contains(body, want) {
				t.Errorf("it lacks %q:\n%s", want, body)
			}
		}
		if strings.Contains(body, "<script>") || strings.Contains(body, "debug/pprof") || strings.Contains(body, `href="/metrics"`) != c.metrics || w.Code != 200 {
			t.Errorf("%d:\n%s", w.Code, body)
		}
	}
}

func TestOwnNamesComeFromHostsAndTheSearchDomains(t *testing.T) {
	dir := t.TempDir()
	hosts, resolv := filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
	for path, text := range map[string]string{
		hosts:  "127.0.0.1 localhost\n10.0.0.1\tnode1.example.com node1 # evil.example.com node1\n10.0.0.2 node2.example.com node2\n#10.0.0.1 old.example.com node1\n",
		resolv: "nameserver 10.0.0.9\nsearch lab.test other.test\ndomain one.test\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := ownNames("node1", hosts, resolv)
	for _, want := range []string{"node1", "node1.example.com", "node1.lab.test", "node1.other.test", "node1.one.test"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks %s", got, want)
		}
	}
	for _, other := range []string{"node2", "node2.example.com", "evil.example.com", "old.example.com", "localhost"} {
		if slices.Contains(got, other) {
			t.Errorf("%q has %s", got, other)
		}
	}
	if got := ownNames("node1", filepath.Join(dir, "none"), filepath.Join(dir, "none")); !slices.Contains(got, "node1") {
		t.Errorf("%q", got)
	}
}
