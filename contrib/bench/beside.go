package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
	"pmxcfs/contrib/bench/server"
	"pmxcfs/status/ipc"
)

// longer is how many times the usual time is measured where the slowest of many operations
// counts.
const longer = 3

// during has a job carried out beside f, and returns when both have ended.
func during(ctx context.Context, part string, job any, f func() error) (*load.Result, error) {
	var res load.Result
	ended := make(chan error, 1)
	go func() { ended <- measure(ctx, part, job, &res) }()
	err := f()
	return &res, errors.Join(err, <-ended)
}

// beside measures a writer in the mount beside clients that ask for a property of all guests, and
// one on the bare file system beside the same.
func (c *config) beside(ctx context.Context, r *report.Report, subject *server.Server, service string) (err error) {
	bare, err := c.startFloor(filepath.Join(c.dir, "ipc-floor"), []byte("x"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.Stop()) }()
	for _, s := range []*server.Server{subject, bare} {
		if err := load.Prepare(s.Mount, 1); err != nil {
			return err
		}
	}
	all := requests()
	var req request
	for _, x := range all {
		if x.id == ipc.OpGuestProperty {
			req = x
		}
	}
	for _, x := range []struct {
		clients int
		every   time.Duration
	}{{0, 0}, {10, 100 * time.Millisecond}, {1, 0}, {8, 0}} {
		var ours, theirs, asked []*load.Result
		for range c.rounds {
			for _, s := range []*server.Server{subject, bare} {
				var res load.Result
				write := func() error {
					return measure(ctx, partClient, &load.Job{
						Op: "overwrite", Mount: s.Mount, PID: s.PID(), Clients: 1, Warm: c.warm, Time: longer * c.time,
					}, &res)
				}
				if x.clients == 0 {
					err = write()
				} else {
					var q *load.Result
					q, err = during(ctx, partRequests, &load.RequestJob{
						Service: service, PID: subject.PID(), ID: req.id, Data: req.data,
						Clients: x.clients, CPU: -1, Every: x.every, Time: longer*c.time + c.warm,
					}, write)
					if s == subject {
						asked = append(asked, q)
					}
				}
				if err != nil {
					return err
				}
				if s == subject {
					ours = append(ours, &res)
				} else {
					theirs = append(theirs, &res)
				}
			}
		}
		b := report.NewBeside(x.clients, x.every, asked, ours, theirs)
		c.say("overwrite beside %d clients that ask request 11, %.0f/s: p50 %v, p99 %v, longest %v; on the bare file system %v, %v, %v",
			b.Clients, b.Asked, b.Subject.P50, b.Subject.P99, b.Subject.Longest, b.Floor.P50, b.Floor.P99, b.Floor.Longest)
		r.Beside = append(r.Beside, b)
	}
	return nil
}

// pollers is how many clients poll .version.
const pollers = 100

// polling measures what many clients cost that poll .version, by the service and in the mount,
// while it changes. It warms up for long: after the load of the measurements before, the daemon
// gives memory back.
func (c *config) polling(ctx context.Context, r *report.Report, subject *server.Server, service string) error {
	every, change := time.Second, 100*time.Millisecond
	if c.quick {
		every, change = c.time/2, c.time/2
	}
	took := 5 * every
	set := &load.RequestJob{
		Service: service, PID: subject.PID(), ID: ipc.OpSetStatus, Data: append(name256(statusKey), "x"...),
		Clients: 1, CPU: -1, Every: change, Time: 2 * took,
	}
	version := &load.RequestJob{
		Service: service, PID: subject.PID(), ID: ipc.OpVersion,
		Clients: pollers, CPU: -1, Every: every, Warm: took, Time: took,
	}
	read := &load.Job{
		Op: "read-version", Mount: subject.Mount, PID: subject.PID(),
		Clients: pollers, Every: every, Warm: took, Time: took,
	}
	for _, x := range []struct {
		by, part string
		job      any
	}{{"request 1", partRequests, version}, {"the mount", partClient, read}} {
		var res load.Result
		if _, err := during(ctx, partRequests, set, func() error { return measure(ctx, x.part, x.job, &res) }); err != nil {
			return err
		}
		p := report.NewPolling(x.by, pollers, &res)
		c.say("%d clients poll .version by %s, %.0f/s: %.2f %% of a processor", p.Clients, p.By, p.PerSecond, 100*p.CPU)
		r.Polling = append(r.Polling, p)
	}
	return nil
}
