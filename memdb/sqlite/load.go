package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"pmxcfs/memdb"
)

// errNoTree says that a file is a database, but of something else.
var errNoTree = errors.New("it is an SQLite database, but has no table tree: not a configuration database")

// ErrSchema says that a file's table tree is another thing than that of a configuration
// database. Nothing is read through it, whatever it is: a view, say, can have
// billions of rows.
var ErrSchema = errors.New("its table tree is not that of a configuration database")

// maxObjects is how many tables and indexes of a file are looked at.
const maxObjects = 1000

// columns are the table's.
var columns = []string{"inode", "parent", "version", "writer", "mtime", "type", "name", "data"}

// hasTree reports whether the table is there, and is what it should be. A database with
// other tables only is an error; one with none is new.
func (c conn) hasTree() (found bool, err error) {
	others := 0
	err = c.Each(fmt.Sprintf("SELECT name, type, rootpage, tbl_name FROM sqlite_schema LIMIT %d", maxObjects), func(row []driver.Value) error {
		name, _ := row[0].(string)
		table, _ := row[3].(string)
		page, _ := row[2].(int64)
		switch {
		case row[1] == "trigger" && strings.EqualFold(table, "tree"):
			return fmt.Errorf("%w: it has the trigger %q", ErrSchema, name)
		case !strings.EqualFold(name, "tree"):
			others++
		case row[1] != "table" || page < 2:
			return fmt.Errorf("%w: it is a %v", ErrSchema, row[1])
		default:
			found = true
		}
		return nil
	})
	switch {
	case err != nil:
		return false, err
	case !found && others > 0:
		return false, errNoTree
	case !found:
		return false, nil
	}
	var have []string
	err = c.Each("SELECT name, hidden FROM pragma_table_xinfo('tree')", func(row []driver.Value) error {
		name, _ := row[0].(string)
		if row[1] != int64(0) {
			return fmt.Errorf("%w: its column %q is computed", ErrSchema, name)
		}
		have = append(have, strings.ToLower(name))
		return nil
	})
	if err == nil && !slices.Equal(have, columns) {
		err = fmt.Errorf("%w: its columns are %q", ErrSchema, have)
	}
	return err == nil, err
}

// maxRows bounds how many rows are read: four times the tree's limit.
const maxRows = 4 * memdb.MaxEntries

var errTooMany = fmt.Errorf("it has more than %d rows", maxRows)

// readTree reads all rows of a file, which may be a new one.
func readTree(c conn) (entries []*memdb.Entry, problems []memdb.Problem, mend []*memdb.Entry, err error) {
	found, err := c.hasTree()
	if err != nil || !found {
		return nil, nil, nil, err
	}
	return c.readEntries()
}

// fatal returns those problems that keep a file from being loaded.
func fatal(all []memdb.Problem) (bad []memdb.Problem) {
	for _, p := range all {
		if p.Fatal {
			bad = append(bad, p)
		}
	}
	return bad
}

