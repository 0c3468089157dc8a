// Package shard tells goroutines apart that count in the same place very often, so that each
// can have cache lines of its own: a line that comes from another processor takes longer than the
// counting.
package shard

import "unsafe"

// Of returns which of n shards the calling goroutine is to use: a number below n, told by where its
// stack is. It is nearly always the same for one goroutine, which is all that may be relied on:
// another may use the same, and a stack that grows moves.
func Of(n int) int {
	var here byte
	at := uint64(uintptr(unsafe.Pointer(&here)) >> 13)
	return int(at * 0x9E3779B97F4A7C15 >> 32 % uint64(n))
}
