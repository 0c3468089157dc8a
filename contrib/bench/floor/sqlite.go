package floor

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"

	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/server"
	"pmxcfs/contrib/bench/tree"
)

// SQLiteJob is one measurement of bare transactions.
type SQLiteJob struct {
	File  string        `json:"file"`  // of a database that does not exist yet
	Batch int           `json:"batch"` // rows in a transaction, besides the version row
	Size  int           `json:"size"`  // bytes of content in a row
	Warm  time.Duration `json:"warm"`
	Time  time.Duration `json:"time"`
}

// RunSQLite reads a SQLiteJob from r, carries it out and writes a load.Result
// to w, both as JSON. An operation is one row; the latencies are those of
// transactions.
func RunSQLite(r io.Reader, w io.Writer) error {
	var j SQLiteJob
	if err := json.NewDecoder(r).Decode(&j); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	db, err := openDB(j.File)
	if err != nil {
		return err
	}
	defer db.close()
	if _, err := db.measure(&j, j.Warm); err != nil {
		return err
	}
	res, err := db.measure(&j, j.Time)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(res)
}

// database is a file with the daemon's table and settings.
type database struct {
	c, checkpoint               *sqlite3.SQLiteConn
	begin, commit, row, setRoot *sqlite3.SQLiteStmt
	args, rootArgs, none        []driver.Value
	version                     int64
	wake, checkpointed          chan struct{}
	unsaved                     int
	checkpointErr               error
}

const (
	rows            = 1000 // that are written in turn
	checkpointBytes = 4 << 20
)

func connect(file string) (*sqlite3.SQLiteConn, error) {
	c, err := (&sqlite3.SQLiteDriver{}).Open("file:" + file + "?_mutex=no&_busy_timeout=10000")
	if err != nil {
		return nil, err
	}
	return c.(*sqlite3.SQLiteConn), nil
}

func openDB(file string) (*database, error) {
	c, err := connect(file)
	if err != nil {
		return nil, err
	}
	d := &database{c: c, args: make([]driver.Value, 8), rootArgs: make([]driver.Value, 3), version: 1,
		wake: make(chan struct{}, 1), checkpointed: make(chan struct{})}
	for _, s := range []string{
		"PRAGMA journal_mode=WAL",
		"PRAGMA synchronous=NORMAL",
		"PRAGMA wal_autocheckpoint=0",
		"PRAGMA cache_size=-1024",
		"CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL CHECK(typeof(parent)=='integer'), " +
			"version INTEGER NOT NULL CHECK(typeof(version)=='integer'), writer INTEGER NOT NULL CHECK(typeof(writer)=='integer'), " +
			"mtime INTEGER NOT NULL CHECK(typeof(mtime)=='integer'), type INTEGER NOT NULL CHECK(typeof(type)=='integer'), " +
			"name TEXT NOT NULL, data BLOB)",
		"INSERT INTO tree VALUES (0, 0, 1, 0, 0, 8, '__version__', NULL)",
	} {
		if _, err := c.Exec(s, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
	}
	for query, s := range map[string]**sqlite3.SQLiteStmt{
		"BEGIN IMMEDIATE": &d.begin,
		"COMMIT":          &d.commit,
		"REPLACE INTO tree (inode, parent, version, writer, mtime, type, name, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)": &d.row,
		"UPDATE tree SET version=?, writer=?, mtime=? WHERE inode=0":                                                  &d.setRoot,
	} {
		stmt, err := c.Prepare(query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		*s = stmt.(*sqlite3.SQLiteStmt)
	}
	if d.checkpoint, err = connect(file); err != nil {
		return nil, err
	}
	go d.checkpointer()
	return d, nil
}

// checkpointer copies the log into the main file, beside the writer.
func (d *database) checkpointer() {
	defer close(d.checkpointed)
	for range d.wake {
		if _, err := d.checkpoint.Exec("PRAGMA wal_checkpoint(PASSIVE)", nil); err != nil {
			d.checkpointErr = err
		}
	}
}

func (d *database) close() error {
	close(d.wake)
	<-d.checkpointed
	var errs []error
	for _, s := range []*sqlite3.SQLiteStmt{d.begin, d.commit, d.row, d.setRoot} {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, d.checkpointErr, d.checkpoint.Close(), d.c.Close())...)
}

func (d *database) measure(j *SQLiteJob, limit time.Duration) (*load.Result, error) {
	data := bytes.Repeat([]byte("x"), j.Size)
	res := &load.Result{}
	before, err := server.ReadCounters(os.Getpid())
	if err != nil {
		return nil, err
	}
	start := time.Now()
	last := time.Duration(0)
	for last < limit {
		if err := d.transaction(j.Batch, data); err != nil {
			return nil, err
		}
		now := time.Since(start)
		res.Latency.Add(now - last)
		last = now
		res.Ops += j.Batch
	}
	res.Elapsed = last
	after, err := server.ReadCounters(os.Getpid())
	if err != nil {
		return nil, err
	}
	res.Used = after.Sub(before)
	return res, nil
}

func (d *database) transaction(batch int, data []byte) error {
	if _, err := d.begin.Exec(d.none); err != nil {
		return err
	}
	for range batch {
		d.version++
		tree.Stamp(data, uint64(d.version))
		a := d.args
		a[0], a[1], a[2], a[3], a[4], a[5] = 2+d.version%rows, int64(0), d.version, int64(0), int64(1700000000), int64(8)
		a[6], a[7] = "100.conf", data
		if _, err := d.row.Exec(a); err != nil {
			return err
		}
	}
	d.rootArgs[0], d.rootArgs[1], d.rootArgs[2] = d.version, int64(0), int64(1700000000)
	if _, err := d.setRoot.Exec(d.rootArgs); err != nil {
		return err
	}
	if _, err := d.commit.Exec(d.none); err != nil {
		return err
	}
	if d.unsaved += batch*len(data) + 8192; d.unsaved > checkpointBytes {
		d.unsaved = 0
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
	return nil
}
