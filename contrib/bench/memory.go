package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
	"pmxcfs/contrib/bench/server"
	"pmxcfs/contrib/bench/tree"
	"pmxcfs/memdb/sqlite"
)

const (
	starts       = 5 // of which the median counts
	churnClients = 8
)

// shapes are the trees whose memory is looked at.
func (c *config) shapes() []tree.Shape {
	if c.quick {
		return []tree.Shape{
			{Name: "100 guests", Files: 100, Size: load.Small, Dirs: 3, Guest: true},
			{Name: "4 × 1 MiB", Files: 4, Size: 1 << 20, Dirs: 2},
		}
	}
	return []tree.Shape{
		{Name: "an empty tree"},
		{Name: report.Guests, Files: 10_000, Size: load.Small, Dirs: 3, Guest: true},
		{Name: "128 × 1 MiB", Files: 128, Size: 1 << 20, Dirs: 8},
		{Name: "16,384 × 8 KiB", Files: 16_384, Size: 8 << 10, Dirs: 64},
		{Name: "131,072 × 1 KiB", Files: 131_072, Size: 1 << 10, Dirs: 256},
	}
}

// memoryOfTrees measures start-up time and memory with each shape of tree.
func (c *config) memoryOfTrees(ctx context.Context, r *report.Report) error {
	for _, shape := range c.shapes() {
		if !strings.Contains(shape.Name, c.trees) {
			continue
		}
		if err := c.oneTree(ctx, r, &shape); err != nil {
			return fmt.Errorf("%s: %w", shape.Name, err)
		}
	}
	return nil
}

func (c *config) oneTree(ctx context.Context, r *report.Report, shape *tree.Shape) (err error) {
	root := filepath.Join(c.dir, "tree")
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	file := filepath.Join(root, database)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if shape.Files > 0 {
		if err := sqlite.Create(file, shape.Entries()); err != nil {
			return err
		}
	}
	var took []time.Duration
	var s *server.Server
	for i := range starts {
		var t time.Duration
		if s, t, err = c.startDaemon(root); err != nil {
			return err
		}
		if took = append(took, t); i == starts-1 || c.quick {
			break
		}
		if err := s.Stop(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	start := report.NewStart(shape.Name, took)
	r.Start = append(r.Start, start)
	c.say("%s: started in %v", shape.Name, start.Median)
	if shape.Files == 0 {
		return nil
	}
	t := report.Tree{Name: shape.Name, Content: int64(shape.Files) * int64(shape.Size), Entries: shape.Count()}
	stage := func(m *server.Memory) {
		if err == nil {
			*m, err = server.ReadMemory(s.PID())
		}
	}
	stage(&t.Mounted)
	c.wait(ctx)
	stage(&t.Idle)
	if err != nil {
		return err
	}
	var res load.Result
	if err := measure(ctx, partClient, &load.Job{
		Op: load.Churn, Mount: s.Mount, PID: s.PID(), Clients: churnClients, Time: c.writes, Tree: shape,
	}, &res); err != nil {
		return err
	}
	t.Writing, t.Writes = res.Elapsed, res.Ops
	stage(&t.Busy)
	c.wait(ctx)
	stage(&t.After)
	if err != nil {
		return err
	}
	const miB = 1 << 20
	c.say("%s: %d MiB mounted, %d idle, %d after %d writes, %d idle again, peak %d", shape.Name,
		t.Mounted.Resident/miB, t.Idle.Resident/miB, t.Busy.Resident/miB, t.Writes, t.After.Resident/miB, t.After.Peak/miB)
	r.Memory = append(r.Memory, t)
	return ctx.Err()
}

// wait lets the daemon be idle for a while.
func (c *config) wait(ctx context.Context) {
	select {
	case <-time.After(c.idle):
	case <-ctx.Done():
	}
}
