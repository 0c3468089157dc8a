package record

import (
	"os"
	"slices"
	"strings"
	"testing"

	"pmxcfs/contrib/lab/labtest"
)

const guest = "nodes/node1/qemu-server/100.conf"

func TestWhatWasThereComesBack(t *testing.T) {
	t.Parallel()
	n := single(t)
	n.Must(os.MkdirAll(n.Path("nodes/node1/qemu-server"), 0o755))
	n.Must(os.MkdirAll(n.Path("nodes/node2/qemu-server"), 0o755))
	n.Must(os.MkdirAll(n.Path("d/sub"), 0o755))

	t.Run("a guest that was overwritten", func(t *testing.T) {
		n.T = t
		n.Write(guest, "cores: 2\n")
		n.Write(guest, "cores: 4\n")
		if out := must(n, "history", "diff", guest); !strings.Contains(out, "-cores: 2\n+cores: 4\n") {
			t.Errorf("diff: %s", out)
		}
		refused(n, "give --yes", "history", "restore", guest)
		n.WantFile(guest, "cores: 4\n")
		must(n, "history", "restore", guest, "--yes")
		n.WantFile(guest, "cores: 2\n")
		must(n, "history", "restore", "--yes", "/etc/pve/"+guest) // the restoring is undone
		n.WantFile(guest, "cores: 4\n")
		want := []string{"write " + guest + " 9", "write " + guest + " 9", "write " + guest + " 9", "write " + guest + " 9", "create " + guest + " 0"}
		if got := describe(changes(n, guest)); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
	t.Run("a guest that was deleted", func(t *testing.T) {
		n.T = t
		n.Remove(guest)
		if out := must(n, "history", "show", guest); out != "cores: 4\n" {
			t.Errorf("show: %q", out)
		}
		must(n, "history", "restore", guest, "--yes")
		n.WantFile(guest, "cores: 4\n")
	})
	t.Run("a guest that lives elsewhere now", func(t *testing.T) {
		n.T = t
		n.Must(os.Rename(n.Path(guest), n.Path("nodes/node2/qemu-server/100.conf")))
		refused(n, "lives at nodes/node2/qemu-server/100.conf now", "history", "restore", guest, "--yes")
		n.WantNone(guest)
	})
	t.Run("a directory that was deleted", func(t *testing.T) {
		n.T = t
		n.Write("d/a", "a")
		n.Write("d/sub/b", "b")
		n.Must(os.RemoveAll(n.Path("d")))
		n.WantNone("d")
		must(n, "history", "restore", "--deleted", "d", "--yes")
		n.WantFile("d/a", "a")
		n.WantFile("d/sub/b", "b")
		if out := must(n, "history", "restore", "--deleted", "d", "--yes"); !strings.Contains(out, "nothing has to be done") {
			t.Errorf("again: %s", out)
		}
	})
	t.Run("a file that is a directory now", func(t *testing.T) {
		n.T = t
		n.Remove("d/a")
		n.Mkdir("d/a")
		refused(n, "is a directory now", "history", "restore", "d/a", "--yes")
		n.WantDir("d/a")
	})
	t.Run("a file in the way of a directory", func(t *testing.T) {
		n.T = t
		n.Must(os.RemoveAll(n.Path("d/sub")))
		n.Write("d/sub", "in the way")
		refused(n, "a file is in the way", "history", "restore", "d/sub/b", "--yes")
		n.WantFile("d/sub", "in the way")
	})
	t.Run("an earlier absence", func(t *testing.T) {
		n.T = t
		n.Write("late", "x")
		version := changes(n, "late").Changes[1].Version
		n.Write("late", "y")
		must(n, "history", "restore", "late@"+itoa(version), "--yes")
		n.WantFile("late", "")
	})
	t.Run("a snapshot, with changes since", func(t *testing.T) {
		n.T = t
		n.Write("kept", "one")
		n.Write("changed", "one")
		n.Write("removed", "one")
		must(n, "snapshot", "create", "before", "--note", "a test")
		refused(n, "already", "snapshot", "create", "before")
		n.Write("changed", "two")
		n.Remove("removed")
		n.Write("added", "new")
		if out := must(n, "snapshot", "diff", "before"); out != "added   added\nchanged changed\ndeleted removed\n" {
			t.Errorf("diff: %q", out)
		}
		must(n, "snapshot", "restore", "before", "removed", "--yes")
		n.WantFile("removed", "one")
		n.WantFile("changed", "two")
		must(n, "snapshot", "restore", "before", "--yes")
		n.WantFile("changed", "one")
		n.WantFile("added", "new")
		must(n, "snapshot", "restore", "before", "--yes", "--delete")
		n.WantNone("added")
		if out := must(n, "snapshot", "list"); !strings.Contains(out, "before") || !strings.Contains(out, "a test") {
			t.Errorf("list: %s", out)
		}
		must(n, "snapshot", "delete", "before")
		refused(n, "no snapshot", "snapshot", "delete", "before")
	})
	n.T = t
	t.Run("without a daemon", func(t *testing.T) {
		n.T = t
		n.Write("last", "words\n")
		n.Stop()
		if out := must(n, "history", "show", "last"); out != "words\n" {
			t.Errorf("show: %q", out)
		}
		if out := must(n, "history", "blame", "last"); !strings.HasSuffix(out, "words\n") || !strings.Contains(out, "node1") {
			t.Errorf("blame: %q", out)
		}
		refused(n, "without the daemon", "history", "restore", "last", "--yes")
		must(n, "history", "export", "/run/exported")
		if b, err := os.ReadFile(n.Host.Path("/run/exported/last")); err != nil || string(b) != "words\n" {
			t.Errorf("export: %q %v", b, err)
		}
		files, err := os.ReadDir(n.Host.Dir() + "/pve-cluster")
		n.Must(err)
		for _, f := range files {
			if strings.HasPrefix(f.Name(), "history.db-") {
				t.Errorf("%s was left behind", f.Name())
			}
			if info, err := f.Info(); err == nil && f.Name() == "history.db" && info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", info.Mode())
			}
		}
	})
}

func TestWithoutAHistoryNothingIsRecorded(t *testing.T) {
	t.Parallel()
	n := single(t)
	n.Stop()
	n.Must(os.Remove(n.Host.Dir() + "/pve-cluster/history.db"))
	n.Start("--history-size", "0")
	n.Write("a", "one")
	refused(n, "history-size 0", "history", "a")
	refused(n, "records no history", "watch")
	if _, err := os.Stat(n.Host.Dir() + "/pve-cluster/history.db"); err == nil {
		t.Error("there is a file")
	}
}

func TestNothingIsRestoredWithoutQuorum(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 3)
	n := c.Node(1)
	n.Mkdir("nodes")
	n.Mkdir("priv")
	n.Write("a", "one")
	n.Write("a", "two")
	c.Everywhere("a", "two")
	n.Must(c.Lab.Cut(1))
	n.WantReadOnly("a")
	refused(n, "no quorum", "history", "restore", "a", "--yes")
	n.WantFile("a", "two")
	n.Must(c.Lab.Heal())
	c.WantTogether(c.Nodes...)
	must(n, "history", "restore", "a", "--yes")
	c.Everywhere("a", "one")
	if l := changes(c.Node(2), "a"); len(l.Changes) != 4 || l.Changes[0].Node != "node1" {
		t.Errorf("on another node: %q", describe(l))
	}
}
