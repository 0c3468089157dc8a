package sqlite

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// writeCalls returns how many write calls this process has made.
func writeCalls(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("syscw: "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// writable returns a database in write-ahead mode, by our file layer.
func writable(t *testing.T, pragmas ...string) (conn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := openToWrite(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for _, q := range append([]string{"PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", "PRAGMA wal_autocheckpoint=0"}, pragmas...) {
		if _, err := c.Exec(q, nil); err != nil {
			t.Fatal(q, err)
		}
	}
	return c, path
}

func do(t *testing.T, c conn, query string) {
	t.Helper()
	if err := c.Do(query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func TestATransactionGoesToTheLogInOneWrite(t *testing.T) {
	c, path := writable(t)
	do(t, c, "CREATE TABLE x (a INTEGER PRIMARY KEY, b BLOB); CREATE TABLE y (a INTEGER PRIMARY KEY, b BLOB); INSERT INTO x VALUES (0, ''); INSERT INTO y VALUES (0, '')")
	const transactions = 100
	before := writeCalls(t)
	for range transactions {
		do(t, c, "BEGIN; UPDATE x SET b = randomblob(700); UPDATE y SET b = randomblob(700); COMMIT")
	}
	if n := writeCalls(t) - before; n > transactions*3/2 { // others in this process write, too
		t.Errorf("%d transactions of two pages took %d write calls", transactions, n)
	}
	before = writeCalls(t)
	do(t, c, "UPDATE x SET b = randomblob(512 * 1024)")
	if n := writeCalls(t) - before; n > 15 {
		t.Errorf("512 KiB took %d write calls", n)
	}
	other, err := open(path, "ro")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	want, got := sum(t, c), sum(t, other)
	if got != want || got == "" {
		t.Errorf("another connection sees %q, the writer %q", got, want)
	}
}

// sum returns what tells the content of all rows.
func sum(t *testing.T, c conn) (s string) {
	t.Helper()
	for _, table := range []string{"x", "y"} {
		rows, err := c.Query("SELECT a, hex(substr(b, 1, 20)) || length(b) || hex(substr(b, -20)) FROM "+table+" ORDER BY a", nil)
		if err != nil {
			t.Fatal(err)
		}
		vals := make([]driver.Value, 2)
		for rows.Next(vals) == nil {
			s += strconv.FormatInt(vals[0].(int64), 10) + "=" + vals[1].(string) + " "
		}
		rows.Close()
	}
	return s
}

// TestTheLogIsTheSameWhateverTheTransactionsAre has pages written early, rolled back, written again, logs
// begun anew, and another connection look on.
func TestTheLogIsTheSameWhateverTheTransactionsAre(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, cache := range []string{"PRAGMA cache_size=-1024", "PRAGMA cache_size=3"} {
		c, path := writable(t, cache)
		do(t, c, "CREATE TABLE x (a INTEGER PRIMARY KEY, b BLOB); CREATE TABLE y (a INTEGER PRIMARY KEY, b BLOB)")
		other, err := open(path, "rw")
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for range 300 {
			do(t, c, "BEGIN")
			for range 1 + r.IntN(5) {
				table := []string{"x", "y"}[r.IntN(2)]
				size := strconv.Itoa([]int{10, 700, 5000, 100_000}[r.IntN(4)])
				do(t, c, "REPLACE INTO "+table+" VALUES ("+strconv.Itoa(r.IntN(20))+", randomblob("+size+"))")
				if r.IntN(4) == 0 {
					do(t, c, "DELETE FROM "+table+" WHERE a = "+strconv.Itoa(r.IntN(20)))
				}
				if r.IntN(6) == 0 {
					do(t, c, "SAVEPOINT s; REPLACE INTO x VALUES (1, randomblob(200000)); ROLLBACK TO s; RELEASE s")
				}
			}
			if r.IntN(5) == 0 {
				do(t, c, "ROLLBACK")
			} else {
				do(t, c, "COMMIT")
			}
			if got, want := sum(t, other), sum(t, c); got != want {
				t.Fatal("another connection sees something else")
			}
			switch r.IntN(20) {
			case 0:
				do(t, other, "PRAGMA wal_checkpoint(TRUNCATE)")
			case 1:
				do(t, c, "PRAGMA wal_checkpoint(RESTART)")
			case 2:
				do(t, other, "PRAGMA wal_checkpoint(PASSIVE)")
			}
		}
		want := sum(t, c)
		// What a killed process leaves.
		copied := filepath.Join(t.TempDir(), "db")
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(path + suffix)
			if err == nil {
				err = os.WriteFile(copied+suffix, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		left, err := open(copied, "rw")
		if err != nil {
			t.Fatal(err)
		}
		defer left.Close()
		if got := sum(t, left); got != want {
			t.Error("the files hold something else than the writer has committed")
		}
		rows, err := left.Query("PRAGMA integrity_check", nil)
		if err != nil {
			t.Fatal(err)
		}
		vals := make([]driver.Value, 1)
		if err := rows.Next(vals); err != nil || vals[0] != "ok" {
			t.Errorf("integrity: %v, %v", vals[0], err)
		}
		rows.Close()
	}
}

// TestALogThatCantGrowFailsTheTransaction limits the size of files: the write at a transaction's end fails.
func TestALogThatCantGrowFailsTheTransaction(t *testing.T) {
	c, path := writable(t)
	do(t, c, "CREATE TABLE x (a INTEGER PRIMARY KEY, b BLOB); CREATE TABLE y (a INTEGER PRIMARY KEY, b BLOB); INSERT INTO x VALUES (1, 'old')")
	st, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	limitFiles(t, uint64(st.Size())+10_000, func() {
		err = c.Do("INSERT INTO x VALUES (2, randomblob(100000))")
	})
	if err == nil {
		t.Fatal("it is said to be stored")
	}
	if !c.AutoCommit() {
		do(t, c, "ROLLBACK")
	}
	other, err := open(path, "ro")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	before := sum(t, other)
	do(t, c, "INSERT INTO x VALUES (3, 'new')")
	if after := sum(t, other); before == after || sum(t, c) != after {
		t.Errorf("before the next transaction %q, after it %q", before, after)
	}
}

// limitFiles runs f while no file of this process can grow past so many bytes.
func limitFiles(t *testing.T, bytes uint64, f func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil && !errors.Is(err, syscall.EPERM) {
			t.Fatal(err)
		}
	}()
	f()
}
