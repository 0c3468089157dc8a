package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
)

func lostFile(path string, version uint64, data []byte) dcdb.Lost {
	return dcdb.Lost{Path: path, Entry: memdb.NewEntry(version, 0, version, 1, 1000, memdb.TypeFile, filepath.Base(path), data)}
}

func TestWhatAMergeTakesAwayIsKeptForRootOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "split")
	empty := dcdb.Lost{Path: "nodes/b/lxc", Entry: memdb.NewEntry(7, 0, 7, 1, 1000, memdb.TypeDir, "lxc", nil)}
	to, err := keepLost(dir, time.Now)([]dcdb.Lost{lostFile("m.cfg", 5, []byte("m")), lostFile("nodes/a/qemu-server/500.conf", 6, []byte("g")), empty})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(to, "nodes/b/lxc")); err != nil || !st.IsDir() || st.Mode().Perm() != 0o700 {
		t.Errorf("the empty directory: %v, %v", st, err)
	}
	for path, want := range map[string]string{"m.cfg": "m", "nodes/a/qemu-server/500.conf": "g"} {
		name := filepath.Join(to, path)
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", path, b, err)
		}
		if st, err := os.Stat(name); err != nil || st.Mode() != 0o600 || st.ModTime().Unix() != 1000 {
			t.Errorf("%s: %v, %v", path, st.Mode(), st.ModTime())
		}
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestANameCannotLeadOutOfTheDirectory(t *testing.T) {
	top := t.TempDir()
	to, err := keepLost(filepath.Join(top, "split"), time.Now)([]dcdb.Lost{lostFile("../../../evil", 5, []byte("m")), lostFile("good", 6, []byte("g"))})
	if err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(to, "good")); err != nil {
		t.Error(err)
	}
	if names, err := filepath.Glob(filepath.Join(top, "*")); err != nil || len(names) != 1 {
		t.Errorf("%q, %v", names, err)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "split")
	at := time.Unix(1000, 0)
	keep := keepLost(dir, func() time.Time { at = at.Add(time.Minute); return at })
	var last string
	for i := range lostDirs + 5 {
		to, err := keep([]dcdb.Lost{lostFile("f", uint64(i+1), []byte("x"))})
		if err != nil {
			t.Fatal(err)
		}
		last = to
	}
	if names, _ := os.ReadDir(dir); len(names) != lostDirs || filepath.Join(dir, names[len(names)-1].Name()) != last {
		t.Errorf("%d directories", len(names))
	}
	var list []dcdb.Lost
	for i := range lostLimit/(1<<20) + 2 {
		list = append(list, lostFile(fmt.Sprint(i), uint64(i+1), make([]byte, 1<<20)))
	}
	to, err := keep(list)
	if err == nil {
		t.Error("it is not said that files were left out")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("%d directories", len(names))
	}
	kept, _ := os.ReadDir(to)
	if len(kept) == 0 || len(kept) > lostLimit>>20 {
		t.Errorf("%d files are kept", len(kept))
	}
	if _, err := os.Stat(filepath.Join(to, fmt.Sprint(len(list)-1))); err != nil {
		t.Errorf("the newest is left out: %v", err)
	}
}
