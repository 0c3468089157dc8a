package daemon

// #include <malloc.h>
//
// // tune keeps C's allocator from holding on to what SQLite has freed: by
// // default it has up to eight heaps per CPU for threads, of which Go has many,
// // and learns from the first large block to keep large blocks.
// static void tune(void) {
// 	mallopt(M_ARENA_MAX, 1);
// 	mallopt(M_MMAP_THRESHOLD, 4 << 20);
// 	mallopt(M_TRIM_THRESHOLD, 2 << 20);
// }
import "C"

// TuneMalloc is called before C allocates in earnest. See mallopt(3).
func TuneMalloc() { C.tune() }
