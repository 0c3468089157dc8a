package cpg

// #include <stdint.h>
// #include <corosync/cpg.h>
import "C"

import (
	"runtime/cgo"
	"unsafe"

	"pmxcfs/corosync"
)

// The callbacks run inside the C.pmx_cpg_dispatch of Next, on its thread. They
// copy and append, nothing else.

//export pmxCpgDeliver
func pmxCpgDeliver(conn C.uintptr_t, node, pid C.uint32_t, msg unsafe.Pointer, size C.size_t) {
	c := cgo.Handle(conn).Value().(*Conn)
	c.batch = append(c.batch, Event{
		Sender: corosync.Member{Node: corosync.NodeID(node), PID: uint32(pid)},
		Data:   c.arena.copy(unsafe.Slice((*byte)(msg), int(size))),
	})
}

//export pmxCpgConfchg
func pmxCpgConfchg(conn C.uintptr_t, list *C.struct_cpg_address, n C.size_t,
	left *C.struct_cpg_address, nLeft C.size_t, joined *C.struct_cpg_address, nJoined C.size_t) {
	c := cgo.Handle(conn).Value().(*Conn)
	c.batch = append(c.batch, Event{Change: &ConfigChange{
		Members: members(unsafe.Slice(list, int(n))),
		Left:    addresses(unsafe.Slice(left, int(nLeft))),
		Joined:  addresses(unsafe.Slice(joined, int(nJoined))),
	}})
}
