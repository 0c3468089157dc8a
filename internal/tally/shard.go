package tally

import "unsafe"

// Shard returns which of n shards the calling goroutine is to use, told by where its stack is; n must
// be a power of two. It is nearly always the same for one goroutine, which is all that may be relied
// on: another may use the same, and a stack that grows moves.
func Shard(n int) int {
	var here byte
	at := uint64(uintptr(unsafe.Pointer(&here)) >> 13)
	return int(at*0x9E3779B97F4A7C15>>32) & (n - 1)
}
