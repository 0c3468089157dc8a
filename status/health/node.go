package health

import (
	"fmt"
	"strings"

	"pmxcfs/dfsm"
	"pmxcfs/internal/event"
)

// Node is a snapshot of a node's state.
type Node struct {
	Name     string
	Cluster  bool // false means local mode, and everything about groups and quorum is empty
	Mounted  bool // the file system is there and is served
	Up       bool // everything was started
	Stopping bool

	Version  uint64 // of the database
	Database error  // why the last transaction failed; nil means the database can be written
	Tools    error  // why Proxmox's tools find no service; nil means they do, or there is to be none

	Foreign error // why the corosync that runs is not this cluster's; nil means it is, or there is none
	Quorate bool
	Config  Group // the configuration database's
	Status  Group // the status store's
}

// Group is a node's part in a process group.
type Group struct {
	Connected bool // to corosync
	Mode      dfsm.Mode
	Members   int   // of the present view
	Synced    int   // how many of them count as synced
	LastError error // why the last connection or membership ended; nil means it did not
}

// Writable reports whether changes are taken.
func (n Node) Writable() bool {
	return n.Mounted && !n.Stopping && n.Database == nil && (!n.Cluster || n.Quorate && n.Config.Mode == dfsm.ModeSynced)
}

// Code names a reason for programs. The values are part of the interface.
type Code string

const (
	Starting        Code = "starting"
	Stopping        Code = "stopping"
	NotMounted      Code = "not_mounted"
	DatabaseFailed  Code = "database_failed"
	ServiceTaken    Code = "service_taken"
	NotConnected    Code = "not_connected"
	ForeignCorosync Code = "foreign_corosync"
	NotQuorate      Code = "not_quorate"
	NotSynced       Code = "not_synced"
	StatusNotSynced Code = "status_not_synced"
	OutOfGroup      Code = "out_of_group"
)

// Reason is why a node is not ready.
type Reason struct {
	Code   Code   `json:"code"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // empty: it will pass by itself
}

// Reasons returns why the node is not ready, what matters most first; nil means it is
// ready. A node is ready when it is mounted and its database can be written; in a
// cluster, when it has quorum and is synced in both groups, too.
func (n Node) Reasons() []Reason {
	var list []Reason
	add := func(code Code, text, remedy string) { list = append(list, Reason{code, text, remedy}) }
	switch {
	case n.Stopping:
		add(Stopping, "the daemon is stopping", "")
	case !n.Up:
		add(Starting, "the daemon is starting", "")
	}
	if n.Up && !n.Mounted {
		add(NotMounted, "the file system is not mounted", "restart the service: systemctl restart pve-cluster")
	}
	if n.Database != nil {
		add(DatabaseFailed, "the database can't be written: "+n.Database.Error(), "see to the disk of the database's directory (space, errors); the daemon tries again by itself")
	}
	if n.Cluster {
		n.clusterReasons(add)
	}
	if n.Tools != nil {
		add(ServiceTaken, n.Tools.Error(), event.ServiceTaken.Remedy())
	}
	return list
}

func (n Node) clusterReasons(add func(Code, string, string)) {
	if n.Config.Mode.Final() {
		add(OutOfGroup, fmt.Sprintf("the node stays out of the configuration database's group (mode %v)", n.Config.Mode),
			"see the log for the cause (a newer protocol needs a newer package), then restart the service: systemctl restart pve-cluster")
		return
	}
	if n.Foreign != nil {
		add(ForeignCorosync, n.Foreign.Error()+": everything is read-only", event.ForeignCorosync.Remedy())
		return
	}
	notConnected := func(text string, g Group) {
		if g.LastError != nil {
			text += ": " + g.LastError.Error()
		}
		add(NotConnected, text, "see whether corosync runs: systemctl status corosync")
	}
	if !n.Config.Connected {
		notConnected("there is no connection to corosync", n.Config)
		return
	}
	if !n.Quorate {
		add(NotQuorate, "the node has no quorum: everything is read-only", "see which nodes are missing: pvecm status; check the network between them")
	}
	if n.Config.Mode != dfsm.ModeSynced {
		add(NotSynced, "the configuration database is not synchronised ("+explain(n.Config.Mode)+")", "")
	}
	switch {
	case n.Status.Mode.Final():
		add(OutOfGroup, fmt.Sprintf("the node stays out of the status store's group (mode %v)", n.Status.Mode),
			"see the log for the cause, then restart the service: systemctl restart pve-cluster")
	case !n.Status.Connected:
		notConnected("the status store has no connection to corosync", n.Status)
	case n.Status.Mode != dfsm.ModeSynced:
		add(StatusNotSynced, "the status store is not synchronised ("+explain(n.Status.Mode)+")", "")
	}
}

// Summary says in a line how the node is.
func (n Node) Summary() string {
	reasons := n.Reasons()
	var b strings.Builder
	switch {
	case len(reasons) == 0 && !n.Cluster:
		b.WriteString("ready, local mode")
	case len(reasons) == 0:
		fmt.Fprintf(&b, "ready, quorate, synced with %s", count(n.Config.Synced, n.Config.Members))
	default:
		b.WriteString("not ready: ")
		for i, r := range reasons {
			if i > 0 {
				b.WriteString("; ")
			}
			b.WriteString(r.Text)
		}
	}
	fmt.Fprintf(&b, "; database version %d", n.Version)
	return b.String()
}

func count(synced, members int) string {
	if members == 1 {
		return "nobody else in the group"
	}
	return fmt.Sprintf("%d of %d members", synced, members)
}

// explain says what a mode means.
func explain(m dfsm.Mode) string {
	switch m {
	case dfsm.ModeStart:
		return "not a member of the group yet"
	case dfsm.ModeStartSync:
		return "the members are exchanging their states"
	case dfsm.ModeUpdate:
		return "this node is behind, and is receiving the missing entries"
	case dfsm.ModeLeave:
		return "out of step; it is about to join again"
	}
	return "mode " + m.String()
}
