package diagnosis

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

func TestADatabaseThatWasBegunAnewIsPointedOutOnASingleNode(t *testing.T) {
	for name, test := range map[string]struct {
		version uint64
		beside  string
		conf    bool
		want    bool
	}{
		"new node":            {5, "", false, false},
		"its own log":         {5, "config.db-wal", false, false},
		"begun anew":          {5, "config.db.bak", false, true},
		"old":                 {5000, "config.db.bak", false, false},
		"a node of a cluster": {5, "config.db.bak", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.db")
			entries := []*memdb.Entry{memdb.NewEntry(0, 0, test.version, 0, 1000, memdb.TypeDir, "", nil)}
			if test.conf {
				entries = append(entries, memdb.NewEntry(2, 0, 2, 0, 1000, memdb.TypeFile, "corosync.conf", []byte("totem {\n  version: 2\n}\n")))
			}
			if err := sqlite.Create(path, entries); err != nil {
				t.Fatal(err)
			}
			if test.beside != "" {
				if err := os.WriteFile(filepath.Join(filepath.Dir(path), test.beside), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d, err := ReadDatabase(path)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(begunAnew(d, path), " ")
			if test.want != (got != "") || test.want && got != test.beside {
				t.Errorf("it points to %q", got)
			}
		})
	}
}
