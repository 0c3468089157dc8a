package floor

// #cgo pkg-config: libqb
// #include <stdlib.h>
// #include "echo.h"
import "C"

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"unsafe"
)

// ServeEcho runs a bare libqb server, in C: libqb's own loop on this thread, and answers
// of as many bytes as the request says (see EchoRequest). It says "ready" on standard
// output and serves until standard input ends.
func ServeEcho(name string) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	if errno := C.bench_echo(cname); errno != 0 {
		return fmt.Errorf("echo server %s: %w", name, syscall.Errno(errno))
	}
	return nil
}

// EchoRequest is the data of a request to the echo server that is as long as length, or
// 4 bytes if that is less, and that is answered by so many bytes.
func EchoRequest(length, answer int) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(answer)), make([]byte, max(0, length-4))...)
}
