package dbtool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"pmxcfs/internal/signals"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

func export(c *cli.Context) error {
	args, err := arguments(c, "FILE", "DIR")
	if err != nil {
		return err
	}
	contents, err := sqlite.Read(args[0])
	if err != nil {
		return failed("exporting: %w", err)
	}
	printProblems(c.App.ErrWriter, contents.Problems)
	if contents.Fatal() {
		return failed("exporting %s: the database is not sound; pmxcfs db repair makes a sound one of it", args[0])
	}
	if len(contents.Entries) == 0 {
		return failed("exporting %s: the database is empty", args[0])
	}
	tree, _, err := memdb.Build(contents.Entries)
	if err != nil {
		return failed("exporting %s: %w", args[0], err)
	}
	if deep := tooDeep(contents.Entries); deep != nil {
		return failed("exporting %s: inode %d (%q) lies more than %d directories deep; pmxcfs db dump lists it", args[0], deep.Inode, deep.Name, maxDepth)
	}
	return Export(c, tree, args[1])
}

// Export writes a tree as files into a directory, as the command does.
func Export(c *cli.Context, tree *memdb.Tree, dir string) error {
	x := exporter{tree: tree, renamed: func(path, as string) {
		fmt.Fprintf(c.App.ErrWriter, "warning: %q can't be a file's name here; it is %q instead\n", path, as)
	}}
	err := writeDir(dir, func(root *os.Root, held signals.Held) error {
		x.ended = held.Err
		return x.directory(root, tree.Root(), "", "")
	})
	if err != nil {
		return failed("exporting to %s: %w", dir, err)
	}
	fmt.Fprintf(c.App.Writer, "%s written to %s\n", entries(x.written), dir)
	return nil
}

// writeDir has fill write into the directory path, which must be empty or not exist. A
// new one is for its owner only, since secrets come into it, and appears when it is whole;
// one that exists already is empty again if fill fails. Signals that end the command take
// effect after that.
func writeDir(path string, fill func(*os.Root, signals.Held) error) (err error) {
	held := signals.Hold()
	defer held.Release()
	path = filepath.Clean(path)
	list, err := os.ReadDir(path)
	isNew := errors.Is(err, fs.ErrNotExist)
	dir := path
	switch {
	case isNew:
		// The directory appears under its name once it is complete.
		if dir, err = os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".partial-"); err != nil {
			return err
		}
	case err != nil:
		return err
	case len(list) > 0:
		return fmt.Errorf("the directory is not empty: it has %q", list[0].Name())
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err = fill(root, held); err == nil {
		err = held.Err()
	}
	if err == nil && isNew {
		if err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); errors.Is(err, unix.EINVAL) {
			err = unix.Rename(dir, path) // a file system that has no other; this replaces an empty directory only
		}
	}
	if err == nil {
		return nil
	}
	if isNew {
		return errors.Join(err, os.RemoveAll(dir))
	}
	list, rerr := os.ReadDir(dir)
	err = errors.Join(err, rerr)
	for _, e := range list {
		err = errors.Join(err, root.RemoveAll(e.Name()))
	}
	return err
}

// maxDepth is how deep a tree may be to be exported. Programs that take a path could not
// reach much deeper, and each level keeps a directory open.
const maxDepth = 500

// tooDeep returns an entry of a valid tree that lies deeper than maxDepth, if there is one.
func tooDeep(list []*memdb.Entry) *memdb.Entry {
	byID := make(map[uint64]*memdb.Entry, len(list))
	for _, e := range list {
		byID[e.Inode] = e
	}
	depths := map[uint64]int{memdb.RootInode: 0}
	for _, e := range list {
		var way []*memdb.Entry
		cur := e
		for ; ; cur = byID[cur.Parent] {
			if _, known := depths[cur.Inode]; known {
				break
			}
			way = append(way, cur)
		}
		depth := depths[cur.Inode]
		for _, e := range slices.Backward(way) {
			if depth++; depth > maxDepth {
				return e
			}
			depths[e.Inode] = depth
		}
	}
	return nil
}

// exporter writes a tree as files. Each directory is opened in the one above, and no
// name leads out of it.
type exporter struct {
	tree    *memdb.Tree
	renamed func(path, as string)
	ended   func() error // not nil: the export is to end
	written int
}

// directory writes what is in d to dir. Its path is path in the tree and to outside.
func (x *exporter) directory(dir *os.Root, d *memdb.Entry, path, to string) error {
	list, _ := x.tree.ReadDir(d.Inode)
	taken := make(map[string]bool, len(list))
	for _, e := range list {
		taken[e.Name] = true
	}
	for _, e := range list {
		name := e.Name
		if !memdb.ValidName(name) {
			name = substitute(e, taken)
			x.renamed(memdb.Join(path, e.Name), memdb.Join(to, name))
		}
		if err := x.entry(dir, name, e, memdb.Join(path, e.Name), memdb.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// entry writes e to dir, as name.
func (x *exporter) entry(dir *os.Root, name string, e *memdb.Entry, path, to string) error {
	if err := x.ended(); err != nil {
		return err
	}
	x.written++
	fileMode, dirMode := fs.FileMode(0o640), fs.FileMode(0o755)
	if memdb.IsPrivate(path) {
		fileMode, dirMode = 0o600, 0o700
	}
	mtime := time.Unix(int64(e.MTime), 0)
	if e.IsDir() {
		if err := dir.Mkdir(name, 0o700); err != nil {
			return err
		}
		sub, err := dir.OpenRoot(name)
		if err != nil {
			return err
		}
		if err := errors.Join(x.directory(sub, e, path, to), sub.Close()); err != nil {
			return err
		}
		// After its entries: each of them changes the time.
		return errors.Join(dir.Chmod(name, dirMode), dir.Chtimes(name, mtime, mtime))
	}
	f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(e.Data())
	if err := errors.Join(err, f.Chmod(fileMode), f.Close()); err != nil {
		return err
	}
	return dir.Chtimes(name, mtime, mtime)
}

// substitute makes a name for an entry whose own is not possible.
func substitute(e *memdb.Entry, taken map[string]bool) string {
	name := strings.NewReplacer("/", "_", "\x00", "_").Replace(e.Name)
	name = name[:min(len(name), 200)]
	for n := e.Inode; ; n++ {
		if as := fmt.Sprintf("%s.inode-%d", name, n); !taken[as] {
			taken[as] = true
			return as
		}
	}
}
