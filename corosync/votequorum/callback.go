package votequorum

// #include <stdint.h>
// #include <corosync/votequorum.h>
import "C"

import (
	"runtime/cgo"
	"unsafe"

	"pmxcfs/corosync"
)

// The callbacks run inside the C.votequorum_dispatch of Next, on its thread.
// They copy and append, nothing else.

//export pmxVotequorumQuorum
func pmxVotequorumQuorum(conn C.uintptr_t, quorate, n C.uint32_t, list *C.votequorum_node_t) {
	q := &Quorum{Quorate: quorate != 0, Nodes: make([]Node, 0, n)}
	for _, node := range unsafe.Slice(list, int(n)) {
		q.Nodes = append(q.Nodes, Node{ID: corosync.NodeID(node.nodeid), State: State(node.state)})
	}
	add(conn, Event{Quorum: q})
}

//export pmxVotequorumExpected
func pmxVotequorumExpected(conn C.uintptr_t, votes C.uint32_t) {
	n := int(votes)
	add(conn, Event{ExpectedVotes: &n})
}

//export pmxVotequorumNodeList
func pmxVotequorumNodeList(conn C.uintptr_t, ringNode C.uint32_t, ringSeq C.uint64_t, n C.uint32_t, list *C.uint32_t) {
	l := &NodeList{Ring: Ring{Node: corosync.NodeID(ringNode), Seq: uint64(ringSeq)}, Nodes: make([]corosync.NodeID, 0, n)}
	for _, id := range unsafe.Slice(list, int(n)) {
		l.Nodes = append(l.Nodes, corosync.NodeID(id))
	}
	add(conn, Event{NodeList: l})
}

func add(conn C.uintptr_t, e Event) {
	c := cgo.Handle(conn).Value().(*Conn)
	c.batch = append(c.batch, e)
}
