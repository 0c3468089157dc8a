package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// CreateOptions are what a new cluster is like.
type CreateOptions struct {
	Name             string
	Links            map[int]conf.Link
	ID               uint32
	Votes            int
	TokenCoefficient int
	Force            []string
	DryRun           bool
	Timeout          time.Duration // to have quorum; 0: it isn't waited for
}

// Create makes a cluster with this host as its first node. Done tells that the host is
// in a cluster of that name already.
func Create(ctx context.Context, h *host.Host, s Services, o CreateOptions) (r *plan.Report, done bool, err error) {
	r = &plan.Report{}
	if h.Exists(host.ClusterConf) {
		f, err := Read(h)
		if err == nil && f.Section("totem").Get("cluster_name") == o.Name && f.Node(h.Name) != nil {
			return r, true, nil
		}
		name := "another one"
		if err == nil {
			name = fmt.Sprintf("cluster %q", f.Section("totem").Get("cluster_name"))
		}
		return r, false, plan.Fail(plan.Refused, "cluster-exists", "a node can be in one cluster only", "this host is in %s already", name)
	}
	new, err := planCreate(h, r, o)
	if err != nil {
		return r, false, err
	}
	r.Force(o.Force...)
	if err := r.Err(); err != nil || o.DryRun {
		return r, false, err
	}
	work := func() error {
		return h.Flock(ctx, Lock, func() error { return doCreate(ctx, h, s, o, new) })
	}
	if s.Task != nil {
		return r, false, s.Task(h, "clustercreate", o.Name, work)
	}
	return r, false, work()
}

// planCreate checks, and returns the configuration to be.
func planCreate(h *host.Host, r *plan.Report, o CreateOptions) (*conf.File, error) {
	links := o.Links
	if len(links) == 0 {
		a, err := h.Address()
		if err != nil {
			return nil, err
		}
		links = map[int]conf.Link{0: {Address: a.String()}}
	}
	new, err := conf.Create(conf.NewCluster{Name: o.Name, Node: h.Name, ID: o.ID, Votes: o.Votes, TokenCoefficient: o.TokenCoefficient, Links: links})
	if err != nil {
		return nil, Refusal(err)
	}
	for _, n := range slices.Sorted(maps.Keys(links)) {
		CheckLocalLink(h, r, n, links[n].Address)
	}
	CheckLeftovers(h, r)
	if h.Exists(host.AuthKey) {
		r.Step("%s is there already and will be the cluster's key", host.AuthKey)
	} else {
		r.Step("corosync-keygen makes %s", host.AuthKey)
	}
	r.Step("root gets an ssh key, if it has none, and may log in with keys")
	r.Step("the cluster's certificate authority, and this node's certificate and keys, are made if they are missing")
	r.Step("%s/corosync.conf: cluster %s with node %s (id %d, %d votes)", host.Mount, o.Name, h.Name, o.ID, o.Votes)
	r.Step("corosync and pve-cluster restart")
	return new, nil
}

// CheckLocalLink checks that an address that a link is to have is this host's.
func CheckLocalLink(h *host.Host, r *plan.Report, n int, address string) {
	var ip netip.Addr
	if a, err := netip.ParseAddr(address); err == nil {
		ip = a
	} else {
		for _, a := range h.Resolve(address) {
			if !a.IsLoopback() {
				ip = a
				break
			}
		}
		if !ip.IsValid() {
			r.Refuse("link-address", "give an IP address", "link %d: %s does not resolve to an address", n, address)
			return
		}
		r.Warn("link-name", "an IP address is safer", "link %d: %s is a name, now %s: what it resolves to can change under corosync", n, address, ip)
	}
	if ip.IsLoopback() {
		r.Refuse("link-address", "give an address that other nodes can reach", "link %d: %s is a loopback address", n, ip)
		return
	}
	has, err := h.HasAddress(ip)
	switch {
	case err != nil:
		r.Warn("link-address", "", "this host's addresses can't be read: %v", err)
	case !has:
		r.Refuse("link-address", "configure it, or give an address this host has", "link %d: no interface of this host that is up has the address %s", n, ip)
	}
}

// CorosyncState is where corosync keeps what outlives its restart.
const CorosyncState = "/var/lib/corosync"

// CheckLeftovers looks for traces of an earlier cluster on the host.
func CheckLeftovers(h *host.Host, r *plan.Report) {
	text, err := h.ReadFile(host.CorosyncConf)
	if errors.Is(err, fs.ErrNotExist) {
		if h.Do(context.Background(), host.Command{Args: []string{"systemctl", "is-active", "--quiet", "corosync"}}) == nil {
			r.Refuse("leftovers", "stop it: systemctl stop corosync", "corosync runs without a configuration on this host: it may be in a cluster that is gone")
		}
		if rings, _ := filepath.Glob(h.Path(CorosyncState + "/ringid_*")); len(rings) > 0 {
			r.Warn("leftovers", "corosync goes on with its ring's number; removing the files begins anew", "%s holds the state of an earlier cluster", CorosyncState)
		}
		return
	}
	if err != nil {
		r.Warn("leftovers", "", "%v", err)
		return
	}
	if !conf.Example(text) {
		r.Refuse("leftovers", "if that cluster is gone for good, stop corosync and remove the file", "%s is the configuration of another cluster", h.Path(host.CorosyncConf))
	}
}

