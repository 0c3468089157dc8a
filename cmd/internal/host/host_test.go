package host

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/cmd/internal/plan"
)

func testHost(t *testing.T) *Host {
	h := &Host{Root: t.TempDir(), Name: "node1", Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}
	for _, dir := range []string{"/etc/pve/priv", "/etc/pve/nodes/node1", "/var/lock"} {
		if err := h.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestMountIsRecognisedByItsLink(t *testing.T) {
	h := testHost(t)
	if err := h.Mounted(); plan.CodeOf(err) != plan.Refused {
		t.Fatalf("without a mount: %v", err)
	}
	if err := os.Symlink("nodes/node1", h.Path(Mount+"/local")); err != nil {
		t.Fatal(err)
	}
	if err := h.Mounted(); err != nil || !h.Quorate() {
		t.Fatalf("mounted: %v, quorate: %v", err, h.Quorate())
	}
	h.Writable = func() bool { return false }
	if err := h.NeedQuorum(); plan.CodeOf(err) != plan.NotQuorate {
		t.Fatalf("without quorum: %v", err)
	}
}

func TestFilesAreWrittenWholeOrNotAtAll(t *testing.T) {
	h := testHost(t)
	if err := h.WriteFile("/etc/key", []byte("secret"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile("/etc/key", []byte("other"), 0o400); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(h.Path("/etc/key"))
	if text, _ := h.ReadFile("/etc/key"); err != nil || string(text) != "other" || info.Mode() != 0o400 {
		t.Fatalf("%q, %v, %v", text, info.Mode(), err)
	}
	if err := h.Mkdir("/etc/dir/inside", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile("/etc/dir", nil, 0o600); err == nil {
		t.Fatal("a directory was overwritten")
	}
	if left, _ := filepath.Glob(h.Path("/etc/*.tmp.*")); len(left) > 0 {
		t.Fatalf("%v stayed", left)
	}
}

func TestAddressComesFromTheMembersThenFromTheName(t *testing.T) {
	h := testHost(t)
	h.Lookup = func(name string) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("10.0.0.7")}
	}
	if a, err := h.Address(); err != nil || a.String() != "10.0.0.7" {
		t.Fatalf("by name: %v, %v", a, err)
	}
	if err := h.WriteTree(Mount+"/.members", []byte(`{"nodename":"node1","version":3,"cluster":{"name":"lab","version":2,"nodes":1,"quorate":1},"nodelist":{"node1":{"id":1,"online":1,"ip":"10.0.0.1"}}}`)); err != nil {
		t.Fatal(err)
	}
	if a, err := h.Address(); err != nil || a.String() != "10.0.0.1" {
		t.Fatalf("by member list: %v, %v", a, err)
	}
	if m, err := h.Members(); err != nil || m.Cluster.Name != "lab" || m.Nodes["node1"].Online != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
}

func TestThisMachinesAddresses(t *testing.T) {
	h := &Host{}
	if has, err := h.HasAddress(netip.MustParseAddr("127.0.0.1")); err != nil || !has {
		t.Errorf("127.0.0.1: %v, %v", has, err)
	}
	if has, err := h.HasAddress(netip.MustParseAddr("192.0.2.200")); err != nil || has {
		t.Errorf("192.0.2.200: %v, %v", has, err)
	}
}

func TestProgramsRunWithoutAShell(t *testing.T) {
	h := testHost(t)
	out, err := h.Output(context.Background(), "printenv", "LC_ALL")
	if err != nil || string(out) != "C\n" {
		t.Fatalf("%q, %v", out, err)
	}
	_, err = h.Output(context.Background(), "ls", "/nowhere; true")
	var failed *CommandError
	if !errors.As(err, &failed) || failed.Status != 2 || failed.Stderr == "" {
		t.Fatalf("%v", err)
	}
	_, err = h.Output(context.Background(), "no-such-program")
	if !errors.As(err, &failed) || failed.Status != -1 {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Output(ctx, "sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
}

func TestClusterLockIsHeldByOneAndGivenBack(t *testing.T) {
	h := testHost(t)
	h.Writable = func() bool { return true }
	lock := h.Path(Mount + "/priv/lock/x")
	err := h.ClusterLock(context.Background(), "x", func(context.Context) error {
		if _, err := os.Stat(lock); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
		defer cancel()
		if err := h.ClusterLock(ctx, "x", func(context.Context) error { return errors.New("it ran") }); plan.CodeOf(err) != plan.Timeout {
			t.Errorf("a second holder: %v", err)
		}
		return errors.New("work failed")
	})
	if err == nil || err.Error() != "work failed" {
		t.Fatal(err)
	}
	if _, err := os.Stat(lock); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the lock stayed: %v", err)
	}
	h.Writable = func() bool { return false }
	os.Mkdir(lock, 0o700)
	if err := h.ClusterLock(context.Background(), "x", nil); plan.CodeOf(err) != plan.NotQuorate {
		t.Fatalf("without quorum: %v", err)
	}
}

// A change may cost the quorum for a moment, after which the lock is given back.
func TestClusterLockIsGivenBackOnceThereIsQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quorum := time.Now().Add(LockWait / 2)
		remove := func(string) error {
			if time.Now().Before(quorum) {
				return &fs.PathError{Op: "remove", Err: syscall.EACCES}
			}
			return nil
		}
		if err := giveBack("x", remove); err != nil {
			t.Error(err)
		}
		quorum = time.Now().Add(time.Hour)
		if err := giveBack("x", remove); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("without quorum: %v", err)
		}
	})
}

func TestHostLockIsHeldByOne(t *testing.T) {
	h := testHost(t)
	err := h.Flock(context.Background(), "/var/lock/pvecm.lock", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := h.Flock(ctx, "/var/lock/pvecm.lock", func() error { return nil }); plan.CodeOf(err) != plan.Timeout {
			t.Errorf("a second holder: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Flock(context.Background(), "/var/lock/pvecm.lock", func() error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestSSHUsesTheNodesHostKey(t *testing.T) {
	h := testHost(t)
	want := []string{"/usr/bin/ssh", "-e", "none", "-o", "BatchMode=yes", "-o", "HostKeyAlias=node2", "-T", "root@10.0.0.9"}
	if got := h.SSH("node2", "10.0.0.9", "-T"); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := h.WriteTree(Mount+"/nodes/node1/ssh_known_hosts", nil); err != nil {
		t.Fatal(err)
	}
	want = []string{"/usr/bin/ssh", "-e", "none", "-o", "BatchMode=yes", "-o", "HostKeyAlias=node1",
		"-o", "UserKnownHostsFile=/etc/pve/nodes/node1/ssh_known_hosts", "-o", "GlobalKnownHostsFile=none", "root@2001:db8::9"}
	if got := h.SSH("node1", "2001:db8::9"); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
