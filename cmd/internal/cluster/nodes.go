package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

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

// DelOptions are how a node is removed.
type DelOptions struct {
	Node   string
	Force  []string // kinds of problems that are no reason to stop
	DryRun bool
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
	work := func(context.Context) error {
		before, err := Read(h)
		if err != nil {
			return err
		}
		keepDevice := slices.Contains(o.Force, conf.KindQDevice) || slices.Contains(o.Force, "all")
		after, err := before.RemoveNode(o.Node, keepDevice)
		if err != nil {
			return Refusal(err)
		}
		node := before.FindNode(o.Node)
		name := conf.NodeName(node)
		if name == h.Name {
			return plan.Fail(plan.Refused, "is-local-node", "call it on another node", "%s is this node", o.Node)
		}
		online := checkRemoval(h, r, before, node)
		r.Force(o.Force...)
		r.Step("corosync.conf: node %s (id %s) goes, version %s becomes %s", name, node.Get("nodeid"), before.Section("totem").Get("config_version"), after.Section("totem").Get("config_version"))
		if err := r.Err(); err != nil || o.DryRun {
			return err
		}
		s.log(h, "deleting node %s from cluster", name)
		if id, err := strconv.ParseUint(node.Get("nodeid"), 10, 32); err == nil && s.Kill != nil && online {
			// A node that goes on with the old list would be a second cluster.
			if err := s.Kill(uint32(id)); err != nil {
				h.Warnf("corosync on %s was not ended: %v", name, err)
			}
		}
		return Activate(h, after)
	}
	if o.DryRun {
		return r, work(ctx)
	}
	return r, Locked(ctx, h, work)
}

// checkRemoval looks for what speaks against the removal of a node, and tells whether it
// is online.
func checkRemoval(h *host.Host, r *plan.Report, f *conf.File, node *conf.Section) (online bool) {
	name := conf.NodeName(node)
	m, err := h.Members()
	if err != nil {
		r.Warn("members", "", "the member list can't be read: %v", err)
	}
	online = m.Nodes[name].Online == 1
	if online {
		r.Refuse("online", "shut it down first, and never start it again with its present configuration; --force=online removes it all the same, and ends its corosync", "node %s is running", name)
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
	if m.Cluster != nil && !f.Section("quorum").Has("device") && present < total/2+1 {
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
	for file, what := range map[string]string{"ha/resources.cfg": "HA resources", "ha/groups.cfg": "HA groups", "ha/rules.cfg": "HA rules", "replication.cfg": "replication jobs", "storage.cfg": "storages"} {
		text, err := h.ReadFile(host.Mount + "/" + file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.Warn("references", "", "%s can't be read: %v", file, err)
		}
		if names(string(text), name) {
			r.Warn("references", "edit it", "%s names node %s among its %s", file, name, what)
		}
	}
	if _, err := os.Lstat(h.Path(host.Mount + "/nodes/" + name)); err == nil {
		r.Warn("leftovers", "", "%s/nodes/%s stays, and so does its key in priv/authorized_keys", host.Mount, name)
	}
	return online
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
