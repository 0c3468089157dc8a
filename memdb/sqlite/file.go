package sqlite

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pmxcfs/internal/signals"
	"pmxcfs/memdb"
)

// The functions in this file work on a database as a file: for the commands of
// an administrator, beside a running daemon or without one. None of them
// changes the file that it reads.

// Contents is the content of a database file.
type Contents struct {
	Entries  []*memdb.Entry  // ascending by inode, the version row as the root; rows too broken to be entries are left out
	Problems []memdb.Problem // of single rows and of the tree as a whole
}

// Unsound returns the problems that make the file unsound, fatal or not.
func (c *Contents) Unsound() (list []memdb.Problem) {
	for _, p := range c.Problems {
		if p.Unsound {
			list = append(list, p)
		}
	}
	return list
}

// Fatal reports whether a problem keeps the daemon from starting on the file.
func (c *Contents) Fatal() bool {
	for _, p := range c.Problems {
		if p.Fatal {
			return true
		}
	}
	return false
}

// Read reads a database file, a running daemon's or not, in one consistent
// state. Rows that break the rules are in the answer's problems; the error is
// about a file that can't be read at all.
func Read(path string) (*Contents, error) {
	var contents *Contents
	err := withReader(path, func(c conn) (err error) {
		contents, err = c.contents()
		return err
	})
	return contents, err
}

func (c conn) contents() (*Contents, error) {
	entries, problems, _, err := readTree(c)
	if err != nil {
		return nil, err
	}
	return &Contents{entries, append(problems, memdb.Check(entries)...)}, nil
}

// IntegrityCheck runs SQLite's own check of the file's pages and indexes and
// returns what it found; nothing if the file is sound. A log beside the file that
// nothing can be read from is found, too: what was last written is in it.
func IntegrityCheck(path string) (found []string, err error) {
	err = withReader(path, func(c conn) error {
		if _, err := c.hasTree(); err != nil {
			return err
		}
		found, err = c.integrity()
		return err
	})
	if err == nil {
		var what string
		if what, err = oddLog(path); what != "" {
			found = append(found, what)
		}
	}
	return found, err
}

func (c conn) integrity() (found []string, err error) {
	err = c.Each("PRAGMA integrity_check", func(row []driver.Value) error {
		if s, _ := row[0].(string); s != "ok" {
			found = append(found, s)
		}
		return nil
	})
	return found, err
}

// oddLog describes the fault of a log that SQLite takes for an empty one; "" if
// there is none, or it begins as it should.
func oddLog(path string) (string, error) {
	path, err := Resolve(path)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err == io.EOF {
		return "", nil
	} else if err != nil {
		return "", err
	}
	if binary.BigEndian.Uint32(magic[:])|1 != 0x377f0683 {
		return fmt.Sprintf("the write-ahead log, %s-wal, does not begin as one: what was last written is lost", path), nil
	}
	return "", nil
}

// Create makes a new database of entries, which must be a valid tree with the
// root among them. A file that exists is an error around fs.ErrExist.
func Create(path string, entries []*memdb.Entry) error {
	if _, _, err := memdb.Build(entries); err != nil {
		return err
	}
	if err := absent(path); err != nil {
		return err
	}
	c, err := openMemory(pageSize)
	if err != nil {
		return err
	}
	w := &writer{c: c}
	err = c.Do(schema)
	if err == nil {
		err = w.prepare()
	}
	if err == nil {
		err = w.fill(entries)
	}
	var content []byte
	if err == nil {
		content, err = c.image()
	}
	if err := errors.Join(err, w.close()); err != nil {
		return &Error{Path: path, Call: "writing the tree", Err: err}
	}
	return writeNew(path, content)
}

// image returns a database in memory as the bytes of a file in WAL mode.
func (c conn) image() ([]byte, error) {
	b, err := c.Serialize("main")
	if err == nil && len(b) >= fileHeaderSize {
		b[18], b[19] = 2, 2
	}
	return b, err
}

