package load

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// VisibleJob measures how long after a writer's call has returned its effect shows in
// another mount: to stat(2), which had just been asked for the same name there.
type VisibleJob struct {
	Writer  string        `json:"writer"`  // an existing directory, in the writer's mount
	Watcher string        `json:"watcher"` // the same in the other
	Time    time.Duration `json:"time"`
}

// VisibleResult is what a VisibleJob found, one Result for each kind of change.
type VisibleResult struct {
	Create Result `json:"create"` // a new name is there
	Write  Result `json:"write"`  // a file is longer
	Delete Result `json:"delete"` // a name is gone
}

const (
	// watchPause is between two looks.
	watchPause = 20 * time.Microsecond
	// watchTimeout is how long a change may take to be visible before that counts as
	// never.
	watchTimeout = time.Minute
	// quiet is between two changes: a burst would only show that the first has the others
	// looked for.
	quiet = 2 * time.Millisecond
)

// ServeVisible reads a VisibleJob from r, carries it out and writes a VisibleResult to
// w, both as JSON.
func ServeVisible(r io.Reader, w io.Writer) error {
	var j VisibleJob
	if err := json.NewDecoder(r).Decode(&j); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	var res VisibleResult
	for begin := time.Now(); res.Delete.Ops == 0 || time.Since(begin) < j.Time; {
		if err := j.cycle(&res); err != nil {
			return err
		}
	}
	for _, x := range []*Result{&res.Create, &res.Write, &res.Delete} {
		x.Latency.trim()
	}
	return json.NewEncoder(w).Encode(&res)
}

// cycle makes each kind of change once.
func (j *VisibleJob) cycle(res *VisibleResult) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.err
		default:
			panic(r)
		}
	}()
	const name = "visible.conf"
	mine, other := newPath("%s/%s", j.Writer, name), newPath("%s/%s", j.Watcher, name)
	one := []byte("x")
	append1 := func(flags int) {
		fd := open(mine, unix.O_WRONLY|unix.O_APPEND|flags)
		write(fd, mine, one)
		closeFD(fd, mine)
	}
	gone := func(st *unix.Stat_t, there bool) bool { return !there }
	size := func(n int64) func(*unix.Stat_t, bool) bool {
		return func(st *unix.Stat_t, there bool) bool { return there && st.Size == n }
	}
	look(other, gone) // and the absence is in the watcher's cache
	for _, step := range []struct {
		what   string
		res    *Result
		change func()
		seen   func(*unix.Stat_t, bool) bool
	}{
		{"a new file", &res.Create, func() { append1(unix.O_CREAT | unix.O_EXCL) }, size(1)},
		{"a longer file", &res.Write, func() { append1(0) }, size(2)},
		{"a file's end", &res.Delete, func() { unlink(mine, 0) }, gone},
	} {
		time.Sleep(quiet)
		step.change()
		begin := time.Now()
		for !look(other, step.seen) {
			if time.Since(begin) > watchTimeout {
				return fmt.Errorf("change %d: %s does not show %s after %v, but %s", step.res.Ops+1, other, step.what, watchTimeout, describe(other))
			}
			time.Sleep(watchPause)
		}
		took := time.Since(begin)
		step.res.Latency.Add(took)
		step.res.Elapsed += took
		step.res.Ops++
	}
	return nil
}

// look asks for a name and reports whether the answer is the one that is wanted.
func look(p path, wanted func(st *unix.Stat_t, there bool) bool) bool {
	var st unix.Stat_t
	err := unix.Stat(p.String(), &st)
	if err != nil && err != unix.ENOENT {
		panic(failure{fmt.Errorf("stat %s: %w", p, err)})
	}
	return wanted(&st, err == nil)
}

// describe tells what a name shows.
func describe(p path) string {
	var st unix.Stat_t
	if err := unix.Stat(p.String(), &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("a file of %d bytes", st.Size)
}
