package reconf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/cmd/internal/host"
)

// bench is a host on which a change from version 5 to 6 is on trial.
type bench struct {
	*guard
	t       *testing.T
	quorate atomic.Bool
	running bool // corosync
	did     []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, running: true}
	b.quorate.Store(true)
	h := &host.Host{Root: t.TempDir(), Name: "node1", Stdout: io.Discard, Stderr: io.Discard}
	h.Writable = func() bool { return b.quorate.Load() }
	h.Exec = func(_ context.Context, c host.Command) error {
		line := strings.Join(c.Args, " ")
		b.did = append(b.did, line)
		if line == "systemctl restart corosync" {
			b.running = true
		}
		return nil
	}
	for _, dir := range []string{host.Mount + "/priv/lock", historyDir, host.CorosyncDir, "/var/lib/pve-cluster", "/var/lock", "/run/systemd/system", "/etc/systemd/system"} {
		if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	members, _ := json.Marshal(map[string]any{"nodename": "node1", "cluster": map[string]any{"name": "lab", "quorate": 1}, "nodelist": map[string]any{"node1": map[string]any{"id": 1, "online": 1}, "node2": map[string]any{"id": 2, "online": 1}}})
	b.guard = &guard{h: h, loaded: func() (uint64, error) { return 100, nil }, poll: guardPoll, lost: lostLimit, active: func(context.Context) bool { return b.running }, reload: func() error {
		b.did = append(b.did, "reload")
		return nil
	}}
	b.put(host.Mount+"/.members", string(members))
	b.put(host.ClusterConf, version(6))
	b.put(host.CorosyncConf, version(6))
	b.p = &Pledge{ID: "this", Version: 6, Old: lab, Deadline: h.Time().Add(time.Minute)}
	if err := b.p.write(h); err != nil {
		t.Fatal(err)
	}
	return b
}

// version is a configuration of a version; only the one of version 5 is "lab".
func version(n int) string {
	return strings.Replace(strings.ReplaceAll(lab, "10.99.0.", "10.98.0."), "config_version: 5", fmt.Sprintf("config_version: %d", n), 1)
}

func (b *bench) put(path, text string) {
	b.t.Helper()
	if err := os.WriteFile(b.h.Path(path), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// want checks what the host has in the end.
func (b *bench) want(tree, own string, did ...string) {
	b.t.Helper()
	for path, want := range map[string]string{host.ClusterConf: tree, host.CorosyncConf: own} {
		if got, _ := b.h.ReadFile(path); string(got) != want {
			b.t.Errorf("%s is\n%s\nnot\n%s", path, got, want)
		}
	}
	if b.h.Exists(pledgeFile) {
		b.t.Error("the pledge is left")
	}
	if !slices.Equal(b.did, did) {
		b.t.Errorf("it did %q, want %q", b.did, did)
	}
	if left, _ := filepath.Glob(b.h.Path(host.Mount + "/priv/lock/*")); len(left) > 0 {
		b.t.Errorf("locks are left: %v", left)
	}
}

func (b *bench) runs() {
	b.t.Helper()
	if err := b.run(b.t.Context()); err != nil {
		b.t.Error(err)
	}
}

// old is the text before, with a version.
func old(n int) string {
	return strings.Replace(lab, "config_version: 5", fmt.Sprintf("config_version: %d", n), 1)
}

func TestAGuardOfAConfirmedChangeDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.put(confirmedFile, "another\n")
		time.AfterFunc(10*time.Second, func() { b.put(confirmedFile, "this\n") })
		began := time.Now()
		b.runs()
		if d := time.Since(began); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("it took %v", d)
		}
		b.want(version(6), version(6))
	})
}

func TestAGuardGoesBackThroughTheTreeAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		began := time.Now()
		b.runs()
		if d := time.Since(began); d < time.Minute || d > time.Minute+2*time.Second {
			t.Errorf("it took %v", d)
		}
		b.want(old(7), version(6)) // the daemon copies it to the host
	})
}

func TestAGuardThatIsToldGoesBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		time.AfterFunc(time.Second, func() {
			if err := errors.Join(Due(b.h, "another"), Due(b.h, "this")); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		b.runs()
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("it took %v", d)
		}
		b.want(old(7), version(6))
	})
}

