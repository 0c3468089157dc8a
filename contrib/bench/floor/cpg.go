package floor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/server"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cpg"
)

// cpgGroup is the name of the process group of the bare members.
const cpgGroup = "bench_floor"

// CPGJob is one measurement of bare messages.
type CPGJob struct {
	Members     int           `json:"members"`     // of the group, this process included
	Outstanding int           `json:"outstanding"` // messages in flight, each waited for by a sender of its own
	Size        int           `json:"size"`        // of a message, in bytes
	Warm        time.Duration `json:"warm"`
	Time        time.Duration `json:"time"`
}

// ServeCPG is a member that receives and drops all messages, until ctx is done.
func ServeCPG(ctx context.Context) error {
	c, err := joinCPG(1)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	var events []cpg.Event
	for err == nil {
		clear(events)
		events, err = c.Next(events[:0], cpg.Forever)
	}
	if errors.Is(err, corosync.ErrClosed) {
		return nil
	}
	return errors.Join(err, c.Close())
}

// RunCPG reads a CPGJob from r, carries it out and writes a load.Result to w, both as
// JSON. An operation is a message, from the call that sends it until its sender runs
// again, the message having come back in the group's order.
func RunCPG(r io.Reader, w io.Writer) error {
	var j CPGJob
	if err := json.NewDecoder(r).Decode(&j); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	if j.Outstanding < 1 || j.Outstanding > 256 || j.Size < 1 {
		return fmt.Errorf("%d messages of %d bytes in flight", j.Outstanding, j.Size)
	}
	// A daemon has a heap. With next to none, the collector would run every few
	// messages of 512 KiB.
	heap := make([]byte, 64<<20)
	defer runtime.KeepAlive(heap)
	conn, err := joinCPG(j.Members)
	if err != nil {
		return err
	}
	d := newCPGDriver(conn, &j)
	if _, err = d.measure(j.Warm); err != nil {
		return errors.Join(err, d.close())
	}
	res, err := d.measure(j.Time)
	if err := errors.Join(err, d.close()); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(res)
}

// joinTimeout is how long joining a group may take.
const joinTimeout = time.Minute

// joinCPG connects, joins, and waits until the group has that many members.
func joinCPG(members int) (*cpg.Conn, error) {
	c, err := cpg.Open()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*cpg.Conn, error) { return nil, errors.Join(err, c.Close()) }
	deadline := time.Now().Add(joinTimeout)
	for err = c.Join(cpgGroup); errors.Is(err, corosync.ErrTryAgain) && time.Now().Before(deadline); err = c.Join(cpgGroup) {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		return fail(err)
	}
	for n := 0; n < members; {
		events, err := c.Next(nil, time.Until(deadline))
		if err != nil {
			return fail(err)
		}
		for _, e := range events {
			if e.Change != nil {
				n = len(e.Change.Members)
			}
		}
		if n < members && !time.Now().Before(deadline) {
			return fail(fmt.Errorf("%d members in the group, not %d", n, members))
		}
	}
	return c, nil
}

// cpgDriver is one member with its senders: one goroutine owns the connection,
// receives, and wakes those that wait. A lone sender calls the library itself; of
// several, each leaves its message to the owner, which then is about twice as fast:
// nobody contends for the connection.
type cpgDriver struct {
	conn    *cpg.Conn
	job     *CPGJob
	waiters []chan struct{}
	ended   chan struct{}
	err     error // of the owner, once ended

	mu    sync.Mutex // guards queue
	queue [][]byte   // to be sent by the owner
}

func newCPGDriver(conn *cpg.Conn, j *CPGJob) *cpgDriver {
	d := &cpgDriver{conn: conn, job: j, ended: make(chan struct{})}
	for range j.Outstanding {
		d.waiters = append(d.waiters, make(chan struct{}, 1))
	}
	go d.own()
	return d
}

func (d *cpgDriver) close() error {
	err := d.conn.Close()
	<-d.ended
	if !errors.Is(d.err, corosync.ErrClosed) {
		err = errors.Join(err, d.err)
	}
	return err
}

func (d *cpgDriver) own() {
	defer close(d.ended)
	var events []cpg.Event
	var out [][]byte
	for {
		clear(events)
		if events, d.err = d.conn.Next(events[:0], cpg.Forever); d.err != nil {
			return
		}
		for _, e := range events {
			if e.Change == nil {
				d.waiters[e.Data[0]] <- struct{}{}
			}
		}
		d.mu.Lock()
		out, d.queue = d.queue, out[:0]
		d.mu.Unlock()
		for _, msg := range out {
			if d.err = d.send(msg); d.err != nil {
				return
			}
		}
	}
}

func (d *cpgDriver) send(msg []byte) error {
	for {
		err := d.conn.Mcast(msg)
		if !errors.Is(err, corosync.ErrTryAgain) {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// measure has all senders send, one message after the other, until the time is over.
func (d *cpgDriver) measure(limit time.Duration) (*load.Result, error) {
	results := make([]load.Result, d.job.Outstanding)
	errs := make([]error, d.job.Outstanding)
	before, err := server.ReadCounters(os.Getpid())
	if err != nil {
		return nil, err
	}
	start := time.Now()
	var senders sync.WaitGroup
	for i := range d.job.Outstanding {
		senders.Go(func() { errs[i] = d.sender(i, start, limit, &results[i]) })
	}
	senders.Wait()
	res := &load.Result{Elapsed: time.Since(start)}
	after, err := server.ReadCounters(os.Getpid())
	res.Used = after.Sub(before)
	for _, r := range results {
		res.Ops += r.Ops
		res.Latency.Merge(r.Latency)
	}
	return res, errors.Join(append(errs, err)...)
}

func (d *cpgDriver) sender(i int, start time.Time, limit time.Duration, res *load.Result) error {
	msg := make([]byte, d.job.Size)
	msg[0] = byte(i)
	last := time.Since(start)
	for last < limit || res.Ops == 0 { // it may come to run late
		if d.job.Outstanding == 1 {
			if err := d.send(msg); err != nil {
				return err
			}
		} else {
			d.mu.Lock()
			d.queue = append(d.queue, msg)
			d.mu.Unlock()
			d.conn.Wake()
		}
		select {
		case <-d.waiters[i]:
		case <-d.ended:
			return fmt.Errorf("the connection is gone: %w", d.err)
		}
		now := time.Since(start)
		res.Latency.Add(now - last)
		last = now
		res.Ops++
	}
	return nil
}
