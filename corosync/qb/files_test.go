package qb_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"pmxcfs/corosync/qb"
	"pmxcfs/corosync/qb/qbtest"
)

// gone returns the id of a process that has ended.
func gone(t *testing.T) int {
	t.Helper()
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

// leave makes what a killed server leaves.
func leave(t *testing.T, server, client int, service string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", fmt.Sprintf("qb-%d-%d-7-*", server, client))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, ring := range []string{"request", "response", "event"} {
		for _, part := range []string{"header", "data"} {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("qb-%s-%s-%s", ring, service, part)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

func TestAKilledServersRingsAreRemovedByTheNext(t *testing.T) {
	name := qbtest.Name()
	dead, us := gone(t), os.Getpid()
	stale := leave(t, dead, 1, name)
	keep := []string{
		leave(t, us, 1, name),                        // of a process that lives
		leave(t, dead, 1, qbtest.Name()),             // of another service
		leave(t, dead, 1, "x"+name),                  // even of a similar one
		leave(t, dead, us, "cfg"+name[len(name)-4:]), // of a client's
	}
	srv, err := qb.Start(qb.Config{Name: name, Accept: func(qb.Peer) (qb.Handler, error) { return nil, os.ErrPermission }})
	if err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	if exists(stale) {
		t.Error("left")
	}
	for _, dir := range keep {
		if !exists(dir) {
			t.Errorf("%s was removed", dir)
		}
	}
}

func TestRingsOfOurConnectionsToAKilledServerAreRemoved(t *testing.T) {
	dead, us := gone(t), os.Getpid()
	stale := []string{leave(t, dead, us, "cpg"), leave(t, dead, us, "quorum")}
	keep := []string{leave(t, us, us, "cpg"), leave(t, dead, us+1, "cpg")}
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.Mkdir(victim, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(victim, "qb-request-cpg-data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Anybody may make this.
	link := fmt.Sprintf("/dev/shm/qb-%d-%d-7-link", dead, us)
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(link) })
	removed, err := qb.RemoveStaleClient()
	if err == nil {
		t.Error("nothing is said of the link")
	}
	slices.Sort(stale)
	slices.Sort(removed)
	if !slices.Equal(removed, stale) {
		t.Errorf("removed are %v, want %v", removed, stale)
	}
	for _, dir := range append(keep, filepath.Join(victim, "qb-request-cpg-data")) {
		if !exists(dir) {
			t.Errorf("%s was removed", dir)
		}
	}
}

func TestHolderOfAName(t *testing.T) {
	srv := serve(t, nil)
	dial(t, srv.name) // a connection bears the name, too
	p, err := qb.Holder(srv.name)
	if err != nil || p.PID != os.Getpid() || p.Name == "" || int(p.UID) != os.Geteuid() {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := qb.Holder(qbtest.Name()); err == nil {
		t.Errorf("of a name that nobody has: %+v", p)
	}
}
