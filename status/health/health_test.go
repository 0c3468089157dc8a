package health

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/dfsm"
)

// good is a node of a cluster that nothing is wrong with.
func good() Node {
	g := Group{Connected: true, Mode: dfsm.ModeSynced, Members: 3, Synced: 3}
	return Node{Name: "a", Cluster: true, Mounted: true, Up: true, Version: 7, Quorate: true, Config: g, Status: g}
}

func TestNodeSaysWhyItIsNotReady(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(n *Node)
		want     []Code
		writable bool
	}{
		{"a good node", func(*Node) {}, nil, true},
		{"a node alone", func(n *Node) { *n = Node{Mounted: true, Up: true} }, nil, true},
		{"starting", func(n *Node) { n.Up, n.Mounted = false, false }, []Code{Starting}, false},
		{"stopping", func(n *Node) { n.Stopping = true }, []Code{Stopping}, false},
		{"unmounted by somebody", func(n *Node) { n.Mounted = false }, []Code{NotMounted}, false},
		{"no corosync", func(n *Node) { n.Config, n.Status, n.Quorate = Group{}, Group{}, false }, []Code{NotConnected}, false},
		{"partitioned", func(n *Node) { n.Quorate = false }, []Code{NotQuorate}, false},
		{"behind", func(n *Node) { n.Config.Mode = dfsm.ModeUpdate }, []Code{NotSynced}, false},
		{"partitioned and syncing", func(n *Node) {
			n.Quorate, n.Config.Mode, n.Status.Mode = false, dfsm.ModeStartSync, dfsm.ModeStartSync
		},
			[]Code{NotQuorate, NotSynced, StatusNotSynced}, false},
		{"the status store alone", func(n *Node) { n.Status.Mode = dfsm.ModeStart }, []Code{StatusNotSynced}, true},
		{"the status store for good", func(n *Node) { n.Status.Mode = dfsm.ModeError }, []Code{OutOfGroup}, true},
		{"the status store away from corosync", func(n *Node) {
			n.Status = Group{Mode: dfsm.ModeStart, LastError: errors.New("connection lost")}
		}, []Code{NotConnected}, true},
		{"a newer protocol", func(n *Node) { n.Config.Mode, n.Config.Connected = dfsm.ModeVersionError, false }, []Code{OutOfGroup}, false},
		{"a full disk", func(n *Node) { n.Database = errors.New("no space left"); n.Config.Mode = dfsm.ModeStart },
			[]Code{DatabaseFailed, NotSynced}, false},
	} {
		n := good()
		c.change(&n)
		var got []Code
		for _, r := range n.Reasons() {
			got = append(got, r.Code)
			if r.Text == "" || !strings.Contains(n.Summary(), r.Text) {
				t.Errorf("%s: the summary %q lacks the reason %q", c.name, n.Summary(), r.Text)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
		if n.Writable() != c.writable {
			t.Errorf("%s: writable is %v", c.name, n.Writable())
		}
	}
}

func ask(h http.Handler, target, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestReadyHandlerAnswersInTextAndJSON(t *testing.T) {
	n := good()
	h := ReadyHandler(func() Node { return n })
	if w := ask(h, "/readyz", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "ready, quorate, synced with 3 of 3 members; database version 7") {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	n.Quorate = false
	if w := ask(h, "/readyz", "text/html"); w.Code != 503 || !strings.HasPrefix(w.Body.String(), "not_quorate: ") {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	for _, w := range []*httptest.ResponseRecorder{ask(h, "/readyz", "application/json"), ask(h, "/readyz?format=json", "")} {
		var d Document
		if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != 503 {
			t.Fatalf("%d %v", w.Code, err)
		}
		if d.Ready || d.Node != "a" || d.Mode != "cluster" || d.Config.Members != 3 || len(d.Reasons) != 1 || d.Reasons[0].Code != NotQuorate {
			t.Errorf("%+v", d)
		}
	}
}

func TestStuckLoopIsNamedAndTheOthersAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Liveness
		if err := l.Alive(t.Context()); err != nil {
			t.Errorf("without checks: %v", err)
		}
		time.Sleep(2 * checkInterval)
		stuck := true
		l.Add(Check{"fine", func(context.Context) error { return nil }})
		l.Add(Check{"loop", func(ctx context.Context) error {
			if !stuck {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		begin := time.Now()
		err := l.Alive(t.Context())
		if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "loop: ") || strings.Contains(err.Error(), "fine") {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took != CheckTimeout {
			t.Errorf("an answer after %v", took)
		}
		if w := ask(AliveHandler(&l), "/healthz", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "loop: ") {
			t.Errorf("%d %q", w.Code, w.Body)
		}
		stuck = false
		time.Sleep(2 * checkInterval)
		if w := ask(AliveHandler(&l), "/healthz?format=json", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"alive": true`) {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	})
}

func TestManyWhoAskShareOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Liveness
		var runs atomic.Int32
		l.Add(Check{"slow", func(context.Context) error { runs.Add(1); time.Sleep(time.Second / 2); return nil }})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := l.Alive(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(2 * checkInterval)
		if err := l.Alive(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("who went away: %v", err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if runs.Load() != 2 {
			t.Errorf("%d runs", runs.Load())
		}
	})
}
