package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pmxcfs/contrib/bench/cluster"
	"pmxcfs/contrib/bench/floor"
	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
	"pmxcfs/contrib/lab"
)

// clusterHosts is how many hosts the measured cluster has.
const clusterHosts = 3

// clusterOps are the operations that are measured in a cluster.
var clusterOps = []string{"create", "overwrite", "temp-rename", "mkdir-rmdir", "512K-in-4K", "512K-in-1", "delete"}

// messageSize is the size in bytes of the bare message that an operation stands
// beside.
func messageSize(op string) int {
	if op == "512K-in-1" {
		return 512 << 10
	}
	return 100
}

// inCluster measures what is to be measured in a cluster.
func (c *config) inCluster(ctx context.Context, r *report.Report) (err error) {
	cl, err := cluster.Up(ctx, clusterHosts, c.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Down()) }()
	if c.has(partCluster) || c.has(partVisible) {
		if err := c.startAll(ctx, cl); err != nil {
			return err
		}
		if err := load.Prepare(cl.Nodes[0].Path(""), max(slices.Max(c.clients), churnClients)); err != nil {
			return err
		}
	}
	if c.has(partCluster) {
		if err := c.clusterOperations(ctx, cl, r); err != nil {
			return err
		}
	}
	if c.has(partVisible) {
		if err := c.visibility(ctx, cl, r); err != nil {
			return err
		}
	}
	if c.has(partJoin) {
		return c.joins(ctx, cl, r)
	}
	return nil
}

// startAll starts a daemon on each host, the first one before the others, and waits
// until they have found each other.
func (c *config) startAll(ctx context.Context, cl *cluster.Cluster) error {
	for i, n := range cl.Nodes {
		if err := n.Start(ctx, c.daemon); err != nil {
			return err
		}
		if i == 0 {
			if err := cluster.Together(ctx, n); err != nil {
				return err
			}
		}
	}
	return cluster.Together(ctx, cl.Nodes...)
}

// clusterOperations measures operations on the first host's mount, and bare messages
// from that host to a group of as many members.
func (c *config) clusterOperations(ctx context.Context, cl *cluster.Cluster, r *report.Report) (err error) {
	for _, n := range cl.Nodes[1:] {
		p, err := n.Host.Start(lab.Spec{Args: []string{c.self, partMember}})
		if err != nil {
			return err
		}
		defer func() {
			err = errors.Join(err, p.Stop(os.Interrupt, time.Minute))
		}()
	}
	for _, name := range clusterOps {
		if !slices.Contains(c.ops, name) {
			continue
		}
		ops, err := c.clusterOperation(ctx, cl.Nodes[0], name)
		if err != nil {
			return err
		}
		for _, o := range ops {
			c.say("cluster: %-12s %d: %8.0f/s, bare messages %8.0f/s: %.2f times as long", name, o.Clients, o.Subject.PerSecond, o.Floor.PerSecond, o.Times)
		}
		r.Cluster = append(r.Cluster, ops...)
	}
	return nil
}

// clusterOperation measures one operation with each number of clients in every round,
// so that their rates can be compared, too.
func (c *config) clusterOperation(ctx context.Context, n *cluster.Node, name string) ([]report.ClusterOp, error) {
	subject := make(map[int][]*load.Result)
	bare := make(map[int][]*load.Result)
	for range c.rounds {
		for _, clients := range c.clients {
			var s, f load.Result
			if err := n.Run(ctx, []string{c.self, partClient}, &load.Job{
				Op: name, Mount: cluster.Mount, PID: n.PID(), Clients: clients, Shared: c.shared, Warm: c.warm, Time: c.time,
			}, &s); err != nil {
				return nil, err
			}
			if err := n.Run(ctx, []string{c.self, partMessages}, &floor.CPGJob{
				Members: clusterHosts, Outstanding: clients, Size: messageSize(name), Warm: c.warm, Time: c.time,
			}, &f); err != nil {
				return nil, err
			}
			subject[clients] = append(subject[clients], &s)
			bare[clients] = append(bare[clients], &f)
		}
	}
	var ops []report.ClusterOp
	for _, clients := range c.clients {
		ops = append(ops, report.CompareCluster(name, clients, messageSize(name), subject[clients], bare[clients], subject[1]))
	}
	return ops, nil
}

// visibility measures when changes on the first host show on the second, alone and
// beside writers on the first.
func (c *config) visibility(ctx context.Context, cl *cluster.Cluster, r *report.Report) error {
	writer, watcher := cl.Nodes[0], cl.Nodes[1]
	for _, writers := range []int{0, churnClients} {
		writing, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		if writers > 0 {
			go func() {
				var res load.Result
				ended <- writer.Run(writing, []string{c.self, partClient}, &load.Job{
					Op: "overwrite", Mount: cluster.Mount, PID: writer.PID(), Clients: writers, Time: time.Hour,
				}, &res)
			}()
		} else {
			ended <- context.Canceled
		}
		var res load.VisibleResult
		err := measure(ctx, partSeen, &load.VisibleJob{
			Writer: writer.Path(load.Dir), Watcher: watcher.Path(load.Dir), Time: time.Duration(c.rounds) * c.time,
		}, &res)
		stop()
		if werr := <-ended; !errors.Is(werr, context.Canceled) {
			err = errors.Join(err, werr)
		}
		if err != nil {
			return err
		}
		for _, x := range []struct {
			change string
			res    *load.Result
		}{{"create", &res.Create}, {"write", &res.Write}, {"delete", &res.Delete}} {
			v := report.NewVisible(x.change, writers, x.res)
			c.say("visible on another node, %s, %d writers: p50 %v, p99 %v", v.Change, v.Writers, v.P50, v.P99)
			r.Visible = append(r.Visible, v)
		}
	}
	return nil
}

// selfPath is a path of this program that is good on a host, too.
func selfPath() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(exe)
}
