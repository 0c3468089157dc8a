package sqlite

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Free returns how many bytes the file system of the database has left for it.
func (db *DB) Free() (uint64, error) {
	dir := filepath.Dir(db.path)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("looking for room in %s: %w", dir, err)
	}
	// The database is root's, for whom the file system keeps what others don't get.
	return st.Bfree * uint64(st.Bsize), nil
}
