package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"pmxcfs/internal/signals"
)

// Row is a row of the table as it stands in a file, whatever types it has: inode,
// parent, version, writer, mtime, type, name, data.
type Row [8]driver.Value

// number is data that was a number, as the text that SQLite makes of it.
type number string

// rowColumns are a row's columns. Data that is a number is read as its text, as
// the stock daemon does; one more column is its kind then, and otherwise NULL.
const rowColumns = "inode, parent, version, writer, mtime, type, name, " +
	"CASE WHEN typeof(data) IN ('integer','real') THEN CAST(data AS BLOB) ELSE data END, " +
	"CASE WHEN typeof(data) IN ('integer','real') THEN typeof(data) END"

// ReadRows returns all rows of a file, for Repair. The order is that of the
// table.
func ReadRows(path string) (rows []Row, err error) {
	err = withReader(path, func(c conn) error {
		found, err := c.hasTree()
		if err == nil && !found {
			err = errNoTree
		}
		if err != nil {
			return err
		}
		return c.Each("SELECT "+rowColumns+" FROM tree", func(row []driver.Value) error {
			if text, ok := bytesOf(row[7]); ok && row[8] != nil {
				row[7] = number(text)
			}
			if len(rows) == maxRows {
				return errTooMany
			}
			rows = append(rows, Row(row[:8]))
			return nil
		})
	})
	return rows, err
}

// Recover returns the rows that can still be found in a file that SQLite calls
// damaged, in whatever order. The file is not changed. Notes say what else was
// seen.
//
// SQLite's own tool for this, the sqlite3 program's ".recover", is not used: the
// one that Debian 12 ships was built without the virtual table that it reads pages
// by, and answers "no such table: sqlite_dbpage".
func Recover(path string) (rows []Row, notes []string, err error) {
	if path, err = Resolve(path); err != nil {
		return nil, nil, err
	}
	if _, err := stat(path); err != nil {
		return nil, nil, err
	}
	var file []byte
	err = withScratch(func(dir string, h signals.Held) error {
		tmp := filepath.Join(dir, "config.db")
		if err := copyDatabase(path, tmp, h); err != nil {
			return err
		}
		if err := mergeLog(tmp); err != nil {
			notes = append(notes, fmt.Sprintf("what was last written, in %s-wal, can't be used: %v", path, err))
		}
		file, err = os.ReadFile(tmp)
		return err
	})
	if err != nil {
		return nil, notes, err
	}
	rows, torn := salvage(file)
	if torn > 0 {
		notes = append(notes, fmt.Sprintf("of %d files only the beginning was found", torn))
	}
	if len(rows) == 0 {
		return nil, notes, fmt.Errorf("recovering %s: %w", path, errNothingFound)
	}
	return rows, notes, nil
}

// mergeLog brings the log that lies beside a file into it, which takes no more of
// the file than its first page.
func mergeLog(path string) error {
	st, err := os.Stat(path + "-wal")
	if err != nil || st.Size() == 0 {
		return nil
	}
	c, err := open(path, "rw")
	if err != nil {
		return err
	}
	pages, copied, err := c.checkpoint()
	if err == nil && (pages <= 0 || copied < pages) {
		err = errors.New("SQLite does not recognise it")
	}
	return errors.Join(err, c.Close())
}
