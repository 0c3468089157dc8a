package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// TestLargeTreeReachesAnEmptyNodeWhileOthersWork has a node without a database
// join a tree of 20,000 files that the others read and write meanwhile.
func TestLargeTreeReachesAnEmptyNodeWhileOthersWork(t *testing.T) {
	const files, perDir = 20000, 1000
	c := labtest.Hosts(t, lab.New(t, 3))

	// The tree as a database: written through the mount it would take a while.
	version, mtime := uint64(1), uint32(time.Now().Unix())
	var entries []*memdb.Entry
	add := func(parent uint64, typ memdb.Type, name string, data string) uint64 {
		version++
		entries = append(entries, memdb.NewEntry(version, parent, version, 1, mtime, typ, name, []byte(data)))
		return version
	}
	add(0, memdb.TypeFile, "corosync.conf", c.Lab.Conf().String())
	name := func(i int) string { return fmt.Sprintf("bulk-%d/file-%d", i/perDir, i) }
	content := func(i int) string { return fmt.Sprintf("content of file %d\n", i) }
	var dir uint64
	for i := range files {
		if i%perDir == 0 {
			dir = add(0, memdb.TypeDir, filepath.Dir(name(i)), "")
		}
		add(dir, memdb.TypeFile, filepath.Base(name(i)), content(i))
	}
	root := memdb.NewEntry(memdb.RootInode, 0, version, 1, mtime, memdb.TypeDir, "", nil)
	db := filepath.Join(c.Node(1).Host.Dir(), "pve-cluster", "config.db")
	if err := sqlite.Create(db, append([]*memdb.Entry{root}, entries...)); err != nil {
		t.Fatal(err)
	}
	c.Node(1).Start()
	c.Node(2).Start()
	c.WantTogether(c.Node(1), c.Node(2))
	c.Node(2).WantFile(name(files-1), content(files-1))

	stop := make(chan struct{})
	var work sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); work.Wait() })
	defer end()
	var longest [2]time.Duration // of a reader's calls, and of a writer's
	var refused int
	work.Go(func() {
		for i := 0; ; i = (i + 7919) % files {
			select {
			case <-stop:
				return
			default:
			}
			begin := time.Now()
			if b, err := os.ReadFile(c.Node(2).Path(name(i))); err != nil || string(b) != content(i) {
				t.Errorf("reading while a node joins: %q, %v", b, err)
			}
			longest[0] = max(longest[0], time.Since(begin))
		}
	})
	work.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			begin := time.Now()
			err := os.WriteFile(c.Node(1).Path("busy"), []byte(fmt.Sprint(i)), 0o640)
			switch {
			case errors.Is(err, syscall.EACCES):
				refused++
			case err != nil:
				t.Errorf("writing while a node joins: %v", err)
			}
			longest[1] = max(longest[1], time.Since(begin))
		}
	})
	begin := time.Now()
	c.Node(3).Start()
	c.Node(3).WantFile(name(files-1), content(files-1))
	joined := time.Since(begin)
	c.WantTogether(c.Nodes...)
	end()
	t.Logf("%d files: joined %v after the program was started; longest read %v, longest write %v, %d writes refused",
		files, joined.Round(time.Millisecond), longest[0].Round(time.Microsecond), longest[1].Round(time.Microsecond), refused)
	if refused > 0 {
		t.Errorf("%d writes refused although there was quorum all the time", refused)
	}
	for i := 0; i < files; i += 977 {
		if b, err := os.ReadFile(c.Node(3).Path(name(i))); err != nil || string(b) != content(i) {
			t.Errorf("%s on the node that joined: %q, %v", name(i), b, err)
		}
	}
	c.WantSameDatabases()
}
