package sqlite

// #include <stdlib.h>
// #include "vfs.h"
import "C"

import (
	"fmt"
	"sync"
)

// writerVFS is the name of the file layer below the connection that writes: it puts
// together what goes to the log (vfs.c).
const writerVFS = "pmxcfs-log"

var registerVFS = sync.OnceValue(func() error {
	if code := C.register_vfs(C.CString(writerVFS)); code != 0 { // the name is kept
		return fmt.Errorf("registering a file layer with SQLite: error %d", code)
	}
	return nil
})

// openToWrite connects to a database file to write to it, by that file layer.
func openToWrite(path string) (conn, error) {
	if err := registerVFS(); err != nil {
		return conn{}, err
	}
	return openThrough(writerVFS, path, "rw")
}
