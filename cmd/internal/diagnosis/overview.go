package diagnosis

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"pmxcfs/corosync/conf"
	"pmxcfs/status/health"
	"pmxcfs/status/inspect"
)

// Overview is what pmxcfs status tells.
type Overview struct {
	Time     time.Time       `json:"time"`
	Verdict  string          `json:"verdict"` // "fine", "degraded" or "broken"
	Daemon   Daemon          `json:"daemon"`
	Mount    Mount           `json:"mount"`
	Status   *inspect.Status `json:"status,omitempty"`   // the daemon's; nil: it does not answer
	Corosync *Corosync       `json:"corosync,omitempty"` // nil: this is no node of a cluster
	Offline  *Offline        `json:"offline,omitempty"`  // the database, when the daemon does not answer
	// Kept is what a split has cost this node.
	Kept      []Kept    `json:"kept,omitempty"`
	KeptError string    `json:"kept_error,omitempty"` // why it can't be seen
	Findings  []Finding `json:"findings"`             // the worst first
}

// Look gathers an overview, and judges it.
func Look(ctx context.Context, h *Host) *Overview {
	o := &Overview{Time: h.now()}
	o.Daemon = h.daemon()
	status, err := ask(ctx, h, (*inspect.Client).Status)
	if err == nil {
		if h.Discreet {
			for i := range status.Locks {
				status.Locks[i].Name = leftOut
			}
		}
		if h.Discreet && !h.WithLogs {
			k := h.known(status)
			for i := range status.Errors {
				k.problem(&status.Errors[i])
			}
		}
		o.Status, o.Daemon.Answers = status, true
		// The options may say something else than the daemon's did.
		o.Daemon.PID, o.Daemon.Running = status.Daemon.PID, true
		h.MountPoint = status.Daemon.MountPoint
		h.Database = or(status.Database.Path, h.Database)
	} else {
		o.Daemon.Error = err.Error()
		o.Offline = h.offline()
	}
	var all sync.WaitGroup
	all.Go(func() { o.Mount = h.mount() })
	all.Go(func() {
		var err error
		if o.Kept, err = within(askTime, h.kept); err != nil {
			o.KeptError = err.Error()
		}
	})
	switch {
	case o.foreign():
		// Its quorum and its nodes are not this cluster's.
		o.Corosync = &Corosync{Error: "the corosync that runs is not this cluster's"}
	case o.cluster():
		o.Corosync = h.corosync()
	}
	all.Wait()
	o.Findings = judge(o)
	o.Verdict = verdict(o.Findings)
	return o
}

// known is what a report may name: the nodes, and the daemon's own files.
func (h *Host) known(s *inspect.Status) *known {
	k := &known{paths: []string{h.MountPoint, h.Database, h.CorosyncConf, h.RunDir, h.RRDDir}}
	if h.NodeName != nil {
		if name, err := h.NodeName(); err == nil {
			k.nodes = append(k.nodes, name)
		}
	}
	if s != nil {
		k.nodes = append(k.nodes, s.Node.Name)
		if s.Cluster != nil {
			for _, m := range s.Cluster.Members {
				k.nodes = append(k.nodes, m.Name)
			}
		}
	}
	return k
}

func verdict(list []Finding) string {
	return map[int]string{ExitFine: "fine", ExitAttention: "degraded", ExitBroken: "broken"}[Exit(list)]
}

// cluster tells whether this is a node of a cluster.
func (o *Overview) cluster() bool {
	if o.Status != nil {
		return o.Status.Mode == inspect.ModeCluster
	}
	return o.Offline != nil && o.Offline.Cluster
}

// foreign tells whether the daemon has found that the corosync that runs is not its
// cluster's.
func (o *Overview) foreign() bool {
	return o.Status != nil && slices.ContainsFunc(o.Status.NotReady, func(r health.Reason) bool { return r.Code == health.ForeignCorosync })
}

func (h *Host) offline() *Offline {
	d, err := within(10*time.Second, func() (*Offline, error) { return h.ReadDatabase(h.Database) })
	switch {
	case err == nil:
		return d
	case errors.Is(err, fs.ErrNotExist):
		// The daemon makes one, and takes the host's corosync.conf into it.
		d = &Offline{Missing: true}
	default:
		d = &Offline{Error: err.Error()}
	}
	// Whether this is a node of a cluster, the host's copy tells.
	if text, err := os.ReadFile(h.CorosyncConf); err == nil {
		d.Cluster = !conf.Example(text)
	}
	return d
}

func (h *Host) corosync() *Corosync {
	c, err := within(askTime, h.Corosync)
	if err != nil {
		return &Corosync{Error: err.Error()}
	}
	return c
}
