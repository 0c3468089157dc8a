package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pmxcfs/contrib/bench/cluster"
	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
	"pmxcfs/contrib/bench/server"
	"pmxcfs/contrib/bench/tree"
	"pmxcfs/memdb"
)

// joinSizes are how many entries the tree has that an empty node takes over.
func (c *config) joinSizes() []int {
	if c.quick {
		return []int{200}
	}
	return []int{1_000, 10_000, 100_000}
}

// readFiles is how many files are read in turn during a join.
const readFiles = 16

// joins measures how long an empty node takes to catch up, and the longest read on
// another node meanwhile, beside that of the bare file system on the same machine.
func (c *config) joins(ctx context.Context, cl *cluster.Cluster, r *report.Report) error {
	for _, n := range cl.Nodes {
		if err := n.Stop(); err != nil {
			return err
		}
	}
	for _, entries := range c.joinSizes() {
		j, err := c.join(ctx, cl, entries)
		if err != nil {
			return fmt.Errorf("joining %d entries: %w", entries, err)
		}
		c.say("join, %d entries: %v; longest read %v, on the bare file system %v", entries, j.Median, j.LongestRead, j.FloorRead)
		r.Joins = append(r.Joins, j)
	}
	return nil
}

func (c *config) join(ctx context.Context, cl *cluster.Cluster, entries int) (j report.Join, err error) {
	const perDir = 100
	shape := tree.Shape{Name: "join", Size: load.Small, Dirs: max(1, entries/perDir)}
	shape.Files = entries - shape.Dirs - 3 // the root, the directory of directories, corosync.conf
	list := shape.Entries()
	list = append(list, cl.Entry(list[len(list)-1].Inode+1))
	list[0] = memdb.NewEntry(memdb.RootInode, memdb.RootInode, list[len(list)-1].Version+1, 1, 1700000000, memdb.TypeDir, "", nil)
	others, joiner := cl.Nodes[:clusterHosts-1], cl.Nodes[clusterHosts-1]
	for _, n := range others {
		if err := n.SetDatabase(list); err != nil {
			return j, err
		}
		if err := n.Start(ctx, c.daemon); err != nil {
			return j, err
		}
		defer func() { err = errors.Join(err, n.Stop()) }()
	}
	if err := cluster.Together(ctx, others...); err != nil {
		return j, err
	}
	j.Entries = len(list)
	for range c.rounds {
		took, ours, floors, err := c.joinOnce(ctx, others[1], joiner, &shape)
		if err != nil {
			return j, err
		}
		j.Took = append(j.Took, took)
		j.Reads.Merge(ours.Reads.Latency)
		j.LongestRead = max(j.LongestRead, ours.Longest)
		j.FloorRead = max(j.FloorRead, floors.Longest)
		if err := cluster.Together(ctx, others...); err != nil { // as long as the joiner is seen to leave
			return j, err
		}
	}
	j.Sum()
	return j, nil
}

// joinOnce has the joiner join, without a database, while the files are read on the
// node's mount and on the bare file system.
func (c *config) joinOnce(ctx context.Context, node, joiner *cluster.Node, shape *tree.Shape) (took time.Duration, ours, floors load.ReadResult, err error) {
	dir := filepath.Join(c.dir, "joinfloor")
	bare, err := c.startFloor(dir, []byte("x"))
	if err != nil {
		return took, ours, floors, err
	}
	defer func() { err = errors.Join(err, bare.Stop()) }()
	var onNode, onFloor []string
	for i := range min(readFiles, shape.Files) {
		onNode = append(onNode, node.Path(shape.Path(i)))
		f := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(f, tree.Content(load.Small), 0o640); err != nil {
			return took, ours, floors, err
		}
		onFloor = append(onFloor, f)
	}
	r1, err := startReader(onNode)
	if err != nil {
		return took, ours, floors, err
	}
	r2, err := startReader(onFloor)
	if err != nil {
		_, serr := r1.Stop()
		return took, ours, floors, errors.Join(err, serr)
	}
	took, err = c.joinDaemon(ctx, joiner)
	err = errors.Join(err, stopReader(r1, &ours), stopReader(r2, &floors), joiner.Stop())
	return took, ours, floors, err
}

func (c *config) joinDaemon(ctx context.Context, joiner *cluster.Node) (time.Duration, error) {
	if err := joiner.SetDatabase(nil); err != nil {
		return 0, err
	}
	if err := joiner.Start(ctx, c.daemon); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	took, err := joiner.Log.WaitSynced(ctx, clusterHosts)
	if err != nil {
		return 0, fmt.Errorf("%w; its log:\n%s", err, joiner.Log)
	}
	return took, nil
}

// startReader starts a process that carries out a load.ReadJob, and returns when it is
// at work.
func startReader(files []string) (*server.Helper, error) {
	job, err := json.Marshal(&load.ReadJob{Files: files})
	if err != nil {
		return nil, err
	}
	return server.StartHelper(append(job, '\n'), self, partReader)
}

// stopReader ends it and reads what it has found.
func stopReader(h *server.Helper, into *load.ReadResult) error {
	out, err := h.Stop()
	if err != nil {
		return err
	}
	return json.Unmarshal(out, into)
}
