package reconf

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/cmd/internal/quorumtool"
	"pmxcfs/corosync/conf"
)

// Options are how a change is made.
type Options struct {
	Text    []byte        // the new corosync.conf
	Force   []string      // kinds of problems that are no reason to stop
	DryRun  bool          // check only
	Timeout time.Duration // for the cluster to be as before
}

const (
	// margin is the time between the end of the watch and the guards' deadline.
	margin = 15 * time.Second
	// lookEvery is the time between two looks, and looksGood how many good ones in a row
	// it takes.
	lookEvery = time.Second
	looksGood = 3
	askLimit  = 10 * time.Second // for a node to answer
	kept      = 20               // texts in the history
	// undoLimit is how long the guards are waited for.
	undoLimit = 2 * time.Minute
)

// change is one under way.
type change struct {
	h             *host.Host
	o             Options
	r             *plan.Report
	before, after *conf.File
	stages        []*conf.File
	was, is       uint64            // the versions
	nodes         map[string]string // addresses of the members, by name
}

// Check looks for what speaks against a new corosync.conf, and says what it would do.
// done: it would do nothing.
func Check(ctx context.Context, h *host.Host, o Options) (r *plan.Report, done bool, err error) {
	x, done, err := prepare(ctx, h, o)
	return x.r, done, err
}

// Apply makes a text the cluster's corosync.conf, watches the cluster, and takes it back if
// it isn't as it was before. done: there was nothing to do.
func Apply(ctx context.Context, h *host.Host, o Options) (r *plan.Report, done bool, err error) {
	x, done, err := prepare(ctx, h, o)
	if err != nil || done || o.DryRun {
		return x.r, done, err
	}
	return x.r, false, x.all(ctx)
}

// all goes through the stages of the change. If one is not good, which was taken back then,
// those before it are taken back, too.
func (x *change) all(ctx context.Context) error {
	states := append([]*conf.File{x.before}, x.stages...)
	for i, f := range x.stages {
		if len(x.stages) > 1 {
			x.h.Sayf("Step %d of %d", i+1, len(x.stages))
		}
		err := x.to(ctx, f, i == len(x.stages)-1)
		if err == nil {
			continue
		}
		for _, f := range slices.Backward(states[:i]) {
			if plan.CodeOf(err) == plan.NotUndone {
				break
			}
			x.h.Sayf("Taking the step before back")
			if e := x.to(context.WithoutCancel(ctx), f, false); e != nil {
				return plan.Errorf(plan.NotUndone, "%w\nThe steps before it are not all taken back: %w", err, e)
			}
		}
		return err
	}
	return nil
}

// to makes one stage of the change.
func (x *change) to(ctx context.Context, f *conf.File, last bool) (err error) {
	if x.before, err = cluster.Read(x.h); err != nil {
		return err
	}
	if x.was, err = x.before.ConfigVersion(); err != nil {
		return err
	}
	wanted, _ := f.ConfigVersion()
	if x.is = x.was + 1; last {
		x.is = max(x.is, wanted)
	}
	text, err := withVersion(f.Text(), x.is)
	if err != nil {
		return err
	}
	if x.after, err = conf.Read(text); err != nil {
		return err
	}
	return x.run(ctx)
}

func prepare(ctx context.Context, h *host.Host, o Options) (x *change, done bool, err error) {
	x = &change{h: h, o: o, r: &plan.Report{}}
	if err := cluster.NeedCluster(h); err != nil {
		return x, false, err
	}
	if err := h.NeedQuorum(); err != nil {
		return x, false, err
	}
	if x.before, err = cluster.Read(h); err != nil {
		return x, false, err
	}
	if x.was, err = x.before.ConfigVersion(); err != nil {
		return x, false, err
	}
	given, err := conf.Read(o.Text)
	if err != nil {
		return x, false, plan.Fail(plan.Refused, "config-unparsable", "", "the new corosync.conf: %v", err)
	}
	if len(given.Defects()) > 0 {
		return x, false, cluster.Refusal(&conf.Refusal{Kind: conf.KindConfigInvalid, Text: "the new corosync.conf is not as it must be", Findings: given.Defects()})
	}
	version, err := given.ConfigVersion()
	if err != nil {
		return x, false, plan.Fail(plan.Refused, conf.KindBadVersion, "", "the new corosync.conf: %v", err)
	}
	if version < x.was {
		x.r.Stop("config-version", "begin with a copy of the present text", "the text has config_version %d, and the cluster's is %d: it was made from an older one", version, x.was)
	}
	if same, err := withVersion(o.Text, x.was); err == nil && bytes.Equal(same, x.before.Text()) {
		return x, true, nil
	}
	x.is = max(version, x.was+1)
	text, err := withVersion(o.Text, x.is)
	if err != nil {
		return x, false, err
	}
	if x.after, err = conf.Read(text); err != nil {
		return x, false, err
	}
	x.judge()
	if x.stages, err = stages(x.before, x.after); err != nil {
		return x, false, err
	}
	if err := x.members(); err != nil {
		return x, false, err
	}
	if x.r.Err() == nil {
		x.test(ctx)
	}
	for _, line := range Effect(x.before, x.after) {
		x.r.Step("%s", line)
	}
	if len(x.stages) > 1 {
		x.r.Step("corosync can't change a link's address while it runs: other links take its place for a while, in %d steps", len(x.stages))
	}
	x.r.Step("version %d becomes %d; every node goes back by itself unless the cluster is as before within %s", x.was, x.is, o.Timeout)
	x.r.Force(o.Force...)
	return x, false, x.r.Err()
}

