package dbtool

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/internal/signals"
)

// TestAnInterruptedExportLeavesNothing has a signal, or an error, end an export that has
// written half of its files.
func TestAnInterruptedExportLeavesNothing(t *testing.T) {
	// The test goes on. There is no Stop: a signal that is still pending would end the process.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM)
	full := errors.New("the disk is full")
	half := func(end func(held signals.Held) error) func(*os.Root, signals.Held) error {
		return func(root *os.Root, held signals.Held) error {
			if err := errors.Join(root.Mkdir("priv", 0o700), root.WriteFile("priv/key", []byte("secret"), 0o600)); err != nil {
				t.Fatal(err)
			}
			return end(held)
		}
	}
	interrupted := func(held signals.Held) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for held.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		return nil // as if it had come with the last file
	}
	for name, end := range map[string]func(signals.Held) error{"signal": interrupted, "error": func(signals.Held) error { return full }} {
		for _, there := range []bool{false, true} {
			above := t.TempDir()
			dir := filepath.Join(above, "dir")
			if there {
				if err := os.Mkdir(dir, 0o711); err != nil {
					t.Fatal(err)
				}
			}
			err := writeDir(dir+"/", half(end))
			if err == nil || name == "error" && !errors.Is(err, full) {
				t.Errorf("%s, there %v: %v", name, there, err)
			}
			var left []string
			_ = filepath.WalkDir(above, func(path string, _ fs.DirEntry, _ error) error {
				left = append(left, strings.TrimPrefix(path, above))
				return nil
			})
			if want := map[bool]string{false: "", true: " /dir"}[there]; strings.Join(left, " ") != want {
				t.Errorf("%s, there %v: left are %q", name, there, left)
			}
		}
	}
	select {
	case <-ends:
	case <-time.After(5 * time.Second):
		t.Error("the signal was lost")
	}
}

func TestAnExportAppearsWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	err := writeDir(dir, func(root *os.Root, _ signals.Held) error {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is there already: %v", err)
		}
		return root.WriteFile("file", []byte("text"), 0o600)
	})
	st, serr := os.Stat(dir)
	if b, rerr := os.ReadFile(filepath.Join(dir, "file")); err != nil || serr != nil || rerr != nil || string(b) != "text" || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v, %v: %q, %v", err, serr, rerr, b, st)
	}
	list, _ := os.ReadDir(filepath.Dir(dir))
	if len(list) != 1 {
		t.Errorf("beside it: %v", list)
	}
	// Somebody makes one of that name meanwhile.
	other := filepath.Join(t.TempDir(), "dir")
	err = writeDir(other, func(*os.Root, signals.Held) error { return os.Mkdir(other, 0o700) })
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another's directory: %v", err)
	}
}