func (w *writer) fill(entries []*memdb.Entry) error {
	return w.atomically(func() error {
		for _, e := range entries {
			if _, err := w.replaceRow(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// backupPatience is how long a backup waits for other programs' locks.
const backupPatience = 10 * time.Second

// Backup copies the database at src, which may be in use, to the new file dst
// in one consistent state, and brings it to the disk. The copy is verified to hold
// what was read of src in the same state; those contents are returned. Dst appears
// when it is whole; if it exists, that is an error around fs.ErrExist.
func Backup(src, dst string) (contents *Contents, err error) {
	if err := absent(dst); err != nil {
		return nil, err
	}
	if what, err := oddLog(src); what != "" || err != nil {
		return nil, &Error{Path: src, Call: "copying the database", Err: errors.Join(err, errors.New(what))}
	}
	var content []byte
	err = withReader(src, func(from conn) error {
		if contents, err = from.contents(); err != nil {
			return err
		}
		content, err = backup(from, contents)
		return err
	})
	if err == nil {
		err = writeNew(dst, content)
	}
	if err != nil {
		return nil, err
	}
	return contents, nil
}

// backup returns the bytes of a file that has been verified to hold what from holds.
func backup(from conn, contents *Contents) (content []byte, err error) {
	var size int64
	if err := from.Each("PRAGMA page_size", func(row []driver.Value) error {
		size, _ = row[0].(int64)
		return nil
	}); err != nil {
		return nil, err
	}
	to, err := openMemory(size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	b, err := to.Backup("main", from.SQLiteConn, "main")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stepToEnd(b.Step, backupPatience), b.Finish()); err != nil {
		return nil, fmt.Errorf("copying the pages: %w", err)
	}
	found, err := to.integrity()
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("SQLite finds it damaged: %s", found[0])
	}
	if err != nil {
		return nil, fmt.Errorf("verifying the copy: %w", err)
	}
	got, err := to.contents()
	if err == nil && !got.same(contents) {
		err = errors.New("it does not hold what the database holds")
	}
	if err != nil {
		return nil, fmt.Errorf("verifying the copy: %w", err)
	}
	return to.image()
}

// stepToEnd carries a backup out. A step that is not the last although all pages were
// asked for has met another program's lock.
func stepToEnd(step func(pages int) (done bool, err error), patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		switch done, err := step(-1); {
		case err != nil:
			return err
		case done:
			return nil
		case time.Now().After(deadline):
			return errors.New("another program keeps the database locked; try again when it has ended")
		}
	}
}

// same reports whether two files hold the same.
func (c *Contents) same(o *Contents) bool {
	return slices.Equal(c.Problems, o.Problems) && slices.EqualFunc(c.Entries, o.Entries, func(a, b *memdb.Entry) bool {
		return a.Digest() == b.Digest()
	})
}

// maxFile is the size of the greatest file that is taken for a configuration database:
// eight times the limit of the contents. Whatever is done with one needs memory by its size.
const maxFile = 8 * memdb.MaxTreeBytes

// withReader calls f with a connection that reads the database at path, its log
// included.
//
// A database in WAL mode that nobody has open can't be read without files
// being made beside it. So that nothing is left there, such a one is copied, its
// log included, to a temporary directory first, which is gone before f is called. The
// process must not have the database open itself then: copying would end SQLite's
// locks.
func withReader(path string, f func(conn) error) error {
	path, err := Resolve(path)
	if err != nil {
		return err
	}
	for range 10 {
		st, err := stat(path)
		if err != nil {
			return err
		}
		if exists(path+"-shm") && exists(path+"-wal") {
			c, err := open(path, "ro")
			if err == nil {
				err = c.begin()
			}
			return readAndClose(path, c, err, f)
		}
		c, changed, err := openCopy(path, st)
		if !changed {
			return readAndClose(path, c, err, f)
		}
	}
	return &Error{Path: path, Call: "reading", Err: errors.New("other programs open and close it all the time, or its log was removed while it is open")}
}

// stat refuses files that can't be a database.
func stat(path string) (fs.FileInfo, error) {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	case st.Size() > maxFile:
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("of %d bytes, too large for a configuration database", st.Size())}
	}
	return st, nil
}

// openCopy opens a copy of a file, in a transaction; changed, if somebody has opened the
// file meanwhile. The copy's files are gone when it returns.
func openCopy(path string, st fs.FileInfo) (c conn, changed bool, err error) {
	err = withScratch(func(dir string, h signals.Held) error {
		tmp := filepath.Join(dir, "config.db")
		err := copyDatabase(path, tmp, h)
		if changed = err == nil && exists(path+"-shm"); changed {
			return nil
		}
		if err == nil {
			now, serr := os.Stat(path)
			changed = serr != nil || !os.SameFile(st, now) || st.Size() != now.Size() || !st.ModTime().Equal(now.ModTime())
		}
		if err != nil || changed {
			return err
		}
		if c, err = open(tmp, "rw"); err != nil {
			return err
		}
		// SQLite keeps the log's index in its own memory then, and the files open.
		if err = c.Do("PRAGMA locking_mode=EXCLUSIVE"); err == nil {
			err = c.begin()
		}
		return err
	})
	return c, changed, err
}

// begin makes all that follows see one state of the file, the present one.
func (c conn) begin() error {
	if err := c.Do("BEGIN"); err != nil {
		return err
	}
	return c.Each("SELECT count(*) FROM sqlite_schema", func([]driver.Value) error { return nil })
}

func readAndClose(path string, c conn, err error, f func(conn) error) error {
	if err == nil {
		err = f(c)
	}
	if err = errors.Join(err, c.Close()); err != nil {
		return &Error{Path: path, Call: "reading", Err: err}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// copyDatabase copies a file that nobody has open, with what belongs to it.
func copyDatabase(from, to string, h signals.Held) error {
	if err := copyFile(from, to, h); err != nil {
		return err
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		if err := copyFile(from+suffix, to+suffix, h); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func copyFile(from, to string, h signals.Held) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.MultiWriter(h, dst), io.LimitReader(src, maxFile))
	return errors.Join(err, dst.Close())
}
