package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// LeaveOptions are how this host leaves its cluster.
type LeaveOptions struct {
	Force   []string
	DryRun  bool
	Timeout time.Duration // for the cluster to let it go
}

const (
	leaveJournal = "/var/lib/pve-cluster/leave.json"
	leaveSaved   = "/var/lib/pve-cluster/leave.saved.db"
	leaveNew     = "/var/lib/pve-cluster/leave.new.db"
	leaveKnown   = "/var/lib/pve-cluster/leave.known_hosts" // the peer's host keys
)

// leavePhase is how far a departure is. It is noted before the phase begins.
type leavePhase string

const (
	leaveRemoving leavePhase = "removing" // the cluster removes this node, or has done so
	leaveSettling leavePhase = "settling" // it has: this host becomes one without a cluster
)

// departure is the note of a departure under way.
type departure struct {
	Phase leavePhase `json:"phase"`
	Begun time.Time  `json:"begun"`
	Peer  string     `json:"peer"` // which removes this node; empty: there is no other one
	IP    string     `json:"ip"`
}

// leaving is a departure under way.
type leaving struct {
	h      *host.Host
	s      Services
	o      LeaveOptions
	r      *plan.Report
	others []string // the names of all other nodes
	peer   string   // one that is online; empty: this node is the only one
	note   departure
	killed error // instead of having the cluster remove it; for tests
}

// Leave takes this host out of its cluster, and makes it one that is in none, with its own
// part of the tree. done: it is in none.
func Leave(ctx context.Context, h *host.Host, s Services, o LeaveOptions) (r *plan.Report, done bool, err error) {
	x := &leaving{h: h, s: s, o: o, r: &plan.Report{}}
	if resumed, err := x.resume(ctx); resumed || err != nil {
		return x.r, false, err
	}
	if err := h.Mounted(); err != nil {
		return x.r, false, err
	}
	if !h.Exists(host.ClusterConf) {
		return x.r, true, nil
	}
	if err := x.check(ctx); err != nil || o.DryRun {
		return x.r, false, err
	}
	return x.r, false, h.Flock(ctx, Lock, func() error { return x.run(ctx) })
}

// check looks for what speaks against it.
func (x *leaving) check(ctx context.Context) error {
	h, r := x.h, x.r
	f, err := Read(h)
	if err != nil {
		return err
	}
	m, err := h.Members()
	if err != nil {
		return err
	}
	checkDirectory(r)
	present, total := 0, 0
	for _, n := range f.Nodes() {
		name := conf.NodeName(n)
		if name == h.Name {
			continue
		}
		votes := votesOf(n)
		total += votes
		x.others = append(x.others, name)
		if m.Nodes[name].Online == 1 {
			present += votes
			if x.peer == "" {
				x.peer = name
			}
		}
	}
	switch {
	case len(x.others) == 0:
		r.Step("the cluster ends: this is its only node")
	case x.peer == "" || !h.Quorate():
		r.Add(plan.Problem{Kind: "no-quorum", Text: "the cluster has no quorum, and so can't let this node go", Remedy: "start the missing nodes; or remove this node on another one (pvecm delnode), and install it anew", Code: plan.NotQuorate, Hard: true})
	case present < total/2+1:
		r.Refuse("quorum", "start more of the other nodes first", "without this node, %d of %d votes would be present: the cluster would lose quorum", present, total)
	}
	if f.Section("quorum").Has("device") {
		r.Refuse(conf.KindQDevice, "take it away first (pvecm qdevice remove), and set it up again afterwards", "the cluster has an external vote, whose algorithm depends on the number of nodes")
	}
	if inUse(h, "ha/resources.cfg") && len(x.others) > 0 {
		r.Refuse("ha", "remove those of this node's guests: pvesh get /cluster/ha/resources", "high availability is in use: it would start this node's guests elsewhere")
	}
	if x.peer != "" {
		x.note.Peer, x.note.IP = x.peer, m.Nodes[x.peer].IP
		if _, err := h.Output(ctx, append(x.reach(), "--", "pvecm", "apiver")...); err != nil {
			r.Add(plan.Problem{Kind: "ssh", Text: fmt.Sprintf("node %s can't be reached, which has to remove this one: %v", x.peer, err), Remedy: "\"pvecm check\" says more", Code: plan.Trust, Hard: true})
		}
		r.Step("%s removes this node from the cluster, and archives %s there", x.peer, nodeDir(h.Name))
	}
	r.Step("this host keeps its own part of the tree: what is below %s, and the settings of all nodes; guests here: %d", nodeDir(h.Name), len(configured(h, h.Name)))
	r.Step("corosync's configuration, key and state are removed, and so are the cluster's certificate authority and its keys; pve-cluster starts without a cluster, and this host gets keys of its own")
	r.Force(x.o.Force...)
	return r.Err()
}

