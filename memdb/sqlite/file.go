package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"pmxcfs/memdb"
)

// The functions in this file work on a database as a file: for the commands of
// an administrator, beside a running daemon or without one. None of them
// changes the file that it reads.

// Contents is what a database file holds.
type Contents struct {
	Entries  []*memdb.Entry  // ascending by inode, the version row as the root; rows too broken to be entries are left out
	Problems []memdb.Problem // of single rows and of the tree as a whole
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
	var contents Contents
	err := withReader(path, func(c conn) error {
		entries, problems, err := c.readEntries()
		if err != nil {
			return err
		}
		contents.Entries = entries
		contents.Problems = append(problems, memdb.Check(entries)...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &contents, nil
}

// IntegrityCheck runs SQLite's own check of the file's pages and indexes and
// returns what it found; nothing if the file is sound.
func IntegrityCheck(path string) ([]string, error) {
	var found []string
	err := withReader(path, func(c conn) error {
		return c.query("PRAGMA integrity_check", func(row []driver.Value) error {
			if s, _ := row[0].(string); s != "ok" {
				found = append(found, s)
			}
			return nil
		})
	})
	return found, err
}

// Create makes a new database of entries, which must be a valid tree with the
// root among them. A file that exists is an error.
func Create(path string, entries []*memdb.Entry) (err error) {
	if _, _, err := memdb.Build(entries); err != nil {
		return err
	}
	created, err := createFile(path)
	if err != nil {
		return err
	}
	if !created {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	fail := func(call string, err error) error {
		return errors.Join(&Error{Path: path, Call: call, Err: err}, os.Remove(path))
	}
	w, err := openWriter(path)
	if err != nil {
		return fail("creating the database", err)
	}
	if err := w.fill(entries); err != nil {
		return errors.Join(fail("writing the tree", err), w.close())
	}
	if err := w.close(); err != nil {
		return fail("closing the database", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
}

func (w *writer) fill(entries []*memdb.Entry) error {
	if _, err := w.begin.run(); err != nil {
		return err
	}
	for _, e := range entries {
		var err error
		if e.Inode == memdb.RootInode {
			_, err = w.replace.run(int64(0), int64(0), int64(e.Version), int64(e.Writer), int64(e.MTime), int64(memdb.TypeFile), versionName, nil)
		} else {
			_, err = w.replaceRow(e)
		}
		if err != nil {
			return errors.Join(err, w.c.exec("ROLLBACK"))
		}
	}
	_, err := w.commit.run()
	return err
}

// Backup copies the database at src, which may be in use, to the new file dst
// in one consistent state, and brings it to the disk. The copy is verified by
// loading it; its contents are returned.
func Backup(src, dst string) (*Contents, error) {
	created, err := createFile(dst)
	if err != nil {
		return nil, err
	}
	if !created {
		return nil, &fs.PathError{Op: "create", Path: dst, Err: fs.ErrExist}
	}
	contents, err := backup(src, dst)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dst))
	}
	return contents, nil
}

func backup(src, dst string) (*Contents, error) {
	to, err := open(dst, "rw")
	if err != nil {
		return nil, &Error{Path: dst, Call: "opening the copy", Err: err}
	}
	err = withReader(src, func(from conn) error {
		b, err := to.Backup("main", from.SQLiteConn, "main")
		if err != nil {
			return err
		}
		if _, err := b.Step(-1); err != nil {
			return errors.Join(err, b.Finish())
		}
		return b.Finish()
	})
	if err := errors.Join(err, to.Close()); err != nil {
		return nil, &Error{Path: src, Call: "copying the database", Err: err}
	}
	f, err := os.Open(dst)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Sync(), f.Close(), syncDir(filepath.Dir(dst))); err != nil {
		return nil, err
	}
	contents, err := Read(dst)
	if err != nil {
		return nil, fmt.Errorf("verifying the copy: %w", err)
	}
	if found, err := IntegrityCheck(dst); err != nil || len(found) > 0 {
		return nil, errors.Join(fmt.Errorf("verifying the copy: SQLite finds it damaged: %v", found), err)
	}
	return contents, nil
}

// withReader calls f with a connection that reads the database at path.
//
// A database in WAL mode that nobody has open can't be read without files
// being made beside it. So that nothing is left there, such a one is copied, its
// log included, to a temporary directory first.
func withReader(path string, f func(conn) error) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	_, err := os.Stat(path + "-shm")
	if err == nil {
		return readFrom(path, path, f)
	}
	dir, err := os.MkdirTemp("", "pmxcfs-db-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "config.db")
	if err := copyFile(path, tmp); err != nil {
		return err
	}
	if err := copyFile(path+"-wal", tmp+"-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return readFrom(path, tmp, f)
}

func readFrom(path, from string, f func(conn) error) error {
	mode := "ro"
	if from != path {
		mode = "rw" // a copy of our own
	}
	c, err := open(from, mode)
	if err == nil {
		err = errors.Join(c.begin(), f(c), c.Close())
	}
	if err != nil {
		return &Error{Path: path, Call: "reading", Err: err}
	}
	return nil
}

// begin makes all that follows on the connection see one state of the file.
func (c conn) begin() error { return c.exec("BEGIN") }

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
