package sqlite

import (
	"errors"
	"fmt"
	"syscall"

	sqlite3 "github.com/mattn/go-sqlite3"

	"pmxcfs/internal/sqlitedb"
)

// Error is a call to SQLite that failed.
type Error struct {
	Path string // the database file
	Call string // what was being done
	Err  error  // what SQLite said
}

// Error says which call failed on which file, and why.
func (e *Error) Error() string {
	msg := fmt.Sprintf("%s: %s failed: %v", e.Path, e.Call, e.Err)
	var se sqlite3.Error
	if errors.As(e.Err, &se) && se.ExtendedCode != 0 && int(se.ExtendedCode) != int(se.Code) {
		msg += fmt.Sprintf(" (SQLite code %d)", se.ExtendedCode)
	}
	return msg
}

// Unwrap returns the errno that a caller of the file system gets for the
// failure (ENOSPC if there is no room, else EIO), and what SQLite said.
func (e *Error) Unwrap() []error { return []error{e.errno(), e.Err} }

func (e *Error) errno() syscall.Errno {
	if sqlitedb.NoRoom(e.Err) {
		return syscall.ENOSPC
	}
	return syscall.EIO
}

// ErrChanged means that the file no longer holds this process's writes:
// another program has changed, replaced or removed it.
var ErrChanged = errors.New("the file was changed by another program")

// damaged reports whether err means that the connection is not to be used any
// more, rather than that one transaction did not fit.
func damaged(err error) bool {
	var se sqlite3.Error
	if !errors.As(err, &se) {
		return true
	}
	return se.Code != sqlite3.ErrFull && se.Code != sqlite3.ErrBusy
}

// Damaged reports whether err says that a file is there, but is no sound SQLite
// database, or no configuration database: something that Recover is for.
func Damaged(err error) bool {
	if errors.Is(err, ErrSchema) {
		return true
	}
	var se sqlite3.Error
	return errors.As(err, &se) && (se.Code == sqlite3.ErrCorrupt || se.Code == sqlite3.ErrNotADB)
}