func votesOf(node *conf.Section) int {
	text, given := node.Lookup("quorum_votes")
	if !given {
		return 1
	}
	var n int
	fmt.Sscan(text, &n)
	return n
}

// reach is the command line that runs something on the peer. Once it has begun, that needs
// no tree; and the peer keeps this host's key until the end.
func (x *leaving) reach() []string {
	options := []string{"-o", "ConnectTimeout=10", "-o", "UpdateHostKeys=no"}
	if x.h.Exists(leaveKnown) {
		options = append([]string{"-o", "UserKnownHostsFile=" + x.h.Path(leaveKnown), "-o", "GlobalKnownHostsFile=none"}, options...)
	}
	args := x.h.SSH(x.note.Peer, x.note.IP)
	// Of an option that is given twice, ssh takes the first.
	return slices.Insert(args, 1, options...)
}

func (x *leaving) begin(p leavePhase) error {
	x.note.Phase = p
	text, err := json.MarshalIndent(x.note, "", "  ")
	if err != nil {
		return err
	}
	return x.h.WriteFile(leaveJournal, append(text, '\n'), 0o600)
}

// resume goes on with a departure that was interrupted. One that the cluster knows nothing
// of yet is begun anew, and resumed is false.
func (x *leaving) resume(ctx context.Context) (resumed bool, err error) {
	h := x.h
	text, err := h.ReadFile(leaveJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &x.note)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", h.Path(leaveJournal), err)
	}
	if x.note.Phase == leaveRemoving {
		removed, err := x.isRemoved(ctx)
		if err != nil {
			return false, err
		}
		if !removed {
			return false, nil
		}
	}
	x.r.Step("the departure that was begun at %s is completed", x.note.Begun.Format(time.DateTime))
	if x.o.DryRun {
		return true, nil
	}
	h.Sayf("The cluster has removed this node: going on")
	return true, h.Flock(ctx, Lock, func() error { return x.settle(context.WithoutCancel(ctx)) })
}

// isRemoved asks the peer whether the cluster has removed this node.
func (x *leaving) isRemoved(ctx context.Context) (bool, error) {
	if x.note.Peer == "" {
		return false, nil
	}
	out, err := x.h.Output(ctx, append(x.reach(), "--", "pvecm", "config", "show")...)
	if err != nil {
		return false, plan.Fail(plan.NotUndone, "unknown", fmt.Sprintf("call it again when node %s can be reached", x.note.Peer), "a departure of this node is unfinished, and whether the cluster has removed it is not known: %v", err)
	}
	f, err := conf.Read(out)
	if err != nil {
		return false, fmt.Errorf("the cluster's corosync.conf, on %s: %w", x.note.Peer, err)
	}
	return f.Node(x.h.Name) == nil, nil
}

// run leaves. Nothing is changed until the cluster has removed this node.
func (x *leaving) run(ctx context.Context) error {
	h := x.h
	for _, path := range []string{leaveJournal, leaveSaved, leaveNew, leaveKnown} {
		if err := os.RemoveAll(h.Path(path)); err != nil {
			return err
		}
	}
	if err := CopyDatabase(h, leaveSaved); err != nil {
		return fmt.Errorf("back up the tree's database: %w", err)
	}
	// Both before anything is changed: what can't be made is known in time.
	if err := x.ownTree(); err != nil {
		return fmt.Errorf("this node's own part of the tree: %w", err)
	}
	backup, err := x.keepBackup()
	if err != nil {
		return err
	}
	h.Sayf("The tree of the cluster is kept in %s", backup)
	x.note.Begun = h.Time()
	if x.peer != "" {
		known, err := h.ReadFile(nodeDir(x.peer) + "/ssh_known_hosts")
		if err == nil {
			err = h.WriteFile(leaveKnown, known, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := x.begin(leaveRemoving); err != nil {
			return err
		}
		h.Sayf("Having %s remove this node", x.peer)
		if x.killed != nil {
			return x.killed
		}
		if err := x.removed(ctx); err != nil {
			return err
		}
	}
	return x.settle(context.WithoutCancel(ctx))
}

// askLimit is how long the peer may take to say whether it has removed this node.
const askLimit = 30 * time.Second

// removed has the peer remove this node, which runs until then: of two nodes none has
// quorum without the other. corosync here is ended by that.
func (x *leaving) removed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, x.o.Timeout)
	defer cancel()
	_, err := x.h.Output(ctx, append(x.reach(), "--", "pvecm", "delnode", x.h.Name, "--force=online", "--purge-dir", "--spare-keys")...)
	if err == nil {
		return nil
	}
	// The connection may have ended, or the peer have failed behind the removal.
	ask, done := context.WithTimeout(context.WithoutCancel(ctx), askLimit)
	defer done()
	switch gone, e := x.isRemoved(ask); {
	case e != nil:
		return plan.Errorf(plan.NotUndone, "%w\n%w", err, e)
	case gone:
		x.h.Warnf("%s has removed this node, but: %v", x.peer, err)
		return nil
	}
	return plan.Errorf(plan.Failed, "%s does not remove this node, which is still one of the cluster: %w", x.peer, errors.Join(err, os.Remove(x.h.Path(leaveJournal))))
}

