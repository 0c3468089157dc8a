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
	var contents Contents
	err := withReader(path, func(c conn) error {
		entries, problems, _, err := readTree(c)
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
// root among them. A file that exists is an error around fs.ErrExist.
func Create(path string, entries []*memdb.Entry) error {
	if _, _, err := memdb.Build(entries); err != nil {
		return err
	}
	return newFile(path, func(tmp string) error {
		w, err := openWriter(tmp)
		if err != nil {
			return &Error{Path: path, Call: "creating the database", Err: err}
		}
		if err := errors.Join(w.fill(entries), w.close()); err != nil {
			return &Error{Path: path, Call: "writing the tree", Err: err}
		}
		return nil
	})
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

// Backup copies the database at src, which may be in use, to the new file dst
// in one consistent state, and brings it to the disk. The copy is verified by
// loading it; its contents are returned. Dst appears when it is whole; if it
// exists, that is an error around fs.ErrExist.
func Backup(src, dst string) (contents *Contents, err error) {
	err = newFile(dst, func(tmp string) error {
		if err := backup(src, tmp); err != nil {
			return &Error{Path: src, Call: "copying the database", Err: err}
		}
		contents, err = Read(tmp)
		if err != nil {
			return fmt.Errorf("verifying the copy: %w", err)
		}
		found, err := IntegrityCheck(tmp)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("SQLite finds it damaged: %s", found[0])
		}
		if err != nil {
			return fmt.Errorf("verifying the copy: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return contents, nil
}

func backup(src, dst string) error {
	to, err := open(dst, "rw")
	if err != nil {
		return err
	}
	err = withReader(src, func(from conn) error {
		b, err := to.Backup("main", from.SQLiteConn, "main")
		if err != nil {
			return err
		}
		_, err = b.Step(-1)
		return errors.Join(err, b.Finish())
	})
	return errors.Join(err, to.Close())
}

// newFile makes the file at path by fill, which is given another path to write
// to, and brings it to the disk. The file appears as a whole; until then an empty
// one keeps its place. Whatever fails, nothing is left.
func newFile(path string, fill func(tmp string) error) (err error) {
	created, err := createFile(path)
	if err != nil {
		return err
	}
	if !created {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".partial-*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() {
		for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
			if rerr := os.Remove(tmp + suffix); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
		}
	}()
	// SQLite's locks on a file end when the process closes any descriptor of it:
	// f is closed before and opened again after.
	if err := f.Close(); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	f, err = os.Open(tmp)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close(), os.Rename(tmp, path)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// withReader calls f with a connection that reads the database at path.
//
// A database in WAL mode that nobody has open can't be read without files
// being made beside it. So that nothing is left there, such a one is copied, its
// log included, to a temporary directory first. The process must not have the
// database open itself then: copying would end SQLite's locks.
func withReader(path string, f func(conn) error) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	for range 10 {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
		}
		if exists(path+"-shm") && exists(path+"-wal") {
			return readFrom(path, path, "ro", f)
		}
		dir, err := os.MkdirTemp("", "pmxcfs-db-")
		if err != nil {
			return err
		}
		tmp := filepath.Join(dir, "config.db")
		err = copyDatabase(path, tmp)
		changed := err == nil && exists(path+"-shm")
		if err == nil && !changed { // by somebody who opened it meanwhile
			now, serr := os.Stat(path)
			changed = serr != nil || !os.SameFile(st, now) || st.Size() != now.Size() || !st.ModTime().Equal(now.ModTime())
		}
		if err == nil && (!changed || !exists(path+"-wal")) {
			err = readFrom(path, tmp, "rw", f)
			changed = false
		}
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil || !changed {
			return err
		}
	}
	return &Error{Path: path, Call: "reading", Err: errors.New("other programs open and close it all the time")}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// copyDatabase copies a file that nobody has open, with what belongs to it.
func copyDatabase(from, to string) error {
	if err := copyFile(from, to); err != nil {
		return err
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		if err := copyFile(from+suffix, to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readFrom calls f with a connection to the file at from, which is the one at
// path or a copy of it.
func readFrom(path, from, mode string, f func(conn) error) error {
	c, err := open(from, mode)
	if err == nil {
		// All that follows sees one state of the file.
		if err = c.exec("BEGIN"); err == nil {
			err = f(c)
		}
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		return &Error{Path: path, Call: "reading", Err: err}
	}
	return nil
}

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
