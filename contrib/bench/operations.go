package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pmxcfs/contrib/bench/floor"
	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
	"pmxcfs/contrib/bench/server"
)

// operations measures all operations on the daemon and the bare file system.
func (c *config) operations(ctx context.Context, r *report.Report) (err error) {
	subject, _, err := c.startDaemon(filepath.Join(c.dir, "daemon"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, subject.Stop()) }()
	version, err := os.ReadFile(filepath.Join(subject.Mount, ".version"))
	if err != nil {
		return err
	}
	var bare *server.Server
	if c.against == "" {
		bare, err = c.startFloor(filepath.Join(c.dir, "floor", mountPoint), version) // paths as long as the daemon's
	} else {
		bare, _, err = c.startDaemon(filepath.Join(c.dir, "second"), strings.Fields(c.against)...)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.Stop()) }()
	for _, s := range []*server.Server{subject, bare} {
		if err := load.Prepare(s.Mount, slices.Max(c.clients)); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	for _, name := range c.ops {
		for _, clients := range c.clients {
			op, err := c.compare(ctx, name, clients, subject, bare)
			if err != nil {
				return err
			}
			c.say("%-12s %d: %8.0f/s, floor %8.0f/s, ratio %.2f", name, clients, op.Subject.PerSecond, op.Floor.PerSecond, op.Ratio)
			r.Ops = append(r.Ops, op)
		}
	}
	return nil
}

// compare measures one operation in rounds, in each of which both servers take
// their turn, now one first and now the other.
func (c *config) compare(ctx context.Context, name string, clients int, subject, bare *server.Server) (report.Op, error) {
	results, err := c.inTurn(ctx, name, clients, subject, bare)
	if err != nil {
		return report.Op{}, err
	}
	return report.Compare(name, clients, results[0], results[1]), nil
}

// inTurn measures one operation on several servers in rounds, the order of which changes.
func (c *config) inTurn(ctx context.Context, name string, clients int, servers ...*server.Server) ([][]*load.Result, error) {
	results := make([][]*load.Result, len(servers))
	for round := range c.rounds {
		for i := range servers {
			at := (i + round) % len(servers)
			if round/len(servers)%2 == 1 {
				at = len(servers) - 1 - at
			}
			s := servers[at]
			var res load.Result
			if err := measure(ctx, partClient, &load.Job{
				Op: name, Mount: s.Mount, PID: s.PID(), Clients: clients, Shared: c.shared, Warm: c.warm, Time: c.time,
			}, &res); err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			results[at] = append(results[at], &res)
		}
	}
	return results, nil
}

// A difference of a hundredth shows only over many rounds, and over many daemons: where one's memory
// happens to lie makes as much of a difference for as long as it runs.
const (
	costStarts = 4 // times as many starts as there are rounds elsewhere
	costRounds = 3 // of each start
)

// metricsCost measures two daemons beside two that observe nothing, again and again with new ones. How
// the two that observe nothing differ is the measurement's own doing.
func (c *config) metricsCost(ctx context.Context, r *report.Report) error {
	short := *c
	short.time, short.warm, short.rounds = c.time/4, c.warm/4, costRounds
	starts := costStarts * c.rounds
	if c.quick {
		starts, short.rounds = 1, 1
	}
	results := make(map[string][]report.CostStart)
	for start := range starts {
		if err := short.costOfOneStart(ctx, start, results); err != nil {
			return err
		}
	}
	for _, name := range report.CostOps {
		if starts := results[name]; starts != nil {
			cost := report.CompareCost(name, starts)
			c.say("%-12s with metrics: %8.0f/s, without %8.0f/s, ratio %.3f ± %.3f; of two without %.3f", name, cost.Subject.PerSecond, cost.Floor.PerSecond, cost.Ratio, cost.Error, cost.Control)
			r.Metrics = append(r.Metrics, cost)
		}
	}
	return nil
}

// costOfOneStart adds the results of four daemons. Either kind's start first and last, or second and
// third, by turns: the order makes a difference, too.
func (c *config) costOfOneStart(ctx context.Context, start int, results map[string][]report.CostStart) (err error) {
	with, without := [2]int{0, 3}, [2]int{1, 2}
	if start%2 == 1 {
		with, without = without, with
	}
	var servers []*server.Server
	for i := range 4 {
		var options []string
		if slices.Contains(without[:], i) {
			options = append(options, "--no-metrics")
		}
		s, _, err := c.startDaemon(filepath.Join(c.dir, fmt.Sprintf("metrics-%d-%d", start, i)), options...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
		if err := load.Prepare(s.Mount, 1); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		servers = append(servers, s)
	}
	for _, name := range report.CostOps {
		if !slices.Contains(c.ops, name) {
			continue
		}
		more, err := c.inTurn(ctx, name, 1, servers...)
		if err != nil {
			return err
		}
		results[name] = append(results[name], report.CostStart{
			With:    [2][]*load.Result{more[with[0]], more[with[1]]},
			Without: [2][]*load.Result{more[without[0]], more[without[1]]},
		})
	}
	return nil
}

// transactions measures bare SQLite.
func (c *config) transactions(ctx context.Context, r *report.Report) error {
	for _, x := range []report.Transaction{{Batch: 1, Size: load.Small}, {Batch: 8, Size: load.Small}, {Batch: 1, Size: 512 << 10}} {
		var rounds []*load.Result
		for i := range c.rounds {
			dir := filepath.Join(c.dir, fmt.Sprintf("sqlite-%d-%d-%d", x.Batch, x.Size, i))
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			var res load.Result
			if err := measure(ctx, partSQLite, &floor.SQLiteJob{
				File: filepath.Join(dir, "config.db"), Batch: x.Batch, Size: x.Size, Warm: c.warm, Time: c.time,
			}, &res); err != nil {
				return err
			}
			rounds = append(rounds, &res)
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		x.Figures = report.FiguresOf(rounds)
		c.say("SQLite %d × %d B: %.0f rows/s", x.Batch, x.Size, x.Figures.PerSecond)
		r.SQLite = append(r.SQLite, x)
	}
	return nil
}