// keepBackup keeps the cluster's tree among the backups.
func (x *leaving) keepBackup() (string, error) {
	h := x.h
	if err := h.Mkdir(backupDir, 0o700); err != nil {
		return "", err
	}
	var text bytes.Buffer
	packed := gzip.NewWriter(&text)
	if err := errors.Join(sqlite.WriteSQL(packed, h.Path(leaveSaved)), packed.Close()); err != nil {
		return "", err
	}
	path := fmt.Sprintf("%s/config-%d.sql.gz", backupDir, h.Time().Unix())
	return path, h.WriteFile(path, text.Bytes(), 0o644)
}

// ownTree makes a database of what stays here.
func (x *leaving) ownTree() error {
	contents, err := sqlite.Read(x.h.Path(leaveSaved))
	if err != nil {
		return err
	}
	return sqlite.Create(x.h.Path(leaveNew), x.own(contents.Entries))
}

// own are the entries that stay: all but the other nodes' directories and keys, and what is
// the cluster's only.
func (x *leaving) own(all []*memdb.Entry) (kept []*memdb.Entry) {
	gone := []string{
		"corosync.conf", "corosync.conf.new", "ha", "priv/lock", "priv/corosync.conf.d", "priv/known_hosts",
		// By these the cluster's certificates, tickets and forms are known to be its own.
		"pve-root-ca.pem", "priv/pve-root-ca.key", "priv/pve-root-ca.srl", "nodes/" + x.h.Name + "/pve-ssl.pem",
		"priv/authkey.key", "authkey.pub", "authkey.pub.old", "pve-www.key",
	}
	for _, name := range x.others {
		gone = append(gone, "nodes/"+name)
	}
	paths := memdb.Paths(all, 0)
	for i, e := range all {
		at := paths[i]
		if slices.ContainsFunc(gone, func(g string) bool { return at == g || strings.HasPrefix(at, g+"/") }) {
			continue
		}
		if at == "priv/authorized_keys" && x.s.WithoutKeys != nil {
			text := e.Data()
			for _, name := range x.others {
				text = x.s.WithoutKeys(text, name)
			}
			e = memdb.NewEntry(e.Inode, e.Parent, e.Version, e.Writer, e.MTime, e.Type, e.Name, text)
		}
		kept = append(kept, e)
	}
	return kept
}

// settle makes this host one that is in no cluster. The cluster has let it go: what goes
// wrong is not taken back, and all of it can be done again.
func (x *leaving) settle(ctx context.Context) error {
	h := x.h
	err := x.begin(leaveSettling)
	if err == nil {
		err = x.becomeAlone(ctx)
	}
	if err != nil {
		return plan.Errorf(plan.NotUndone, "the cluster has removed this node, but: %w\n\"pvecm leave\" completes it", err)
	}
	if x.note.Peer != "" {
		if _, err := h.Output(ctx, append(x.reach(), "--", "pvecm", "node-left", h.Name)...); err != nil {
			h.Warnf("the cluster may still have this host's ssh key (\"pvecm node-left %s\" on one of its nodes removes it): %v", h.Name, err)
		}
	}
	if err := os.Remove(h.Path(leaveJournal)); err != nil {
		return err
	}
	h.Sayf("This host is in no cluster any more")
	var errs []error
	for _, path := range []string{leaveSaved, leaveNew, leaveKnown} {
		errs = append(errs, os.RemoveAll(h.Path(path)))
	}
	return errors.Join(errs...)
}

func (x *leaving) becomeAlone(ctx context.Context) error {
	h := x.h
	h.Sayf("Stopping corosync and pve-cluster")
	if err := h.Run(ctx, "systemctl", "stop", "corosync", "pve-cluster"); err != nil {
		return err
	}
	var errs []error
	for _, pattern := range []string{host.CorosyncConf, host.CorosyncConf + ".refused", host.AuthKey, CorosyncState + "/*"} {
		list, _ := filepath.Glob(h.Path(pattern))
		for _, path := range list {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	errs = append(errs, RestoreDatabase(h, leaveNew))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := h.Run(ctx, "systemctl", "start", "pve-cluster"); err != nil {
		return err
	}
	if x.s.UpdateKeys == nil {
		return nil
	}
	// It is out, with or without them.
	if err := x.s.UpdateKeys(ctx, h); err != nil {
		h.Warnf("keys and certificates of this host: %v (\"pvecm updatecerts\" tries again)", err)
	}
	return nil
}
