package cmap

// #include <stdint.h>
// #include <corosync/cmap.h>
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// The callback runs inside the C.cmap_dispatch of Next, on its thread. It copies
// and appends, nothing else.

//export pmxCmapNotify
func pmxCmapNotify(conn C.uintptr_t, track C.cmap_track_handle_t, op C.int32_t, key *C.char,
	newType C.cmap_value_types_t, newData unsafe.Pointer, newLen C.size_t,
	oldType C.cmap_value_types_t, oldData unsafe.Pointer, oldLen C.size_t) {
	c := cgo.Handle(conn).Value().(*Conn)
	e := Event{Track: TrackID(track), Op: Op(op), Key: C.GoString(key)}
	e.New, _ = decode(Type(newType), unsafe.Slice((*byte)(newData), int(newLen)))
	e.Old, _ = decode(Type(oldType), unsafe.Slice((*byte)(oldData), int(oldLen)))
	c.batch = append(c.batch, e)
}
