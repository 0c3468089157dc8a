package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"pmxcfs/contrib/bench/server"
	"pmxcfs/contrib/bench/tree"
)

// Job is one measurement: one operation by a number of clients on one mount.
type Job struct {
	Op      string        `json:"op"`
	Mount   string        `json:"mount"`
	PID     int           `json:"pid"` // of the process that serves the mount
	Clients int           `json:"clients"`
	Shared  bool          `json:"shared"` // all clients in one directory
	Warm    time.Duration `json:"warm"`   // before the measurement
	Time    time.Duration `json:"time"`   // of the measurement
	Tree    *tree.Shape   `json:"tree"`   // of the mount, for Churn; otherwise nil
	// Every is the time from one operation of a client to its next, whatever it takes; 0:
	// the next follows at once. For operations that use nothing up.
	Every time.Duration `json:"every"`
	// Count has the requests counted that arrive at the mount's server, which costs time.
	Count bool `json:"count"`
	// Least is how many operations there are at least in a round, however long they take; not at intervals.
	Least  int   `json:"least"`
	Others []int `json:"others"` // more processes whose use is wanted: those on other nodes
}

// Result is what a measurement found.
type Result struct {
	Ops     int             `json:"ops"`
	Elapsed time.Duration   `json:"elapsed"`
	Used    server.Counters `json:"used"` // by the serving process
	Latency Histogram       `json:"latency"`
	Longest time.Duration   `json:"longest"`

	Requests server.Requests `json:"requests,omitempty"` // nil: not counted
	Others   server.Counters `json:"others"`             // of the Job's Others, together
}

// PerSecond returns operations per second.
func (r *Result) PerSecond() float64 { return float64(r.Ops) / r.Elapsed.Seconds() }

// Serve reads a Job from r, carries it out and writes its Result to w, both as
// JSON. It is the whole life of a client process.
func Serve(r io.Reader, w io.Writer) error {
	var j Job
	if err := json.NewDecoder(r).Decode(&j); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	res, err := j.run()
	if err != nil {
		return fmt.Errorf("%s: %w", j.Op, err)
	}
	res.Latency.trim()
	return json.NewEncoder(w).Encode(res)
}

func (j *Job) run() (*Result, error) {
	o, err := findOp(j.Op)
	if err != nil {
		return nil, err
	}
	// Paths from the mount on: they are walked in the same time wherever it lies.
	if err := os.Chdir(j.Mount); err != nil {
		return nil, err
	}
	team := newTeam(j)
	defer team.stop()
	if j.Count {
		if team.requests, err = server.CountRequests("."); err != nil {
			return nil, err
		}
		defer team.requests.Close()
	}
	debug.SetGCPercent(-1)
	if o.setup != nil {
		team.all(o.setup)
	}
	if j.Every > 0 && o.batched() {
		return nil, errors.New("it can't be done at intervals")
	}
	if err := team.round(&o, j.Warm, nil); err != nil {
		return nil, err
	}
	for _, w := range team.workers {
		w.longest = 0
		clear(w.hist.Counts)
		w.hist.Total = 0
	}
	var res Result
	for res.Elapsed < j.Time {
		if err := team.round(&o, j.Time-res.Elapsed, &res); err != nil {
			return nil, err
		}
	}
	for _, w := range team.workers {
		res.Latency.Merge(w.hist)
		res.Longest = max(res.Longest, w.longest)
	}
	return &res, nil
}

// team is the clients of a job, each on a thread of its own.
type team struct {
	workers []*worker
	calls   []chan func(*worker)
	pid     int
	others  []int
	every   time.Duration
	least   int

	requests *server.RequestCounter // nil means they are not counted
	phase    sync.WaitGroup         // of what all are doing
	over     sync.WaitGroup
}

func newTeam(j *Job) *team {
	// A thread in a system call keeps its place in the scheduler.
	runtime.GOMAXPROCS(j.Clients + 2)
	t := &team{pid: j.PID, others: j.Others, every: j.Every, least: j.Least}
	for i := range j.Clients {
		w, c := newWorker(".", i, j.Shared), make(chan func(*worker))
		if j.Tree != nil {
			w.prepareChurn(".", i, j.Tree)
		}
		t.workers, t.calls = append(t.workers, w), append(t.calls, c)
		t.over.Go(func() {
			runtime.LockOSThread()
			for f := range c {
				w.guarded(f)
				t.phase.Done()
			}
		})
	}
	return t
}

// all has every worker call f, and waits for them.
func (t *team) all(f func(*worker)) {
	t.phase.Add(len(t.calls))
	for _, c := range t.calls {
		c <- f
	}
	t.phase.Wait()
}

func (t *team) stop() {
	for _, c := range t.calls {
		close(c)
	}
	t.over.Wait()
}

// round measures one batch, or for the time d if the operation has none, and
// adds it to res.
func (t *team) round(o *op, d time.Duration, res *Result) error {
	if d <= 0 {
		return t.err()
	}
	limit := 0
	if o.batched() {
		limit = perBatch
	}
	if o.before != nil {
		t.all(o.before)
	}
	before, err := t.used()
	if err != nil {
		return err
	}
	least := (t.least + len(t.workers) - 1) / len(t.workers)
	start := time.Now()
	t.all(func(w *worker) {
		if t.every > 0 {
			w.measureAt(o, start.Add(d), newPace(start, t.every, w.number, len(t.workers)))
		} else {
			w.measure(o, d, least, limit)
		}
	})
	elapsed := time.Since(start)
	after, err := t.used()
	if err != nil {
		return err
	}
	if res != nil {
		res.Elapsed += elapsed
		res.Used.Add(after.server.Sub(before.server))
		res.Others.Add(after.others.Sub(before.others))
		if t.requests != nil {
			if res.Requests == nil {
				res.Requests = make(server.Requests)
			}
			res.Requests.Add(after.requests.Sub(before.requests))
		}
		for _, w := range t.workers {
			res.Ops += w.done
		}
	}
	if o.after != nil {
		t.all(o.after)
	}
	return t.err()
}

// used is what everybody has used up to a moment.
type used struct {
	server, others server.Counters
	requests       server.Requests
}

func (t *team) used() (u used, err error) {
	for _, pid := range t.others {
		c, err := server.ReadCounters(pid)
		if err != nil {
			return u, err
		}
		u.others.Add(c)
	}
	if t.requests != nil {
		if u.requests, err = t.requests.Read(); err != nil {
			return u, err
		}
	}
	u.server, err = server.ReadCounters(t.pid)
	return u, err
}

func (t *team) err() error {
	for _, w := range t.workers {
		if w.err != nil {
			return w.err
		}
	}
	return nil
}
