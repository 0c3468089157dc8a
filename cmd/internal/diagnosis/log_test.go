package diagnosis

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status"
	"pmxcfs/status/clusterlog"
	"pmxcfs/status/inspect"
)

// logHost is a host whose daemon has a cluster log and nothing else.
func logHost(t *testing.T) (*Host, *status.Store) {
	tree := memdb.New()
	store, err := status.New(status.Config{Tree: tree, NodeName: "n1", Start: now, Now: func() time.Time { return now }, PID: 7})
	if err != nil {
		t.Fatal(err)
	}
	s := inspect.New(inspect.Config{Tree: tree, Status: store, Commits: &sqlite.Stats{}, Recent: &inspect.Recent{}, Node: "n1"})
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: s.Handler()}}
	server.Start()
	t.Cleanup(server.Close)
	return &Host{Socket: socket}, store
}

func texts(list []inspect.LogEntry) []string {
	var out []string
	for _, e := range list {
		out = append(out, e.Text)
	}
	return out
}

func TestLogIsFilteredAndFollowed(t *testing.T) {
	h, store := logHost(t)
	say := func(priority uint8, user, tag, text string) {
		store.Log(clusterlog.Message{Priority: priority, Ident: user, Tag: tag, Text: text})
	}
	say(3, "a@pam", "pvedaemon", "one")
	say(6, "b@pam", "pvedaemon", "two")
	say(6, "a@pam", "pveproxy", "three")
	all := LogFilter{Priority: 7}
	for _, tt := range []struct {
		name   string
		change func(f *LogFilter)
		want   []string
	}{
		{"all", func(*LogFilter) {}, []string{"starting cluster log", "one", "two", "three"}},
		{"user", func(f *LogFilter) { f.User = "a@pam" }, []string{"one", "three"}},
		{"tag", func(f *LogFilter) { f.Tag = "pvedaemon" }, []string{"one", "two"}},
		{"priority", func(f *LogFilter) { f.Priority = 3 }, []string{"one"}},
		{"text", func(f *LogFilter) { f.Text = "th" }, []string{"three"}},
		{"node", func(f *LogFilter) { f.Node = "n2" }, nil},
		{"newest", func(f *LogFilter) { f.Newest = 2 }, []string{"two", "three"}},
		{"since", func(f *LogFilter) { f.Since = now.Add(time.Second) }, nil},
	} {
		f := all
		tt.change(&f)
		r := LogReader{Filter: f}
		list, err := r.New(t.Context(), h)
		if err != nil || !slices.Equal(texts(list), tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.name, texts(list), err, tt.want)
		}
	}
	r := LogReader{Filter: all}
	if _, err := r.New(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	say(6, "a@pam", "x", "four")
	for _, want := range [][]string{{"four"}, nil} {
		if list, err := r.New(t.Context(), h); err != nil || !slices.Equal(texts(list), want) {
			t.Errorf("following: %q, %v; want %q", texts(list), err, want)
		}
	}
}

func TestPrioritiesAndTimesAreRead(t *testing.T) {
	for text, want := range map[string]int{"": 7, "err": 3, "error": 3, "WARNING": 4, "warn": 4, "0": 0, "7": 7, "info": 6} {
		if got, err := ParsePriority(text); err != nil || got != want {
			t.Errorf("priority %q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"8", "-1", "bad", "1.5"} {
		if _, err := ParsePriority(text); err == nil {
			t.Errorf("priority %q is accepted", text)
		}
	}
	local := now.Local()
	for text, want := range map[string]time.Time{"": {}, "90m": now.Add(-90 * time.Minute), "3d": now.Add(-72 * time.Hour),
		local.Format("2006-01-02 15:04:05"): local, "2026-11-25T20:00:00Z": now} {
		if got, err := ParseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("since %q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"yesterday", "-5m", "5", "-3d", "99999999999d"} {
		if _, err := ParseSince(text, now); err == nil {
			t.Errorf("since %q is accepted", text)
		}
	}
}
