package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/lab"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// Mount is where the daemons mount, on their hosts.
const Mount = "/etc/pve"

// startTimeout is how long hosts may take to be quorate, and daemons to find each
// other: generous, for a busy machine.
const startTimeout = time.Minute

// Cluster is hosts with a corosync each.
type Cluster struct {
	lab   *lab.Lab
	Nodes []*Node // node1 first
}

// Node is a host.
type Node struct {
	Host   *lab.Host
	daemon *lab.Process // nil means none
	Log    *Log         // the daemon's
}

// Up brings up n hosts below the directory dir, quorate, without daemons. The caller
// owes a Down. corosync has no real-time priority there: the hosts share processors.
func Up(ctx context.Context, n int, dir string) (*Cluster, error) {
	// Nothing fails there, and on a machine that is too busy for a second nothing is to seem so.
	l, err := lab.Up(lab.Options{Hosts: n, Dir: dir, Fair: true, Token: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	c := newCluster(l)
	var ids []int
	for _, n := range c.Nodes {
		ids = append(ids, n.Host.ID())
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err = l.WaitMembers(ctx, ids...); err == nil {
		err = l.WaitQuorum(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Down())
	}
	return c, nil
}

// Apart brings up n hosts below the directory dir, each by itself, without corosync. The
// caller owes a Down.
func Apart(n int, dir string) (*Cluster, error) {
	l, err := lab.Up(lab.Options{Hosts: n, Dir: dir, NoCorosync: true})
	if err != nil {
		return nil, err
	}
	return newCluster(l), nil
}

func newCluster(l *lab.Lab) *Cluster {
	c := &Cluster{lab: l}
	for _, h := range l.Hosts() {
		c.Nodes = append(c.Nodes, &Node{Host: h})
	}
	return c
}

// Down ends daemons and hosts.
func (c *Cluster) Down() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Stop())
	}
	return errors.Join(append(errs, c.lab.Down())...)
}

// Entry returns corosync.conf as an entry of the root.
func (c *Cluster) Entry(inode uint64) *memdb.Entry {
	return memdb.NewEntry(inode, memdb.RootInode, inode, 1, 1700000000, memdb.TypeFile, "corosync.conf", []byte(c.lab.Conf().String()))
}

// Together waits until the daemons of these nodes are one group, all with the same data.
func Together(ctx context.Context, nodes ...*Node) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, n := range nodes {
		if _, err := n.Log.WaitSynced(ctx, len(nodes)); err != nil {
			return fmt.Errorf("%s: %w; its log:\n%s", n.Host.Name(), err, n.Log)
		}
	}
	return nil
}

// Share waits until changes on each of these nodes show on all of them, whatever daemons
// they run.
func Share(ctx context.Context, nodes ...*Node) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, writer := range nodes {
		name := "there-is-" + writer.Host.Name()
		if err := eventually(ctx, func() error { return os.WriteFile(writer.Path(name), []byte("x"), 0o640) }); err != nil {
			return fmt.Errorf("%s: %w; its log:\n%s", writer.Host.Name(), err, writer.Log)
		}
		for _, n := range nodes {
			if err := eventually(ctx, func() error { _, err := os.Stat(n.Path(name)); return err }); err != nil {
				return fmt.Errorf("%s: a file of %s does not show: %w; its log:\n%s", n.Host.Name(), writer.Host.Name(), err, n.Log)
			}
		}
		if err := os.Remove(writer.Path(name)); err != nil {
			return err
		}
	}
	return nil
}

// eventually calls f until it succeeds or ctx is over.
func eventually(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Path gives the path, seen from this process, of a file in the node's mount.
func (n *Node) Path(name string) string { return n.Host.Path(filepath.Join(Mount, name)) }

// databaseDir is, on this machine, the directory of the node's database.
func (n *Node) databaseDir() string { return filepath.Join(n.Host.Dir(), "pve-cluster") }

// SetDatabase replaces the node's database, whose daemon must not run, by one with
// these entries; none: by nothing.
func (n *Node) SetDatabase(entries []*memdb.Entry) error {
	old, err := filepath.Glob(filepath.Join(n.databaseDir(), "config.db*"))
	for _, f := range old {
		err = errors.Join(err, os.Remove(f))
	}
	if err != nil || len(entries) == 0 {
		return err
	}
	return sqlite.Create(filepath.Join(n.databaseDir(), "config.db"), entries)
}

// Start starts the daemon and returns when its mount is there.
func (n *Node) Start(ctx context.Context, program string, options ...string) error {
	n.Log = newLog()
	p, err := n.Host.Start(lab.Spec{Args: append([]string{program, "-f"}, options...), Stdout: n.Log, Stderr: n.Log})
	if err != nil {
		return err
	}
	n.daemon = p
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		_, err := os.Stat(n.Path(".version"))
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", n.Host.Name(), err)
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s: the daemon ended: %v; its log:\n%s", n.Host.Name(), p.Wait(), n.Log)
		case <-ctx.Done():
			return fmt.Errorf("%s: not mounted: %w; its log:\n%s", n.Host.Name(), ctx.Err(), n.Log)
		case <-poll.C:
		}
	}
}

// PID is the daemon's process id on its host.
func (n *Node) PID() int { return n.daemon.HostPid() }

// MachinePID is the same as this process sees it.
func (n *Node) MachinePID() int { return n.daemon.Pid() }

// stopTimeout is how long a daemon may take to end.
const stopTimeout = time.Minute

// Stop ends the daemon, if it runs.
func (n *Node) Stop() error {
	if n.daemon == nil {
		return nil
	}
	p := n.daemon
	n.daemon = nil
	err := p.Stop(unix.SIGTERM, stopTimeout)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: the daemon: %w; its log:\n%s", n.Host.Name(), err, n.Log)
	}
	return nil
}

// Run has a program on the node's host carry out a job, which goes to its standard
// input as JSON, and reads the result from its standard output.
func (n *Node) Run(ctx context.Context, args []string, job, result any) error {
	in, err := json.Marshal(job)
	if err != nil {
		return err
	}
	var out, complaint bytes.Buffer
	p, err := n.Host.Start(lab.Spec{
		Args: args, Env: []string{"GODEBUG=asyncpreemptoff=1"},
		Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &complaint,
	})
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Signal(unix.SIGKILL)
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("%s: %s: %w: %s", n.Host.Name(), strings.Join(args[1:], " "), errors.Join(err, ctx.Err()), strings.TrimSpace(complaint.String()))
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		return fmt.Errorf("%s: %s: %w", n.Host.Name(), strings.Join(args[1:], " "), err)
	}
	return nil
}