// judge looks at the text.
func (x *change) judge() {
	had := map[conf.Finding]bool{}
	for _, f := range x.before.Problems() {
		f.Line = 0
		had[f] = true
	}
	for _, f := range x.after.Problems() {
		text := f.String()
		if f.Line = 0; !had[f] {
			x.r.Stop(f.Kind, "", "%s", text)
		}
	}
	if why := conf.Objection(x.after.Text(), x.before.Text()); why != "" {
		x.r.Stop("objection", "", "corosync would not take it: %s", why)
	}
	_, warnings := x.after.Check(x.h.Resolve)
	for _, w := range warnings {
		x.r.Warn(w.Kind, "", "%s", w)
	}
	for _, n := range x.before.Nodes() {
		if name := conf.NodeName(n); x.after.Node(name) == nil {
			x.r.Refuse("node-goes", "pvecm delnode "+name, "node %s is missing in the new text", name)
		}
	}
	for _, n := range x.after.Nodes() {
		if name := conf.NodeName(n); x.before.Node(name) == nil {
			x.r.Refuse("node-comes", "pvecm add, on that host", "node %s is new in the text", name)
		}
	}
	if text, err := x.h.ReadFile(host.Mount + "/ha/resources.cfg"); err == nil && strings.TrimSpace(string(text)) != "" {
		x.r.Warn("ha", "ha-manager crm-command node-maintenance enable NODE, on every node", "high availability is in use: nodes that lose quorum for a minute are fenced")
	}
}

// members finds the nodes, which all have to be there.
func (x *change) members() error {
	m, err := x.h.Members()
	if err != nil {
		return err
	}
	x.nodes = map[string]string{}
	for _, n := range x.before.Nodes() {
		name := conf.NodeName(n)
		if m.Nodes[name].Online != 1 {
			x.r.Refuse("node-offline", "start it, or remove it", "node %s is not online: it would not get the change, nor be able to go back", name)
			continue
		}
		x.nodes[name] = m.Nodes[name].IP
	}
	return nil
}

// on runs pvecm on a node.
func (x *change) on(ctx context.Context, name string, in []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	command := append([]string{"/usr/bin/pvecm"}, args...)
	if name != x.h.Name {
		command = append(x.h.SSH(name, x.nodes[name], "-o", "ConnectTimeout=5", "-o", "UpdateHostKeys=no"), append([]string{"--"}, command...)...)
	}
	return x.h.Pipe(ctx, bytes.NewReader(in), command...)
}

