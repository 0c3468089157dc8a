package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"pmxcfs/contrib/bench/cluster"
	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
	"pmxcfs/contrib/bench/server"
)

// contender is a mount that is measured beside another one.
type contender struct {
	name      string
	mount     string
	pid       int
	followers []int // daemons on other nodes
}

// besideRival measures the local operations on two hosts, one of which runs the daemon and the other
// one another program. Neither is told more than to stay in the foreground, and alone.
func (c *config) besideRival(ctx context.Context, r *report.Report) (err error) {
	var both []*contender
	for _, program := range []string{c.daemon, c.rival} {
		dir, err := c.labDir(len(both))
		if err != nil {
			return err
		}
		hosts, err := cluster.Apart(1, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, hosts.Down()) }()
		n := hosts.Nodes[0]
		if err := n.Start(ctx, program, "-l"); err != nil {
			return err
		}
		both = append(both, &contender{name: program, mount: n.Path(""), pid: n.MachinePID()})
	}
	return c.contest(ctx, r, 1, c.ops, both)
}

// besideRivalInCluster does the same with two clusters, beside each other.
func (c *config) besideRivalInCluster(ctx context.Context, r *report.Report) (err error) {
	var both []*contender
	for _, program := range []string{c.daemon, c.rival} {
		dir, err := c.labDir(len(both))
		if err != nil {
			return err
		}
		cl, err := cluster.Up(ctx, clusterHosts, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cl.Down()) }()
		x := &contender{name: program, mount: cl.Nodes[0].Path("")}
		for i, n := range cl.Nodes {
			if err := n.Start(ctx, program); err != nil {
				return err
			}
			if i == 0 {
				if err := cluster.Share(ctx, n); err != nil { // it has quorum
					return err
				}
				x.pid = n.MachinePID()
			} else {
				x.followers = append(x.followers, n.MachinePID())
			}
		}
		if err := cluster.Share(ctx, cl.Nodes...); err != nil {
			return err
		}
		both = append(both, x)
	}
	return c.contest(ctx, r, clusterHosts, c.ops, both)
}

// labDir makes a directory for the hosts of a contender.
func (c *config) labDir(i int) (string, error) {
	dir := filepath.Join(c.dir, fmt.Sprintf("hosts-%d", i))
	return dir, os.MkdirAll(dir, 0o755)
}

// contest measures operations on two mounts by turns.
func (c *config) contest(ctx context.Context, r *report.Report, nodes int, ops []string, both []*contender) error {
	for _, x := range both {
		if err := load.Prepare(x.mount, slices.Max(c.clients)); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	countable := true
	if counter, err := server.CountRequests(both[0].mount); err == nil {
		counter.Close()
	} else if server.Uncountable(err) {
		c.say("%v: they are left out", err)
		countable = false
	} else {
		return err
	}
	for _, name := range ops {
		for _, clients := range c.clients {
			var results [2][]*load.Result
			for round := range c.rounds {
				for i := range both {
					at := (i + round) % 2
					res, err := c.bout(ctx, name, clients, both[at], false)
					if err != nil {
						return err
					}
					results[at] = append(results[at], res)
				}
			}
			var counted [2]*load.Result
			for i := 0; countable && i < 2; i++ {
				var err error
				if counted[i], err = c.bout(ctx, name, clients, both[i], true); err != nil {
					return err
				}
			}
			a := report.CompareAgainst(nodes, name, clients, results[0], results[1], counted)
			c.say("%d nodes: %-12s %d: %8.0f/s, other %8.0f/s, ratio %.2f, p50 %.2f, CPU %.2f", nodes, name, clients,
				a.Subject.PerSecond, a.Other.PerSecond, a.Rate.Median, a.P50.Median, a.CPU.Median)
			r.Against = append(r.Against, a)
		}
	}
	return nil
}

// bout measures one operation on one mount once.
func (c *config) bout(ctx context.Context, name string, clients int, x *contender, count bool) (*load.Result, error) {
	j := &load.Job{
		Op: name, Mount: x.mount, PID: x.pid, Others: x.followers, Clients: clients, Shared: c.shared, Warm: c.warm, Time: c.time, Count: count,
	}
	if count {
		// Of the first and the last operation some requests lie outside.
		j.Time, j.Least = min(j.Time, c.time/4), 50
	}
	var res load.Result
	if err := measure(ctx, partClient, j, &res); err != nil {
		return nil, fmt.Errorf("%s: %w", x.name, err)
	}
	return &res, nil
}
