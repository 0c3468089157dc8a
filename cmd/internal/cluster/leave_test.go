package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// leaveWorld is node2 of a cluster of two, which leaves it.
type leaveWorld struct {
	*renameWorld
	removed bool // by node1
	gone    bool // node1 can't be reached
	fails   string
}

func newLeaveWorld(t *testing.T) *leaveWorld {
	w := &leaveWorld{renameWorld: newRenameWorld(t)}
	entry := func(n, parent uint64, kind memdb.Type, name, text string) *memdb.Entry {
		return memdb.NewEntry(n, parent, n, 1, 1, kind, name, []byte(text))
	}
	if err := os.Remove(w.Path(host.Database)); err != nil {
		t.Fatal(err)
	}
	err := sqlite.Create(w.Path(host.Database), []*memdb.Entry{
		{Inode: memdb.RootInode, Parent: memdb.RootInode, Version: 20, Type: memdb.TypeDir},
		entry(2, 0, memdb.TypeFile, "corosync.conf", "x"),
		entry(3, 0, memdb.TypeDir, "nodes", ""),
		entry(4, 3, memdb.TypeDir, "node1", ""),
		entry(5, 3, memdb.TypeDir, "node2", ""),
		entry(6, 5, memdb.TypeFile, "config", "own"),
		entry(7, 4, memdb.TypeFile, "config", "other"),
		entry(8, 0, memdb.TypeDir, "priv", ""),
		entry(9, 8, memdb.TypeFile, "authkey.key", "secret"),
		entry(10, 8, memdb.TypeFile, "pve-root-ca.key", "secret"),
		entry(11, 0, memdb.TypeFile, "storage.cfg", "common"),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.put(host.CorosyncConf, "x")
	w.put(host.AuthKey, "x")
	w.put(CorosyncState+"/ringid_2", "x")
	w.put(nodeDir("node1")+"/ssh_known_hosts", "node1 key")
	w.Exec = func(_ context.Context, c host.Command) error {
		line := strings.Join(c.Args, " ")
		w.did = append(w.did, line)
		if w.fails != "" && strings.Contains(line, w.fails) {
			return errors.New("it failed")
		}
		if c.Args[0] == "/usr/bin/ssh" && w.gone {
			return &host.CommandError{Args: c.Args, Status: 255, Err: errors.New("no route")}
		}
		switch {
		case strings.Contains(line, "pvecm delnode"):
			w.removed = true
		case strings.HasSuffix(line, "pvecm config show"):
			f, err := Read(w.Host)
			if err == nil && w.removed {
				f, err = f.RemoveNode("node2", false)
			}
			if err != nil {
				return err
			}
			_, err = c.Stdout.Write(f.Text())
			return err
		}
		return nil
	}
	return w
}

var leaves = LeaveOptions{Timeout: time.Minute}

// isAlone checks what the host has after it has left.
func (w *leaveWorld) isAlone() {
	w.t.Helper()
	contents, err := sqlite.Read(w.Path(host.Database))
	if err != nil {
		w.t.Fatal(err)
	}
	var list []string
	for _, e := range contents.Entries {
		list = append(list, fmt.Sprintf("%s=%s", e.Name, e.Data()))
	}
	slices.Sort(list)
	if want := []string{"=", "config=own", "node2=", "nodes=", "priv=", "storage.cfg=common"}; !slices.Equal(list, want) {
		w.t.Errorf("the tree has %q, want %q", list, want)
	}
	for _, path := range []string{host.CorosyncConf, host.AuthKey, CorosyncState + "/ringid_2", leaveJournal, leaveNew, leaveSaved, leaveKnown} {
		if w.Exists(path) {
			w.t.Errorf("%s is left", path)
		}
	}
	if !w.removed {
		w.t.Error("node1 has not removed it")
	}
}

func (w *leaveWorld) leave() error {
	_, _, err := Leave(w.t.Context(), w.Host, Services{}, leaves)
	return err
}

func (w *leaveWorld) count(what string) (n int) {
	for _, line := range w.did {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

func TestLeave(t *testing.T) {
	w := newLeaveWorld(t)
	if err := w.leave(); err != nil {
		t.Fatal(err)
	}
	w.isAlone()
	if w.count("pvecm node-left node2") != 1 {
		t.Errorf("node1 is not told that its key can go: %q", w.did)
	}
}

// It failed, or was killed, where the cluster had removed the node: the same command goes on.
func TestADepartureThatIsInterruptedIsCompleted(t *testing.T) {
	for _, fails := range []string{"systemctl stop", "systemctl start"} {
		w := newLeaveWorld(t)
		w.fails = fails
		if err := w.leave(); plan.CodeOf(err) != plan.NotUndone {
			t.Fatalf("%s fails: %v", fails, err)
		}
		w.fails = ""
		// The daemon is down meanwhile, and the peer needn't be asked.
		if err := os.Remove(w.Path(host.Mount + "/local")); err != nil {
			t.Fatal(err)
		}
		w.gone = true
		if err := w.leave(); err != nil {
			t.Fatalf("completed after %s had failed: %v", fails, err)
		}
		w.isAlone()
		if w.count("delnode") != 1 {
			t.Errorf("%q", w.did)
		}
	}

	t.Run("while the cluster removes it", func(t *testing.T) {
		w := newLeaveWorld(t)
		x := &leaving{h: w.Host, r: &plan.Report{}, o: leaves}
		if err := x.check(t.Context()); err != nil {
			t.Fatal(err)
		}
		x.killed = errors.New("killed")
		if err := x.run(t.Context()); !errors.Is(err, x.killed) {
			t.Fatal(err)
		}
		w.gone = true
		if err := w.leave(); plan.CodeOf(err) != plan.NotUndone || !strings.Contains(err.Error(), "can be reached") {
			t.Errorf("the peer can't be asked: %v", err)
		}
		w.gone, w.removed = false, true
		if err := w.leave(); err != nil {
			t.Fatal(err)
		}
		w.isAlone()
		if w.count("delnode") != 0 {
			t.Errorf("it was removed twice: %q", w.did)
		}
	})

	t.Run("before the cluster removes it", func(t *testing.T) {
		w := newLeaveWorld(t)
		w.fails = "pvecm delnode"
		if err := w.leave(); plan.CodeOf(err) != plan.Failed || w.Exists(leaveJournal) {
			t.Fatalf("%v", err)
		}
		w.fails = ""
		w.put(leaveJournal, `{"phase":"removing","peer":"node1","ip":"10.99.0.1"}`)
		if err := w.leave(); err != nil {
			t.Fatal(err)
		}
		w.isAlone()
	})

	t.Run("the connection ends behind the removal", func(t *testing.T) {
		w := newLeaveWorld(t)
		exec := w.Exec
		w.Exec = func(ctx context.Context, c host.Command) error {
			err := exec(ctx, c)
			if strings.Contains(strings.Join(c.Args, " "), "delnode") {
				err = errors.New("connection reset")
			}
			return err
		}
		if err := w.leave(); err != nil {
			t.Fatal(err)
		}
		w.isAlone()
	})
}
