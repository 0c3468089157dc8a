package daemon

import "runtime"

// spreadProcs lets more goroutines run than there are CPUs. It is called once
// the mount's readers are there, whose number follows from GOMAXPROCS.
//
// A reader that waits in read(2) for the kernel's next request keeps one of the
// runtime's processors until the runtime's monitor notices, which takes from 20 µs
// to 10 ms. With as many readers as processors, none is left to run a goroutine
// that has just been woken, such as one whose transaction is done. So there
// are as many processors again.
func spreadProcs() {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(2*n + 4)
}
