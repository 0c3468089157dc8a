package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// TestFullDiskTakesNothingAndComesBack fills the file system that holds the
// database.
func TestFullDiskTakesNothingAndComesBack(t *testing.T) {
	n := newInstance(t)
	disk := filepath.Dir(n.db)
	must(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"))
	ballast := filepath.Join(disk, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 512<<10), 0o600))
	n.start()
	n.mkdir("d")
	n.write("d/first", "first")
	want := state{"first": "first"}

	// Until nothing more fits, in smaller and smaller pieces.
	failures := 0
	for size, i := 256<<10, 0; size > 0; i++ {
		name := fmt.Sprintf("f%03d", i)
		data := strings.Repeat(string(rune('a'+i%26)), size)
		err := os.WriteFile(n.path("d/"+name), []byte(data), 0o640)
		switch {
		case err == nil:
			want[name] = data
		case errors.Is(err, syscall.ENOSPC):
			failures++
			size /= 4
			// The file itself may have come to be.
			if b, err := os.ReadFile(n.path("d/" + name)); err == nil {
				if len(b) != 0 {
					t.Fatalf("%s failed to be written, and holds %s", name, brief(string(b)))
				}
				want[name] = ""
			}
		default:
			t.Fatalf("a full disk answers %v", err)
		}
		if i > 2000 {
			t.Fatal("the disk never fills")
		}
	}
	if failures == 0 {
		t.Fatal("nothing failed")
	}
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s on a full disk answers %v", what, err)
		}
	}
	big := []byte(strings.Repeat("z", 100<<10))
	for range 3 {
		full("overwriting", os.WriteFile(n.path("d/first"), big, 0o640))
	}
	f, err := os.OpenFile(n.path("d/first"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	if _, err := f.Write(big); err != nil {
		full("appending", err)
	} else {
		full("fsync after appending", f.Sync())
	}
	f.Close()
	showsSoon(t, n, "d", want)
	n.wantLog("storing a change failed")
	if log := n.logText(); !strings.Contains(log, " failed: database or disk is full") && !strings.Contains(log, " failed: disk I/O error") {
		t.Error("the log does not say what failed")
	}

	// What was not stored is not there after a restart either, on a disk that
	// is still full.
	n.kill()
	n.start()
	showsSoon(t, n, "d", want)
	full("overwriting", os.WriteFile(n.path("d/first"), big, 0o640))
	showsSoon(t, n, "d", want)

	must(t, os.Remove(ballast))
	must(t, os.WriteFile(n.path("d/first"), big, 0o640))
	must(t, os.Mkdir(n.path("d/m"), 0o755))
	want["first"], want["m"] = string(big), dirMark
	showsSoon(t, n, "d", want)
	n.wantLog("the database can be written again")
	n.stop()

	onDisk := treeOf(t, n.db)
	delete(onDisk, "d")
	for name, content := range want {
		if onDisk["d/"+name] != content {
			t.Errorf("the file holds %s as %s, the mount showed %s", name, brief(onDisk["d/"+name]), brief(content))
		}
	}
	if len(onDisk) != len(want) {
		t.Errorf("the file holds %d entries, the mount showed %d", len(onDisk), len(want))
	}
	n.start()
	if got := mustState(t, n.path("d")); !maps.Equal(got, want) {
		t.Error("after a restart the tree is another one")
	}
	n.stop()
}

// TestFullTreeIsRefused fills the tree itself, which has a limit of its own.
func TestFullTreeIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 128 MiB")
	}
	n := newInstance(t)
	mib := []byte(strings.Repeat("x", 1<<20))
	const made = 127 // in the database, which is quicker
	entries := []*memdb.Entry{memdb.NewEntry(memdb.RootInode, memdb.RootInode, made+1, 1, 1700000000, memdb.TypeDir, "", nil)}
	for i := range uint64(made) {
		entries = append(entries, memdb.NewEntry(i+2, memdb.RootInode, i+2, 1, 1700000000, memdb.TypeFile, fmt.Sprint("f", i), mib))
	}
	must(t, sqlite.Create(n.db, entries))
	n.start()
	n.write("last", string(mib))
	if err := os.WriteFile(n.path("one"), []byte("x"), 0o640); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a byte more answers %v", err)
	}
	var st syscall.Statfs_t
	must(t, syscall.Statfs(n.mount, &st))
	if st.Bsize != 4096 || st.Blocks != 32768 || st.Bfree != 0 || st.Files != 262144 || st.Ffree != 262144-130 && st.Ffree != 262144-129 {
		t.Errorf("statfs: %+v", st)
	}
	must(t, os.Remove(n.path("f0")))
	n.write("one", "x")
	n.stop()
}
