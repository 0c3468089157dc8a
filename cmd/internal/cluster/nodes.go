package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// Answer is what a node that joins needs.
type Answer struct {
	AuthKey  []byte
	Conf     []byte
	Warnings []string
}

// MinAuthKey is the least number of bytes of corosync's key.
const MinAuthKey = 128

// AddNode enters a node into the cluster's configuration.
func AddNode(ctx context.Context, h *host.Host, s Services, n conf.NewNode) (*Answer, error) {
	if err := h.NeedQuorum(); err != nil {
		return nil, err
	}
	var answer *Answer
	err := Locked(ctx, h, func(ctx context.Context) (err error) {
		answer, err = Enter(ctx, h, s, n)
		return err
	})
	return answer, err
}

// Enter is AddNode for a caller that holds the locks.
func Enter(ctx context.Context, h *host.Host, s Services, n conf.NewNode) (*Answer, error) {
	key, err := h.ReadFile(host.AuthKey)
	if err != nil {
		return nil, plan.Fail(plan.Refused, "authkey-missing", "copy it from another node", "corosync's key can't be read, without which no node can join: %v", err)
	}
	if len(key) < MinAuthKey {
		return nil, plan.Fail(plan.Refused, "authkey-missing", "make a new one (pvecm keygen) and copy it to all nodes", "corosync's key %s has %d bytes only", host.AuthKey, len(key))
	}
	before, err := Read(h)
	if err != nil {
		return nil, err
	}
	after, err := before.AddNode(n)
	if err != nil {
		return nil, Refusal(err)
	}
	answer := &Answer{AuthKey: key, Conf: after.Text(), Warnings: warnings(h, before)}
	if s.NodeFiles != nil {
		if err := s.NodeFiles(h, n.Name); err != nil {
			answer.Warnings = append(answer.Warnings, err.Error())
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s.log(h, "adding node %s to cluster", n.Name)
	if err := Activate(h, after); err != nil {
		return nil, err
	}
	return answer, nil
}

// SetVotes gives a node other votes.
func SetVotes(ctx context.Context, h *host.Host, node string, votes int) error {
	return Locked(ctx, h, func(context.Context) error { return setVotes(h, node, votes) })
}

// SetVotesLocked is SetVotes for a caller that holds this host's lock.
func SetVotesLocked(ctx context.Context, h *host.Host, node string, votes int) error {
	return h.ClusterLock(ctx, ConfLock, func(context.Context) error { return setVotes(h, node, votes) })
}

func setVotes(h *host.Host, node string, votes int) error {
	before, err := Read(h)
	if err != nil {
		return err
	}
	if n := before.Node(node); n != nil && n.Get("quorum_votes") == strconv.Itoa(votes) {
		return nil
	}
	after, err := before.SetVotes(node, votes)
	if err != nil {
		return Refusal(err)
	}
	return Activate(h, after)
}

// loadLimit is how long corosync may take to load a change: it has to notice first that a node
// is gone.
const loadLimit = 30 * time.Second

// DelOptions are how a node is removed.
type DelOptions struct {
	Node   string
	Force  []string // kinds of problems that are no reason to stop
	DryRun bool

	Kill      bool // the node may be running: it is stopped
	KeepDir   bool // its directory in the tree stays
	PurgeDir  bool // its directory goes, guests' configurations and all, into an archive
	SpareKeys bool // its ssh keys stay
	// Device: the external vote goes out of the configuration with the node.
	Device bool
}

// DelNode takes a node out of the cluster's configuration. The report tells what was
// found, and what is done.
func DelNode(ctx context.Context, h *host.Host, s Services, o DelOptions) (*plan.Report, error) {
	r := &plan.Report{}
	if o.Node == h.Name {
		return r, plan.Fail(plan.Refused, "is-local-node", "call it on another node", "%s is this node", o.Node)
	}
	if err := h.NeedQuorum(); err != nil {
		return r, err
	}
	removed := ""
	work := func(ctx context.Context) error {
		before, err := Read(h)
		if err != nil {
			return err
		}
		keepDevice := slices.Contains(o.Force, conf.KindQDevice) || slices.Contains(o.Force, "all")
		after, err := before.RemoveNode(o.Node, keepDevice || o.Device)
		if err == nil && o.Device && after.Section("quorum").Has("device") {
			err = after.Remove(after.Section("quorum", "device"))
			r.Step("corosync.conf: the external vote goes")
		}
		if err != nil {
			return Refusal(err)
		}
		node := before.FindNode(o.Node)
		name := conf.NodeName(node)
		if name == h.Name {
			return plan.Fail(plan.Refused, "is-local-node", "call it on another node", "%s is this node", o.Node)
		}
		online := checkRemoval(h, r, before, node, o)
		r.Force(o.Force...)
		if online && o.Kill {
			r.Step("corosync on %s is stopped and disabled, and its configuration and key are removed", name)
		}
		r.Step("corosync.conf: node %s (id %s) goes, version %s becomes %s", name, node.Get("nodeid"), before.Section("totem").Get("config_version"), after.Section("totem").Get("config_version"))
		if !o.SpareKeys {
			r.Step("the ssh keys of %s are removed from the tree", name)
		}
		o.dirStep(h, r, name)
		if err := r.Err(); err != nil || o.DryRun {
			return err
		}
		s.log(h, "deleting node %s from cluster", name)
		m, _ := h.Members() // who the node is isn't known afterwards
		removed = name
		// Before the node is stopped: of two nodes the other one has no quorum then.
		if err := Activate(h, after); err != nil {
			return err
		}
		if id, _ := strconv.ParseUint(node.Get("nodeid"), 10, 32); online {
			// A node that goes on with the old list would be a second cluster.
			s.stopNode(ctx, h, name, m.Nodes[name].IP, uint32(id), o.Kill)
		}
		// A node that ran takes its votes with it before corosync here has loaded that they
		// are no longer expected: for that long there may be no quorum to go on with.
		version, _ := after.ConfigVersion()
		err = s.awaitLoaded(ctx, version, loadLimit)
		for end := h.Time().Add(loadLimit); err == nil && !h.Quorate() && h.Time().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			h.Warnf("%v", err)
		}
		return nil
	}
	if o.DryRun {
		return r, work(ctx)
	}
	if err := Locked(ctx, h, work); err != nil {
		return r, err
	}
	s.cleanUp(ctx, h, o, removed)
	return r, nil
}

// checkRemoval looks for what speaks against the removal of a node, and tells whether it
// is online.
func checkRemoval(h *host.Host, r *plan.Report, f *conf.File, node *conf.Section, o DelOptions) (online bool) {
	name := conf.NodeName(node)
	m, err := h.Members()
	if err != nil {
		r.Warn("members", "", "the member list can't be read: %v", err)
	}
	online = m.Nodes[name].Online == 1
	if online && !o.Kill {
		r.Refuse("online", "shut it down first, and never start it again with its present configuration; --kill has it stopped, and its configuration removed", "node %s is running", name)
	}
	present, total := 0, 0
	for _, n := range f.Nodes() {
		if conf.NodeName(n) == name {
			continue
		}
		votes := 1
		if text, ok := n.Lookup("quorum_votes"); ok {
			votes, _ = strconv.Atoi(text)
		}
		total += votes
		if m.Nodes[conf.NodeName(n)].Online == 1 || conf.NodeName(n) == h.Name {
			present += votes
		}
	}
	if m.Cluster != nil && (o.Device || !f.Section("quorum").Has("device")) && present < total/2+1 {
		r.Refuse("quorum", "start more of the other nodes first", "without %s, %d of %d votes would be present: the cluster would lose quorum", name, present, total)
	}
	if guests, err := h.Guests(); err == nil {
		var on []string
		for id, g := range guests {
			if g.Node == name {
				on = append(on, id)
			}
		}
		if slices.Sort(on); len(on) > 0 {
			r.Warn("guests", "move the files in "+host.Mount+"/nodes/"+name+" to another node's directories to have them there", "%d guests belong to node %s (%s); their configurations stay where they are", len(on), name, brief(on))
		}
	}
	warnOfReferences(h, r, name)
	return online
}

// warnOfReferences shows which of the cluster's settings name a node.
func warnOfReferences(h *host.Host, r *plan.Report, name string) {
	for _, f := range []struct{ file, what string }{
		{"ha/groups.cfg", "HA groups"}, {"ha/resources.cfg", "HA resources"}, {"ha/rules.cfg", "HA rules"},
		{"jobs.cfg", "jobs"}, {"replication.cfg", "replication jobs"}, {"storage.cfg", "storages"},
	} {
		text, err := h.ReadFile(host.Mount + "/" + f.file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.Warn("references", "", "%s can't be read: %v", f.file, err)
		}
		if names(string(text), name) {
			r.Warn("references", "edit it", "%s names node %s among its %s", f.file, name, f.what)
		}
	}
}

// names tells whether a configuration has a name as a word of a value.
func names(text, name string) bool {
	for line := range strings.Lines(text) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, word := range strings.FieldsFunc(value, func(c rune) bool { return strings.ContainsRune(" \t,;:\n", c) }) {
			if word == name {
				return true
			}
		}
	}
	return false
}

func brief(list []string) string {
	if len(list) > 5 {
		return strings.Join(list[:5], ", ") + fmt.Sprintf(" and %d more", len(list)-5)
	}
	return strings.Join(list, ", ")
}
