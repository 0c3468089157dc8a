package rrd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestLibraryTellsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	definitions := families()[2].definitions()
	start := time.Unix(1700000000, 0)
	if err := (librrd{}).create(file, time.Minute, start, definitions); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"file exists":     librrd{}.create(file, time.Minute, start, definitions),
		"no directory":    librrd{}.create(filepath.Join(dir, "no", "file"), time.Minute, start, definitions),
		"bad definition":  librrd{}.create(filepath.Join(dir, "b"), time.Minute, start, []string{"DS:x"}),
		"no definition":   librrd{}.create(filepath.Join(dir, "c"), time.Minute, start, nil),
		"no file":         librrd{}.update(filepath.Join(dir, "none"), "1700000060:1:2"),
		"wrong columns":   librrd{}.update(file, "1700000060:1"),
		"before the last": librrd{}.update(file, "1600000000:1:2"),
	} {
		var library *LibraryError
		if !errors.As(err, &library) || library.Text == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (librrd{}).update(file, "1700000060:1:2"); err != nil {
		t.Errorf("after all these: %v", err)
	}
}

func TestLibraryWorksOnManyFilesAtOnce(t *testing.T) {
	dir := t.TempDir()
	definitions := families()[2].definitions()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			file := filepath.Join(dir, fmt.Sprint(w))
			missing := filepath.Join(dir, fmt.Sprint("missing", w))
			if err := (librrd{}).create(file, time.Minute, time.Unix(1700000000, 0), definitions); err != nil {
				t.Error(err)
			}
			for i := range 200 {
				if err := (librrd{}).update(file, fmt.Sprintf("%d:%d:%d", 1700000001+i, w, i)); err != nil {
					t.Error(err)
				}
				// An error's text is of the call's own file, not of another thread's.
				want := "librrd: opening '" + missing + "': No such file or directory"
				if err := (librrd{}).update(missing, "1700000001:1:2"); err == nil || err.Error() != want {
					t.Errorf("%v, want %s", err, want)
				}
			}
		})
	}
	wg.Wait()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 8 {
		t.Errorf("%d files, %v", len(entries), err)
	}
}