// everywhere does something on all members at once, and returns the failures by name.
func (x *change) everywhere(f func(name string) error) map[string]error {
	failed := map[string]error{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for name := range x.nodes {
		all.Go(func() {
			if err := f(name); err != nil {
				mu.Lock()
				failed[name] = err
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return failed
}

// test has corosync on each node test the text.
func (x *change) test(ctx context.Context) {
	failed := x.everywhere(func(name string) error {
		_, err := x.on(ctx, name, x.after.Text(), "config-guard", "test")
		return err
	})
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		x.r.Refuse("node-test", "\"pvecm check\" says more if the node can't be reached", "node %s: %v", name, failed[name])
	}
}

// Test has this host's corosync test a text.
func Test(ctx context.Context, h *host.Host, text []byte) error {
	f, err := os.CreateTemp("", "corosync.conf-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := h.Do(ctx, host.Command{Args: []string{"corosync", "-t", "-c", f.Name()}, Stdout: &out, Stderr: &out}); err != nil {
		return plan.Fail(plan.Refused, "node-test", "", "corosync refuses it: %v: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}

// run makes the change.
func (x *change) run(ctx context.Context) error {
	pledge := Pledge{ID: rand.Text(), Version: x.is, Old: string(x.before.Text()), Limit: x.o.Timeout + margin}
	text, err := json.Marshal(pledge)
	if err != nil {
		return err
	}
	x.h.Sayf("Having every node hold the present configuration ready")
	if failed := x.everywhere(func(name string) error {
		_, err := x.on(ctx, name, text, "config-guard", "arm")
		return err
	}); len(failed) > 0 {
		x.due(ctx, pledge.ID)
		return plan.Errorf(plan.Failed, "not every node can hold the present configuration ready, so nothing was changed: %w", joined(failed))
	}
	err = cluster.Locked(ctx, x.h, func(context.Context) error {
		now, err := cluster.Read(x.h)
		if err != nil {
			return err
		}
		if now.Digest() != x.before.Digest() {
			return plan.Fail(plan.Refused, "changed-meanwhile", "look at it, and try again", "the cluster's corosync.conf was changed at the same time")
		}
		if err := x.save(); err != nil {
			return fmt.Errorf("keep the present text: %w", err)
		}
		return cluster.Activate(x.h, x.after)
	})
	if err != nil {
		x.due(ctx, pledge.ID)
		return err
	}
	x.h.Sayf("Version %d is active; watching the cluster for up to %s", x.is, x.o.Timeout)
	bad := x.watch(ctx)
	if bad == nil {
		if err := x.h.WriteTree(confirmedFile, []byte(pledge.ID+"\n")); err == nil {
			x.h.Sayf("The cluster is as before, with version %d", x.is)
			return nil
		} else {
			bad = fmt.Errorf("it can't be confirmed: %w", err)
		}
	}
	fmt.Fprintf(x.h.Stderr, "%v\nGoing back.\n", bad)
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	x.due(back, pledge.ID)
	if err := x.awaitReturn(back); err != nil {
		return plan.Errorf(plan.NotUndone, "the change was not good: %w\nThe nodes are still going back, and go on with it by themselves: %w", bad, err)
	}
	return plan.Errorf(plan.Failed, "the change was not good: %w\nIt was taken back: the configuration is as before, with version %d", bad, x.is+1)
}

func joined(failed map[string]error) error {
	var list []error
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		list = append(list, fmt.Errorf("node %s: %w", name, failed[name]))
	}
	return errors.Join(list...)
}

// due has the guards go back, as far as they can be reached. Those that can't do it at
// their deadline.
func (x *change) due(ctx context.Context, id string) {
	ctx = context.WithoutCancel(ctx)
	x.everywhere(func(name string) error {
		_, err := x.on(ctx, name, []byte(id), "config-guard", "due")
		return err
	})
}

// save keeps the present text in the tree.
func (x *change) save() error {
	if err := os.MkdirAll(x.h.Path(historyDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := x.h.WriteTree(historyDir+"/"+strconv.FormatUint(x.was, 10), x.before.Text()); err != nil {
		return err
	}
	list, err := Saved(x.h)
	if err != nil {
		return err
	}
	for _, old := range list[min(kept, len(list)):] {
		if err := os.Remove(x.h.Path(historyDir + "/" + strconv.FormatUint(old, 10))); err != nil {
			return err
		}
	}
	return nil
}

// watch looks at the cluster until it is good; an error says what isn't.
func (x *change) watch(ctx context.Context) error {
	end := x.h.Time().Add(x.o.Timeout)
	quorate := x.h.Time()
	good := 0
	for {
		bad := x.look(ctx, x.is)
		if bad == nil {
			if good++; good == looksGood {
				return nil
			}
		} else {
			good = 0
		}
		now := x.h.Time()
		if x.h.Quorate() {
			quorate = now
		}
		switch {
		case ctx.Err() != nil:
			return plan.Errorf(plan.Failed, "interrupted")
		case now.Sub(quorate) > lostLimit:
			return plan.Errorf(plan.Failed, "there is no quorum since %s: %w", now.Sub(quorate).Round(time.Second), bad)
		case now.After(end):
			return plan.Errorf(plan.Failed, "not within %s: %w", x.o.Timeout, bad)
		}
		_ = pause(ctx, lookEvery)
	}
}

// look compares the cluster with what it was, as each node sees it.
func (x *change) look(ctx context.Context, version uint64) error {
	return joined(x.everywhere(func(name string) error {
		out, err := x.on(ctx, name, nil, "status", "--output-format", "json")
		var d quorumtool.Document
		if e := json.Unmarshal(out, &d); e != nil {
			return errors.Join(err, e)
		}
		return x.judgeNode(d, version)
	}))
}

// judgeNode says what is wrong with the cluster as a node sees it.
func (x *change) judgeNode(d quorumtool.Document, version uint64) error {
	switch {
	case d.Quorum == nil:
		return errors.New("corosync does not answer")
	case !d.Quorum.Quorate:
		return errors.New("no quorum")
	case d.Quorum.Loaded != version:
		return fmt.Errorf("corosync has version %d of its configuration, not %d", d.Quorum.Loaded, version)
	}
	online := map[string]bool{}
	for _, n := range d.Nodes {
		if !n.Online {
			continue
		}
		online[n.Name] = true
		for _, l := range n.Links {
			if !l.Up {
				return fmt.Errorf("link %d to node %s is not connected", l.Number, n.Name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.nodes)) {
		if !online[name] {
			return fmt.Errorf("node %s is no member", name)
		}
	}
	return nil
}

// awaitReturn waits until the cluster is as it was, with the next version.
func (x *change) awaitReturn(ctx context.Context) error {
	for {
		err := x.look(ctx, x.is+1)
		if err == nil {
			return nil
		}
		if pause(ctx, lookEvery) != nil {
			return err
		}
	}
}

func sortDown(list []uint64) {
	slices.SortFunc(list, func(a, b uint64) int {
		switch {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return 0
	})
}
