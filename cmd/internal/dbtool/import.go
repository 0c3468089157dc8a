package dbtool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/exit"
	"pmxcfs/fuse"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

func importTree(c *cli.Context) error {
	if c.Args().Len() != 2 {
		return usage(c, "the arguments are DIR NEWFILE")
	}
	args, err := arguments(c, "DIR", "NEWFILE")
	if err != nil {
		return err
	}
	n, err := importDir(args[0], args[1], c.App.ErrWriter)
	if err != nil {
		return failed("importing: %w", err)
	}
	fmt.Fprintf(c.App.Writer, "%s of %s written to %s\n", entries(n), args[0], args[1])
	return nil
}

// CreateMain is main under the name create_pmxcfs_db, by which installers make
// a node's first database. args begins with the program's name; the result is
// the exit status, as that of "pmxcfs db import".
func CreateMain(args []string, stdout, stderr io.Writer) int {
	name := "create_pmxcfs_db"
	usage := fmt.Sprintf("usage: %s DIR NEWFILE\nmakes a new database of the files in DIR\n", name)
	if len(args) == 2 && (args[1] == "-h" || args[1] == "--help") {
		fmt.Fprint(stdout, usage)
		return exit.OK
	}
	if len(args) != 3 || args[1] == "" || args[2] == "" || args[1][0] == '-' || args[2][0] == '-' {
		fmt.Fprint(stderr, usage)
		return exit.Usage
	}
	if _, err := importDir(args[1], args[2], stderr); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return exit.Failure
	}
	return exit.OK
}

// importDir makes a new database of a directory's files, and returns how many
// entries it has.
func importDir(dir, file string, warnings io.Writer) (int, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	im := importer{root: root, dir: dir}
	im.directory(".", memdb.RootInode)
	if len(im.refused) > 0 {
		const most = 10
		errs := im.refused[:min(len(im.refused), most)]
		if more := len(im.refused) - len(errs); more > 0 {
			errs = append(slices.Clone(errs), fmt.Errorf("and %d more", more))
		}
		return 0, fmt.Errorf("%s can't become a database:\n%w", dir, errors.Join(errs...))
	}
	tree := append([]*memdb.Entry{memdb.NewEntry(memdb.RootInode, memdb.RootInode, im.version(), 0, im.mtime, memdb.TypeDir, "", nil)}, im.list...)
	_, dups, err := memdb.Build(tree)
	if err != nil {
		return 0, err
	}
	if len(dups) > 0 {
		return 0, fmt.Errorf("%s can't become a database: %w", dir, &memdb.DuplicateError{Duplicates: dups})
	}
	for _, e := range im.list {
		if e.Parent == memdb.RootInode && fuse.Reserved(e.Name) {
			fmt.Fprintf(warnings, "warning: %s: the mount has an entry of this name by itself, which will hide this one\n", filepath.Join(dir, e.Name))
		}
	}
	return len(tree), sqlite.Create(file, tree)
}

// importer reads a directory's files, in the order of their names.
type importer struct {
	root    *os.Root
	dir     string
	list    []*memdb.Entry
	bytes   int64
	mtime   uint32 // the youngest entry's
	refused []error
}

// version is the database's: 1 for an empty one, and one more for each entry.
func (im *importer) version() uint64 { return uint64(len(im.list)) + 1 }

func (im *importer) refuse(path string, err error) {
	im.refused = append(im.refused, fmt.Errorf("%s: %w", filepath.Join(im.dir, path), err))
}

func (im *importer) directory(path string, inode uint64) {
	d, err := im.root.Open(path)
	if err != nil {
		im.refuse(path, err)
		return
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		im.refuse(path, err)
		return
	}
	slices.Sort(names)
	for _, name := range names {
		if len(im.refused) > 1000 {
			return
		}
		if len(im.list)+1 >= memdb.MaxEntries {
			im.refuse(path, fmt.Errorf("more than %d entries", memdb.MaxEntries))
			return
		}
		im.entry(filepath.Join(path, name), name, inode)
	}
}

func (im *importer) entry(path, name string, parent uint64) {
	st, err := im.root.Lstat(path)
	if err != nil {
		im.refuse(path, err)
		return
	}
	inode := im.version() + 1
	mtime := uint32(min(max(st.ModTime().Unix(), 0), math.MaxUint32))
	im.mtime = max(im.mtime, mtime)
	switch mode := st.Mode(); {
	case mode.IsDir():
		im.list = append(im.list, memdb.NewEntry(inode, parent, inode, 0, mtime, memdb.TypeDir, name, nil))
		im.directory(path, inode)
	case mode.IsRegular():
		data, err := im.file(path, st)
		if err != nil {
			im.refuse(path, err)
			return
		}
		im.list = append(im.list, memdb.NewEntry(inode, parent, inode, 0, mtime, memdb.TypeFile, name, data))
	case mode&fs.ModeSymlink != 0:
		im.refuse(path, errors.New("a symbolic link; the database holds none, leave it out"))
	default:
		im.refuse(path, fmt.Errorf("neither a file nor a directory (%v); leave it out", mode.Type()))
	}
}

// file reads a regular file, which must still be the one that st describes.
func (im *importer) file(path string, st fs.FileInfo) (_ []byte, err error) {
	// Should it be a pipe by now, opening must not wait for its other end.
	f, err := im.root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if now, err := f.Stat(); err != nil {
		return nil, err
	} else if !os.SameFile(st, now) {
		return nil, errors.New("it was replaced while being read")
	}
	data, err := io.ReadAll(io.LimitReader(f, memdb.MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > memdb.MaxFileSize {
		return nil, fmt.Errorf("larger than %d bytes", memdb.MaxFileSize)
	}
	if im.bytes += int64(len(data)); im.bytes > memdb.MaxTreeBytes {
		return nil, fmt.Errorf("with it, the files have more than %d bytes together", memdb.MaxTreeBytes)
	}
	return data, nil
}
