package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pmxcfs/memdb/dcdb"
)

const (
	// lostLimit bounds what all of them take, in bytes of content, each file and directory
	// counting lostCost more; and lostDirs how many there are. The oldest make room.
	lostLimit = 64 << 20
	lostCost  = 4 << 10
	lostDirs  = 32
)

// keepLost returns a function that writes what a merge of trees takes away into a
// new directory below dir, for root only, and says which.
func keepLost(dir string, now func() time.Time) func([]dcdb.Lost) (string, error) {
	return func(list []dcdb.Lost) (string, error) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("keeping what a merge replaces: %w", err)
		}
		// The newest first: should they be too many, the oldest are left out.
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b dcdb.Lost) int { return cmp.Compare(b.Entry.Version, a.Entry.Version) })
		size, fit := int64(0), 0
		for _, l := range list {
			if size += int64(l.Entry.Size()) + lostCost; size > lostLimit {
				break
			}
			fit++
		}
		if err := prune(dir, min(size, lostLimit)); err != nil {
			return "", fmt.Errorf("keeping what a merge replaces: making room: %w", err)
		}
		to, err := os.MkdirTemp(dir, now().UTC().Format(dcdb.LostName+"-"))
		if err != nil {
			return "", fmt.Errorf("keeping what a merge replaces: %w", err)
		}
		root, err := os.OpenRoot(to)
		if err != nil {
			return "", fmt.Errorf("keeping what a merge replaces: %w", err)
		}
		defer root.Close()
		errs := []error{nil}
		for _, l := range list[:fit] {
			errs = append(errs, writeLost(root, l))
		}
		if fit < len(list) {
			errs = append(errs, fmt.Errorf("%d files and directories are left out: all are more than %d MiB", len(list)-fit, lostLimit>>20))
		}
		if err := errors.Join(errs...); err != nil {
			return to, fmt.Errorf("keeping what a merge replaces in %s, which is not complete: %w", to, err)
		}
		return to, nil
	}
}

// writeLost writes one file, so that it survives a power cut, or makes a directory.
func writeLost(root *os.Root, l dcdb.Lost) error {
	if l.Entry.IsDir() {
		return root.MkdirAll(l.Path, 0o700)
	}
	if dir := filepath.Dir(l.Path); dir != "." {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(l.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(l.Entry.Data())
	err = errors.Join(err, f.Sync(), f.Close())
	at := time.Unix(int64(l.Entry.MTime), 0)
	return errors.Join(err, root.Chtimes(l.Path, at, at))
}

// prune removes the oldest directories until there is room for so many bytes and one more
// directory.
func prune(dir string, room int64) error {
	entries, err := os.ReadDir(dir) // their names begin with their time
	if err != nil {
		return err
	}
	sizes := make([]int64, len(entries))
	total := room
	for i, e := range entries {
		err := filepath.WalkDir(filepath.Join(dir, e.Name()), func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			sizes[i] += lostCost
			if d.IsDir() {
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			sizes[i] += info.Size()
			return nil
		})
		if err != nil {
			return err
		}
		total += sizes[i]
	}
	for i := 0; i < len(entries) && (total > lostLimit || len(entries)-i >= lostDirs); i++ {
		if err := os.RemoveAll(filepath.Join(dir, entries[i].Name())); err != nil {
			return err
		}
		total -= sizes[i]
	}
	return nil
}
