package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
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
	leaveSaved = "/var/lib/pve-cluster/leave.saved.db"
	leaveNew   = "/var/lib/pve-cluster/leave.new.db"
)

// leaving is a departure under way.
type leaving struct {
	h      *host.Host
	s      Services
	o      LeaveOptions
	r      *plan.Report
	others []string // the names of all other nodes
	peer   string   // one that is online; empty: this node is the only one
	ssh    []string // reaches it, without the tree
}

// Leave takes this host out of its cluster, and makes it one that is in none, with its own
// part of the tree. done: it is in none.
func Leave(ctx context.Context, h *host.Host, s Services, o LeaveOptions) (r *plan.Report, done bool, err error) {
	x := &leaving{h: h, s: s, o: o, r: &plan.Report{}}
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
	if dir, err := os.Getwd(); err == nil && (dir == host.Mount || strings.HasPrefix(dir, host.Mount+"/")) {
		r.Stop("in-mount", "change to another directory first", "the current directory, %s, is in the mount, which goes away meanwhile", dir)
	}
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
	if text, err := h.ReadFile(host.Mount + "/ha/resources.cfg"); err == nil && strings.TrimSpace(string(text)) != "" && len(x.others) > 0 {
		r.Refuse("ha", "remove those of this node's guests: pvesh get /cluster/ha/resources", "high availability is in use: it would start this node's guests elsewhere")
	}
	if x.peer != "" {
		x.ssh = h.SSH(x.peer, m.Nodes[x.peer].IP, "-o", "ConnectTimeout=10", "-o", "UpdateHostKeys=no")
		if _, err := h.Output(ctx, append(slices.Clone(x.ssh), "--", "pvecm", "apiver")...); err != nil {
			r.Add(plan.Problem{Kind: "ssh", Text: fmt.Sprintf("node %s can't be reached, which has to remove this one: %v", x.peer, err), Remedy: "\"pvecm check\" says more", Code: plan.Trust, Hard: true})
		}
		r.Step("%s removes this node from the cluster, and archives %s there", x.peer, nodeDir(h.Name))
	}
	r.Step("this host keeps its own part of the tree: what is below %s, and the settings of all nodes; guests here: %d", nodeDir(h.Name), len(configured(h, h.Name)))
	r.Step("corosync's configuration, key and state are removed; pve-cluster starts without a cluster")
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

// run leaves. Nothing is changed until the cluster has removed this node.
func (x *leaving) run(ctx context.Context) error {
	h := x.h
	for _, path := range []string{leaveSaved, leaveNew} {
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
	if x.peer != "" {
		h.Sayf("Having %s remove this node", x.peer)
		if err := x.removed(ctx); err != nil {
			return err
		}
	}
	return x.settle(context.WithoutCancel(ctx))
}

// removed has the peer remove this node, which runs until then: of two nodes none has
// quorum without the other. corosync here is ended by that.
func (x *leaving) removed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, x.o.Timeout)
	defer cancel()
	_, err := x.h.Output(ctx, append(slices.Clone(x.ssh), "--", "pvecm", "delnode", x.h.Name, "--force=online", "--purge-dir")...)
	if err == nil {
		return nil
	}
	if f, e := Read(x.h); e == nil && f.Node(x.h.Name) != nil && x.h.Quorate() {
		return plan.Errorf(plan.Failed, "%s does not remove this node, which is still one of the cluster: %w", x.peer, err)
	}
	return plan.Errorf(plan.NotUndone, "whether %s has removed this node is not known (\"pvecm status\" there tells; its own part of the tree is in %s): %w", x.peer, x.h.Path(leaveNew), err)
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
	gone := []string{"corosync.conf", "corosync.conf.new", "ha", "priv/lock", "priv/corosync.conf.d", "priv/known_hosts"}
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
// wrong is not taken back.
func (x *leaving) settle(ctx context.Context) error {
	h := x.h
	h.Sayf("Stopping corosync and pve-cluster")
	errs := []error{h.Run(ctx, "systemctl", "stop", "corosync", "pve-cluster")}
	if errs[0] != nil {
		return plan.Errorf(plan.NotUndone, "the cluster has removed this node, but: %w (its own part of the tree is in %s)", errs[0], h.Path(leaveNew))
	}
	for _, pattern := range []string{host.CorosyncConf, host.CorosyncConf + ".refused", host.AuthKey, CorosyncState + "/*"} {
		list, _ := filepath.Glob(h.Path(pattern))
		for _, path := range list {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	errs = append(errs, RestoreDatabase(h, leaveNew))
	if err := errors.Join(errs...); err != nil {
		return plan.Errorf(plan.NotUndone, "the cluster has removed this node, but: %w (its own part of the tree is in %s)", err, h.Path(leaveNew))
	}
	if err := h.Run(ctx, "systemctl", "start", "pve-cluster"); err != nil {
		return plan.Errorf(plan.NotUndone, "the cluster has removed this node, but: %w", err)
	}
	h.Sayf("This host is in no cluster any more")
	return errors.Join(os.Remove(h.Path(leaveSaved)), os.Remove(h.Path(leaveNew)))
}
