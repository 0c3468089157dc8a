// Package cluster makes a cluster of a host, and enters nodes into the cluster's
// corosync.conf and takes them out of it.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

const (
	// Lock is this host's lock for changes of the cluster.
	Lock = "/var/lock/pvecm.lock"
	// ConfLock is the cluster's lock for corosync.conf.
	ConfLock = "file-corosync_conf"
)

// Services are what changes of a cluster need of other packages.
type Services struct {
	// PrepareSSH makes root's key and lets root log in with keys.
	PrepareSSH func(ctx context.Context, h *host.Host) error
	// UpdateKeys makes what is missing of keys, certificates and directories.
	UpdateKeys func(ctx context.Context, h *host.Host) error
	// NodeFiles makes a node's directories and merges the authorized keys.
	NodeFiles func(h *host.Host, node string) error
	// ForgetKeys removes a node's ssh keys from the tree, and tells how many there were.
	ForgetKeys func(ctx context.Context, h *host.Host, node string) (int, error)
	// WithoutKeys returns an authorized_keys file without a node's.
	WithoutKeys func(text []byte, node string) []byte
	// Log writes to the cluster's log.
	Log func(h *host.Host, text string)
	// Task does work as a task of a type that Proxmox's web interface shows; nil: it is none.
	Task func(h *host.Host, kind, id string, work func() error) error
	// RenameKeys has root's ssh key say the new name of its node.
	RenameKeys func(ctx context.Context, h *host.Host, old, new string) error
	// SetHostname sets the name that the kernel has.
	SetHostname func(name string) error
	// Loaded is the version of the configuration that corosync has loaded.
	Loaded func() (uint64, error)
	// Kill has corosync on a node end.
	Kill func(id uint32) error
}

// Read reads the cluster's corosync.conf. Without one it is empty.
func Read(h *host.Host) (*conf.File, error) {
	text, err := h.ReadFile(host.ClusterConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := conf.Read(text)
	if err != nil {
		return nil, plan.Fail(plan.Refused, "config-unparsable", "mend it first", "%s: %v", h.Path(host.ClusterConf), err)
	}
	return f, nil
}

// NeedCluster is an error on a host that is in no cluster.
func NeedCluster(h *host.Host) error {
	if h.Exists(host.ClusterConf) {
		return nil
	}
	return plan.Fail(plan.Refused, "no-cluster", "make one with \"pvecm create\", or join one with \"pvecm add\"", "this host is in no cluster: %s does not exist", h.Path(host.ClusterConf))
}

// Activate makes a configuration the cluster's: the daemon of each node copies it to
// its host, and corosync loads it.
func Activate(h *host.Host, f *conf.File) error {
	next := host.ClusterConf + ".new"
	if err := h.WriteTree(next, f.Text()); err != nil {
		return err
	}
	if err := os.Rename(h.Path(next), h.Path(host.ClusterConf)); err != nil {
		return errors.Join(err, os.Remove(h.Path(next)))
	}
	return nil
}

// Locked runs work under the locks that a change of corosync.conf needs: this host's,
// and the cluster's if it has more than one node.
func Locked(ctx context.Context, h *host.Host, work func(context.Context) error) error {
	return h.Flock(ctx, Lock, func() error {
		if m, err := h.Members(); err == nil && len(m.Nodes) <= 1 {
			return work(ctx)
		}
		return h.ClusterLock(ctx, ConfLock, work)
	})
}

// Refusal gives a refusal of package conf an exit status.
func Refusal(err error) error {
	var r *conf.Refusal
	if !errors.As(err, &r) {
		return err
	}
	e := &plan.Error{Code: plan.Refused, Problems: []plan.Problem{{Kind: r.Kind, Text: r.Error()}}}
	if r.Kind == conf.KindConfigInvalid {
		e.Problems[0].Text = "the cluster's corosync.conf is not as it must be"
		if r.Text != "" {
			e.Problems[0].Text = r.Text
		}
		for _, f := range r.Findings {
			e.Problems = append(e.Problems, plan.Problem{Kind: f.Kind, Text: f.String()})
		}
	}
	return e
}

// warnings are the findings that an addition of a node passes on.
func warnings(h *host.Host, f *conf.File) (list []string) {
	_, found := f.Check(h.Resolve)
	for _, w := range found {
		list = append(list, w.String())
	}
	return list
}

// awaitLoaded waits until corosync on this host has loaded a version of the configuration.
func (s Services) awaitLoaded(ctx context.Context, version uint64, limit time.Duration) error {
	if s.Loaded == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return await(ctx, "corosync has not loaded the new configuration", func() error {
		loaded, err := s.Loaded()
		if err == nil && loaded < version {
			err = fmt.Errorf("it has version %d, not %d", loaded, version)
		}
		return err
	})
}

// await waits until there is no error.
func await(ctx context.Context, what string, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return plan.Errorf(plan.Timeout, "%s: %w", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s Services) log(h *host.Host, format string, args ...any) {
	if s.Log != nil {
		s.Log(h, fmt.Sprintf(format, args...))
	}
}
