package ipc

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRestartFlag(t *testing.T) {
	f := RestartFlag{Path: filepath.Join(t.TempDir(), "cfs-restart-flag"), GID: os.Getgid()}
	if err := f.Clear(); err != nil {
		t.Fatalf("clear without a flag: %v", err)
	}
	for range 2 { // the second time over the first one's
		if err := f.Set(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o440 || info.Size() != 0 {
			t.Fatalf("mode %v, %d bytes", info.Mode(), info.Size())
		}
	}
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(f.Path); !os.IsNotExist(err) {
		t.Fatalf("still there: %v", err)
	}
}

func TestRestartFlagDoesNotFollowALink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := RestartFlag{Path: filepath.Join(dir, "flag"), GID: -1}
	if err := os.Symlink(victim, f.Path); err != nil {
		t.Fatal(err)
	}
	if err := f.Set(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(victim); err != nil || info.Size() != 1 || info.Mode() != 0o600 {
		t.Fatalf("victim: %v, %v", info, err)
	}
}

func TestRestartFlagWithoutADirectory(t *testing.T) {
	f := RestartFlag{Path: filepath.Join(t.TempDir(), "no", "flag"), GID: -1}
	if err := f.Set(); err == nil {
		t.Fatal("no error")
	}
}