func TestAGuardWithoutQuorumGoesBackOnItsHostFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.quorate.Store(false)
		// All nodes do so, and so have quorum again.
		reload := b.reload
		b.reload = func() error {
			time.AfterFunc(2*time.Second, func() { b.quorate.Store(true) })
			return reload()
		}
		began := time.Now()
		b.runs()
		if d := time.Since(began); d < lostLimit || d > lostLimit+4*time.Second {
			t.Errorf("it took %v", d)
		}
		b.want(old(7), old(6), "reload")
	})
}

func TestAGuardFollowsThoseWhoHaveGoneBackBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.quorate.Store(false)
		// corosync ends itself, since the others have version 7.
		reload := b.reload
		b.reload = func() error {
			b.running = false
			return reload()
		}
		exec := b.h.Exec
		b.h.Exec = func(ctx context.Context, c host.Command) error {
			if text, _ := b.h.ReadFile(host.CorosyncConf); string(text) == old(7) {
				b.put(host.ClusterConf, old(7))
				b.quorate.Store(true)
			}
			return exec(ctx, c)
		}
		b.runs()
		b.want(old(7), old(7), "reload", "systemctl restart corosync")
	})
}

// The others have gone back while this host was cut off, and it missed that corosync was to load it.
func TestAGuardHasCorosyncLoadWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.quorate.Store(false)
		loaded := 6
		b.loaded = func() (uint64, error) { return uint64(loaded), nil }
		reload := b.reload
		b.reload = func() error {
			loaded = int(versionOf(b.h, host.CorosyncConf))
			if loaded == 6 { // it meets the others, and its daemon gets their tree
				time.AfterFunc(2*time.Second, func() {
					b.put(host.ClusterConf, old(7))
					b.quorate.Store(true)
				})
				time.AfterFunc(4*time.Second, func() { b.put(host.CorosyncConf, old(7)) })
			}
			return reload()
		}
		b.runs()
		b.want(old(7), old(7), "reload", "reload")
		if loaded != 7 {
			t.Errorf("corosync has version %d", loaded)
		}
	})
}

func TestAGuardOfAChangeThatNeverCameDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.put(host.ClusterConf, old(5))
		b.put(host.CorosyncConf, old(5))
		b.quorate.Store(false)
		b.runs()
		b.want(old(5), old(5))
	})
}

func TestAGuardLeavesALaterChangeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.put(host.ClusterConf, version(9))
		b.runs()
		b.want(version(9), version(6))
	})
}

func TestTwoChangesAreNotOnTrialAtOnce(t *testing.T) {
	b := newBench(t)
	if err := Arm(t.Context(), b.h, &Pledge{ID: "other", Version: 7, Old: lab, Limit: time.Minute}); err == nil {
		t.Error("the second one is let in")
	}
	if p, err := readPledge(b.h); err != nil || p.ID != "this" {
		t.Errorf("%+v, %v", p, err)
	}
}

// A step of a change is confirmed before the next one begins, and guards notice a little later.
func TestAConfirmedChangeIsInNobodysWay(t *testing.T) {
	b := newBench(t)
	next := &Pledge{ID: "next", Version: 7, Old: version(6), Limit: time.Minute}
	if err := Arm(t.Context(), b.h, next); err == nil || !strings.Contains(err.Error(), "on trial") {
		t.Errorf("a change beside one on trial: %v", err)
	}
	b.put(confirmedFile, "this\n")
	if err := Arm(t.Context(), b.h, next); err != nil {
		t.Fatal(err)
	}
	if err := b.p.forget(t.Context(), b.h); err != nil { // by the guard of the first one
		t.Error(err)
	}
	if p, err := readPledge(b.h); err != nil || p == nil || p.ID != "next" {
		t.Errorf("the host keeps %v (%v)", p, err)
	}
	if err := next.forget(t.Context(), b.h); err != nil {
		t.Error(err)
	}
	if p, err := readPledge(b.h); err != nil || p != nil {
		t.Errorf("the host still keeps %v (%v)", p, err)
	}
}
