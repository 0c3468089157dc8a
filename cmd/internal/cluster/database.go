package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/memdb/sqlite"
)

// CopyDatabase copies the tree's database, which may be in use, to a new file. A copy
// that can't be opened is an error.
func CopyDatabase(h *host.Host, to string) error {
	_, err := sqlite.Backup(h.Path(host.Database), h.Path(to))
	return err
}

// RemoveDatabase removes the tree's database. The daemon must not run.
func RemoveDatabase(h *host.Host) error {
	// What SQLite keeps beside it goes with it: it would be replayed into the next one.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(h.Path(host.Database + suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return host.SyncDir(filepath.Dir(h.Path(host.Database)))
}

// RestoreDatabase makes a copy the tree's database. The daemon must not run.
func RestoreDatabase(h *host.Host, from string) error {
	if err := RemoveDatabase(h); err != nil {
		return err
	}
	_, err := sqlite.Backup(h.Path(from), h.Path(host.Database))
	return err
}
