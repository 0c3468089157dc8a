package load

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"
)

// ReadJob has one thread read small files in turn until it is told to stop.
type ReadJob struct {
	Files []string `json:"files"`
}

// ReadResult is what a ReadJob found.
type ReadResult struct {
	Reads   Result        `json:"reads"`
	Longest time.Duration `json:"longest"`
}

// readPause is between two reads: enough to leave the processor to those that are
// measured.
const readPause = 200 * time.Microsecond

// ServeReader reads a ReadJob from r, a line of JSON, and carries it out until r ends.
// It says "ready" on w after the first read, and at the end writes a ReadResult.
func ServeReader(r io.Reader, w io.Writer) error {
	var j ReadJob
	in := json.NewDecoder(r)
	if err := in.Decode(&j); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	if len(j.Files) == 0 {
		return fmt.Errorf("no files to read")
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_, _ = io.Copy(io.Discard, r)
	}()
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	wk := &worker{buf: make([]byte, 64<<10)}
	for _, f := range j.Files {
		wk.files = append(wk.files, newPath("%s", f))
	}
	var res ReadResult
	for i := 0; ; i++ {
		select {
		case <-stop:
			res.Reads.Latency.trim()
			return json.NewEncoder(w).Encode(&res)
		default:
		}
		begin := time.Now()
		wk.guarded(func(w *worker) { w.readAll(w.files[i%len(w.files)], 1) })
		if wk.err != nil {
			return wk.err
		}
		took := time.Since(begin)
		res.Longest = max(res.Longest, took)
		res.Reads.Latency.Add(took)
		res.Reads.Elapsed += took
		res.Reads.Ops++
		if i == 0 {
			if _, err := fmt.Fprintln(w, "ready"); err != nil {
				return err
			}
		}
		time.Sleep(readPause)
	}
}
