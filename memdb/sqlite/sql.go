package sqlite

import (
	"bufio"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// WriteSQL writes the database at path as the statements that make it anew, as the
// ".dump" of SQLite's own shell does.
func WriteSQL(w io.Writer, path string) error {
	b := bufio.NewWriterSize(w, 1<<16)
	b.WriteString("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n")
	err := withReader(path, func(c conn) error {
		found := false
		err := c.Each("SELECT sql FROM sqlite_master WHERE type='table' AND name='tree'", func(row []driver.Value) error {
			found = true
			_, err := fmt.Fprintf(b, "%s;\n", row[0])
			return err
		})
		if err == nil && !found {
			err = errors.New("it has no table tree")
		}
		if err != nil {
			return err
		}
		return c.Each("SELECT * FROM tree ORDER BY inode", func(row []driver.Value) error {
			b.WriteString("INSERT INTO tree VALUES(")
			for n, v := range row {
				if n > 0 {
					b.WriteByte(',')
				}
				text, err := literal(v)
				if err != nil {
					return err
				}
				b.WriteString(text)
			}
			_, err := b.WriteString(");\n")
			return err
		})
	})
	b.WriteString("COMMIT;\n")
	if err := errors.Join(err, b.Flush()); err != nil {
		return &Error{Path: path, Call: "writing the database as SQL", Err: err}
	}
	return nil
}

// literal writes a value as SQL does.
func literal(v driver.Value) (string, error) {
	switch v := v.(type) {
	case nil:
		return "NULL", nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case []byte:
		return "X'" + hex.EncodeToString(v) + "'", nil
	case string:
		if strings.Contains(v, "\x00") { // ends a statement
			return "CAST(X'" + hex.EncodeToString([]byte(v)) + "' AS TEXT)", nil
		}
		return "'" + strings.ReplaceAll(v, "'", "''") + "'", nil
	}
	return "", fmt.Errorf("a value of type %T can't be in it", v)
}