// readEntries reads all rows, ascending by inode. The version row comes as the
// root. Problems of single rows are returned beside the entries; those of the
// tree as a whole are memdb.Check's to find. A file with no row at all gives
// neither. Mend is those entries whose rows the stock daemon loads, but would not
// write as they stand.
func (c conn) readEntries() (entries []*memdb.Entry, problems []memdb.Problem, mend []*memdb.Entry, err error) {
	var count int
	if err := c.Each("SELECT count(*) FROM tree", func(row []driver.Value) error {
		if n, ok := row[0].(int64); ok {
			count = int(n)
		}
		if count > maxRows {
			return errTooMany
		}
		return nil
	}); err != nil {
		return nil, nil, nil, fmt.Errorf("counting the rows: %w", err)
	}
	entries = make([]*memdb.Entry, 0, min(count, memdb.MaxEntries))
	err = c.Each("SELECT "+rowColumns+" FROM tree ORDER BY inode", func(row []driver.Value) error {
		e, bad := parseRow(row)
		problems = append(problems, bad...)
		if e != nil {
			entries = append(entries, e)
			if row[8] != nil {
				mend = append(mend, e)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("reading the rows: %w", err)
	}
	// Inodes are stored as signed integers; those from 2^63 come first then.
	slices.SortStableFunc(entries, func(a, b *memdb.Entry) int {
		switch {
		case a.Inode < b.Inode:
			return -1
		case a.Inode > b.Inode:
			return 1
		}
		return 0
	})
	if len(entries) > 0 && entries[0].Inode != memdb.RootInode && !slices.ContainsFunc(problems, isVersionRow) {
		root := missingVersion(entries)
		problems = append(problems, memdb.Problem{Name: versionName, Unsound: true,
			What: fmt.Sprintf("the version row is missing; %d, the greatest number of the other rows, is the database's version", root.Version)})
		entries, mend = slices.Insert(entries, 0, root), append(mend, root)
	}
	return entries, problems, mend, nil
}

func isVersionRow(p memdb.Problem) bool { return p.Inode == memdb.RootInode }

// missingVersion makes the root of a file that has lost its version row. The stock
// daemon begins at version 1 again then, and gives inodes out that are in use.
func missingVersion(entries []*memdb.Entry) *memdb.Entry {
	version, mtime := uint64(1), uint32(0)
	for _, e := range entries {
		for _, n := range []uint64{e.Inode, e.Version} {
			if n <= memdb.MaxVersion {
				version = max(version, n)
			}
		}
		mtime = max(mtime, e.MTime)
	}
	return memdb.NewEntry(memdb.RootInode, memdb.RootInode, version, 0, mtime, memdb.TypeDir, "", nil)
}

// parseRow makes an entry of a row of rowColumns. Without an entry there is a fatal problem.
func parseRow(row []driver.Value) (*memdb.Entry, []memdb.Problem) {
	inode, inodeOK := row[0].(int64)
	name, nameOK := row[6].(string)
	if !nameOK {
		var b []byte
		b, nameOK = bytesOf(row[6])
		name = string(b)
	}
	var bad []memdb.Problem
	report := func(fatal bool, format string, args ...any) {
		bad = append(bad, memdb.Problem{Inode: uint64(inode), Name: name, What: fmt.Sprintf(format, args...), Fatal: fatal, Unsound: true})
	}
	if !inodeOK {
		report(true, "the inode is not an integer but %v", show(row[0]))
	}
	if !nameOK {
		report(true, "the name is not a text but %v", show(row[6]))
	}
	var num [5]int64 // parent, version, writer, mtime, type
	for i, column := range []string{"parent", "version", "writer", "mtime", "type"} {
		v, ok := row[i+1].(int64)
		if !ok {
			report(true, "column %s is not an integer but %v", column, show(row[i+1]))
			continue
		}
		if limit := int64(math.MaxUint32); (column == "writer" || column == "mtime") && (v < 0 || v > limit) {
			report(false, "column %s, %d, does not fit 32 bits", column, v)
		}
		num[i] = v
	}
	data, dataOK := bytesOf(row[7])
	if !dataOK {
		report(true, "the data is not a blob but %v", show(row[7]))
	}
	if row[8] != nil {
		bad = append(bad, memdb.Problem{Inode: uint64(inode), Name: name, Unsound: true,
			What: fmt.Sprintf("the data is not a blob but a number; it is taken for the text %q", data)})
	}
	typ := memdb.Type(num[4])
	if int64(typ) != num[4] {
		report(true, "type %d is neither file (%d) nor directory (%d)", num[4], memdb.TypeFile, memdb.TypeDir)
	}
	if inode == memdb.RootInode {
		switch {
		case name != versionName:
			report(true, "inode 0 must be the version row, %q", versionName)
		case num[0] != memdb.RootInode:
			report(true, "the version row's parent is %d, not 0", num[0])
		case typ != memdb.TypeFile && typ != memdb.TypeDir:
			report(true, "the version row's type is %d", num[4])
		case len(data) > 0:
			report(true, "the version row has %d bytes of data", len(data))
		}
		typ, name, data = memdb.TypeDir, "", nil
	}
	for _, p := range bad {
		if p.Fatal {
			return nil, bad
		}
	}
	return memdb.NewEntry(uint64(inode), uint64(num[0]), uint64(num[1]), uint32(num[2]), uint32(num[3]), typ, name, data), bad
}

// bytesOf returns the bytes of a text or blob; nil for NULL.
func bytesOf(v driver.Value) ([]byte, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case string:
		return []byte(v), true
	case []byte:
		if len(v) == 0 {
			return nil, true
		}
		return v, true
	}
	return nil, false
}

// show describes a value that has the wrong type, in a few words.
func show(v driver.Value) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case []byte:
		return fmt.Sprintf("a blob of %d bytes", len(v))
	case string:
		if len(v) > 40 {
			return fmt.Sprintf("a text of %d bytes", len(v))
		}
		return fmt.Sprintf("the text %q", v)
	}
	return fmt.Sprintf("%v", v)
}
