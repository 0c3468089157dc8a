package load

// #cgo pkg-config: libqb
// #include <errno.h>
// #include <stdlib.h>
// #include "requests.h"
//
// static qb_ipcc_connection_t *connect_to(const char *name, int *err)
// {
// 	qb_ipcc_connection_t *c = qb_ipcc_connect(name, 1 << 20);
//
// 	*err = c ? 0 : errno;
// 	return c;
// }
import "C"

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/bench/server"
)

// RequestJob is one measurement of a libqb service: the same request by a number of
// clients, each on a thread and a connection of its own.
type RequestJob struct {
	Service string `json:"service"`
	PID     int    `json:"pid"` // of the process that serves it
	ID      int32  `json:"id"`
	Data    []byte `json:"data"` // after the header
	Clients int    `json:"clients"`
	CPU     int    `json:"cpu"` // to run on; -1: all
	// Every is the time from one request of a client to its next, whatever it takes; 0 means the next
	// follows at once.
	Every time.Duration `json:"every"`
	Warm  time.Duration `json:"warm"`
	Time  time.Duration `json:"time"`
}

// slice is how many requests a client makes before it looks at the clock and does its
// books.
const slice = 256

// ServeRequests reads a RequestJob from r, carries it out and writes a Result to w,
// both as JSON. The requests are made in C, with libqb's own client.
func ServeRequests(r io.Reader, w io.Writer) error {
	var j RequestJob
	if err := json.NewDecoder(r).Decode(&j); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	res, err := j.run()
	if err != nil {
		return fmt.Errorf("request %d to %s: %w", j.ID, j.Service, err)
	}
	res.Latency.trim()
	return json.NewEncoder(w).Encode(res)
}

func (j *RequestJob) run() (*Result, error) {
	runtime.GOMAXPROCS(j.Clients + 2)
	data := C.CBytes(j.Data)
	defer C.free(data)
	var clients []*requester
	for range j.Clients {
		c, err := j.connect(data)
		if err != nil {
			return nil, err
		}
		defer c.close()
		clients = append(clients, c)
	}
	if _, err := j.phase(clients, j.Warm); err != nil {
		return nil, err
	}
	for _, c := range clients {
		c.res = Result{}
	}
	before, err := server.ReadCounters(j.PID)
	if err != nil {
		return nil, err
	}
	elapsed, err := j.phase(clients, j.Time)
	if err != nil {
		return nil, err
	}
	after, err := server.ReadCounters(j.PID)
	if err != nil {
		return nil, err
	}
	res := &Result{Elapsed: elapsed, Used: after.Sub(before)}
	for _, c := range clients {
		res.Ops += c.res.Ops
		res.Latency.Merge(c.res.Latency)
	}
	return res, nil
}

// phase has all clients make requests for some time. However late it comes to run, each makes some.
func (j *RequestJob) phase(clients []*requester, d time.Duration) (time.Duration, error) {
	errs := make([]error, len(clients))
	var all sync.WaitGroup
	begin := time.Now()
	for i, c := range clients {
		all.Go(func() {
			runtime.LockOSThread() // no unlock: the thread, which stays on its CPU, ends
			if errs[i] = j.pin(); errs[i] != nil {
				return
			}
			n := slice
			next := newPace(begin, j.Every, i, len(clients))
			if j.Every > 0 {
				n = 1
			}
			for next.wait(begin.Add(d)) || c.res.Ops == 0 {
				if errs[i] = c.requests(n); errs[i] != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(begin), errors.Join(errs...)
}

// pin has this thread run on the job's CPU.
func (j *RequestJob) pin() error {
	if j.CPU < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(j.CPU)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	return nil
}

// requester is one client.
type requester struct {
	req  *C.struct_bench_request
	took *C.uint32_t
	res  Result
}

// replySize is the largest response, with its header.
const replySize = 1 << 20

func (j *RequestJob) connect(data unsafe.Pointer) (*requester, error) {
	name := C.CString(j.Service)
	defer C.free(unsafe.Pointer(name))
	var errno C.int
	conn := C.connect_to(name, &errno)
	if conn == nil {
		return nil, fmt.Errorf("connecting: %w", syscall.Errno(errno))
	}
	c := &requester{
		req:  (*C.struct_bench_request)(C.calloc(1, C.sizeof_struct_bench_request)),
		took: (*C.uint32_t)(C.calloc(slice, C.sizeof_uint32_t)),
		res:  Result{},
	}
	*c.req = C.struct_bench_request{conn: conn, id: C.int32_t(j.ID), data: data, len: C.size_t(len(j.Data)),
		reply: C.malloc(replySize), reply_size: replySize}
	return c, nil
}

func (c *requester) close() {
	C.qb_ipcc_disconnect(c.req.conn)
	C.free(c.req.reply)
	C.free(unsafe.Pointer(c.took))
	C.free(unsafe.Pointer(c.req))
}

func (c *requester) requests(n int) error {
	if errno := C.bench_requests(c.req, C.int(n), c.took); errno != 0 {
		return syscall.Errno(errno)
	}
	for _, ns := range unsafe.Slice(c.took, n) {
		c.res.Latency.Add(time.Duration(ns))
	}
	c.res.Ops += n
	return nil
}