// creation is a create under way.
type creation struct {
	h         *host.Host
	hostConf  []byte // the host's corosync.conf before
	hadConf   bool
	madeKey   bool
	activated bool
	restarted bool
}

// savedTree is the copy of the tree's database from before a create.
const savedTree = "/var/lib/pve-cluster/create.saved.db"

// doCreate does what planCreate promised, and takes it back if it fails.
func doCreate(ctx context.Context, h *host.Host, s Services, o CreateOptions, new *conf.File) (err error) {
	c := &creation{h: h}
	if c.hostConf, err = h.ReadFile(host.CorosyncConf); err == nil {
		c.hadConf = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(h.Path(savedTree)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := CopyDatabase(h, savedTree); err != nil {
		return fmt.Errorf("back up the tree's database: %w", err)
	}
	defer os.Remove(h.Path(savedTree))
	err = c.run(ctx, s, o, new)
	if err == nil {
		return nil
	}
	fmt.Fprintf(h.Stderr, "%v\nTaking everything back.\n", err)
	if undone := c.undo(); undone != nil {
		return plan.Errorf(plan.NotUndone, "%w\nNot all of it could be taken back: %w", err, undone)
	}
	return plan.Errorf(max(plan.CodeOf(err), plan.Failed), "%w\nEverything was taken back: this host is in no cluster", err)
}

func (c *creation) run(ctx context.Context, s Services, o CreateOptions, new *conf.File) error {
	h := c.h
	if s.PrepareSSH != nil {
		if err := s.PrepareSSH(ctx, h); err != nil {
			return err
		}
	}
	if !h.Exists(host.AuthKey) {
		c.madeKey = true
		if err := KeyGen(ctx, h, host.AuthKey); err != nil {
			return err
		}
	}
	if err := os.Chmod(h.Path(host.AuthKey), 0o400); err != nil {
		return err
	}
	if s.UpdateKeys != nil {
		if err := s.UpdateKeys(ctx, h); err != nil {
			return err
		}
	}
	h.Sayf("Writing corosync configuration to %s", host.ClusterConf)
	c.activated = true
	if c.hadConf {
		// The daemon keeps from corosync what isn't its cluster's.
		if err := os.Remove(h.Path(host.CorosyncConf)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := Activate(h, new); err != nil {
		return err
	}
	h.Sayf("Restarting corosync and the cluster file system")
	c.restarted = true
	if err := h.Run(ctx, "systemctl", "restart", "corosync", "pve-cluster"); err != nil {
		return err
	}
	return waitForQuorum(ctx, h, o.Timeout)
}

// waitForQuorum waits until the mount is there again as a cluster node's.
func waitForQuorum(ctx context.Context, h *host.Host, limit time.Duration) error {
	if limit == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if m, err := h.Members(); err == nil && m.Cluster != nil && m.Cluster.Quorate == 1 && h.Quorate() {
			return nil
		}
		select {
		case <-ctx.Done():
			return plan.Fail(plan.Timeout, "no-quorum", "journalctl -u corosync -u pve-cluster says why", "the new cluster had no quorum within %s", limit)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// undo brings back the state before.
func (c *creation) undo() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	h := c.h
	remove := func(path string) error {
		if err := os.Remove(h.Path(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var errs []error
	if c.restarted {
		// A daemon that has started with the cluster's configuration has no quorum, and
		// lets nobody take it out of the tree again.
		if err := h.Run(ctx, "systemctl", "stop", "corosync", "pve-cluster"); err != nil {
			return err
		}
		errs = append(errs, RestoreDatabase(h, savedTree))
	} else if c.activated {
		errs = append(errs, remove(host.ClusterConf))
	}
	if c.activated {
		if c.hadConf {
			errs = append(errs, h.WriteFile(host.CorosyncConf, c.hostConf, 0o644))
		} else {
			errs = append(errs, remove(host.CorosyncConf))
		}
	}
	if c.madeKey {
		errs = append(errs, remove(host.AuthKey))
	}
	if c.restarted {
		errs = append(errs, h.Run(ctx, "systemctl", "start", "pve-cluster"))
	}
	return errors.Join(errs...)
}

// KeyGen has corosync make a key.
func KeyGen(ctx context.Context, h *host.Host, path string) error {
	if h.Exists(path) {
		return plan.Fail(plan.Refused, "file-exists", "", "%s exists", path)
	}
	if err := h.Mkdir(dir(path), 0o755); err != nil {
		return err
	}
	return h.Run(ctx, "corosync-keygen", "-lk", h.Path(path))
}

func dir(path string) string {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '/' {
			return path[:i]
		}
	}
	return "/"
}
