package diagnosis

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestWhatLiesBesideTheDatabaseIsFound(t *testing.T) {
	top := t.TempDir()
	place := func(path, text string) {
		t.Helper()
		path = filepath.Join(top, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The database is a symbolic link: its daemon keeps what is lost where that leads to.
	place("real/config.db", "")
	if err := os.Symlink("real/config.db", filepath.Join(top, "config.db")); err != nil {
		t.Fatal(err)
	}
	h := &Host{Database: filepath.Join(top, "config.db")}
	if list, err := h.kept(); err != nil || list != nil {
		t.Fatalf("%v, %v", list, err)
	}
	place("real/split/20261130T172458Z-1/nodes/a/it's here.conf", "guest")
	place("real/split/20261130T172458Z-1/z", "z")
	place("real/split/notes/mine", "")
	for _, dir := range []string{"20261130T172458Z-1/b/empty", "20261130T182458Z-2/dir"} {
		if err := os.MkdirAll(filepath.Join(top, "real/split", dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	list, err := h.kept()
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	dir := filepath.Join(top, "real/split")
	at := time.Date(2026, 11, 30, 17, 24, 58, 0, time.UTC)
	want := []Kept{
		{Dir: filepath.Join(dir, "20261130T182458Z-2"), Time: at.Add(time.Hour), Empty: 1, Example: "dir"},
		{Dir: filepath.Join(dir, "20261130T172458Z-1"), Time: at, Files: 2, Empty: 1, Example: "nodes/a/it's here.conf"},
	}
	for i := range want {
		if list[i] != want[i] {
			t.Errorf("%+v, want %+v", list[i], want[i])
		}
	}
	// The commands do what they are given for.
	mount := filepath.Join(top, "mount")
	if err := os.MkdirAll(filepath.Join(mount, "nodes/a"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if out, err := exec.Command("sh", "-c", list[i].bringBack(mount)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", list[i].bringBack(mount), err, out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(mount, "nodes/a/it's here.conf")); err != nil || string(b) != "guest" {
		t.Errorf("%q, %v", b, err)
	}
	if st, err := os.Stat(filepath.Join(mount, "dir")); err != nil || !st.IsDir() {
		t.Errorf("%v, %v", st, err)
	}
	// Names of files do not leave the host.
	h.Discreet = true
	if list, err = h.kept(); err != nil || list[0].Example+list[1].Example != "" {
		t.Errorf("%v, %v", list, err)
	}
}
