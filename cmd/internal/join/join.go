package join

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
	"pmxcfs/memdb/sqlite"
)

// Options are how this host joins.
type Options struct {
	Peer        string // name or address of a node of the cluster
	Fingerprint string // of its web certificate, or of its host key
	Via         string // api, ssh or auto
	Request     Request
	Force       []string
	DryRun      bool
	Timeout     time.Duration // to become a member
	// Version is this program's, and Corosync that of corosync here; empty: unknown.
	Version, Corosync string
	CopyID            bool // take root's ssh key there first
	// WithDevice: the cluster's external vote, if it has one, is set up again for the new number of nodes.
	WithDevice bool
	// RollbackPeer: a stock peer that lost quorum by the entry gets it back by lowering
	// its expected votes.
	RollbackPeer bool

	// Credentials asks for the password; called once, if it is needed.
	Credentials func() (Credentials, error)
	// Trust asks whether a certificate is to be trusted; nil: none that doesn't verify.
	Trust func(fingerprint string) bool
	// Second asks for a second factor; nil: nobody can be asked.
	Second func(kinds []string) (kind, code string, err error)
	// Terminal: ssh may ask.
	Terminal bool
}

// Services are what a join needs of other packages.
type Services struct {
	// RootKey makes root's ssh key, if there is none.
	RootKey func(ctx context.Context, h *host.Host) error
	// PrepareSSH lets nodes log in with their keys, too.
	PrepareSSH func(ctx context.Context, h *host.Host) error
	// Finish makes this node's certificate and keys, once it is a member.
	Finish func(ctx context.Context, h *host.Host) error
	// Task does work as a task of a type that Proxmox's web interface shows; nil: it is none.
	Task func(h *host.Host, kind, id string, work func() error) error
	// Connect replaces the way to the peer; for tests.
	Connect func(ctx context.Context, h *host.Host, o *Options) (Peer, string, error)
}

// join is a join under way.
type join struct {
	h       *host.Host
	s       Services
	o       *Options
	peer    Peer
	facts   *Facts
	journal *Journal
}

// Add makes this host a node of the peer's cluster. done: it is one already.
func Add(ctx context.Context, h *host.Host, s Services, o Options) (r *plan.Report, done bool, err error) {
	r = &plan.Report{}
	if j, err := ReadJournal(h); err != nil || j != nil {
		if err != nil {
			return r, false, err
		}
		return r, false, plan.Fail(plan.Refused, "unfinished", "\"pvecm add --resume\" goes on with it, \"pvecm add --abort\" takes it back", "a join to the cluster of %s, begun at %s, is unfinished (phase %s)", j.Peer, j.Begun.Format(time.DateTime), j.Phase)
	}
	if err := h.Mounted(); err != nil {
		return r, false, err
	}
	if len(o.Request.Links) == 0 && o.Request.Fallback == "" {
		a, err := h.Address()
		if err != nil {
			return r, false, err
		}
		o.Request.Fallback = a.String()
	}
	checkHost(h, r, o.Request)
	r.Force(o.Force...)
	// A host that is in a cluster may be in this one. Otherwise nothing is asked of the
	// peer, nor a password of the user, that is in vain.
	if err := r.Err(); err != nil && !slices.Contains(plan.Kinds(err), "cluster-exists") {
		return r, false, err
	}
	if o.CopyID && !o.DryRun && s.RootKey != nil {
		if err := s.RootKey(ctx, h); err != nil {
			return r, false, err
		}
	}
	x := &join{h: h, s: s, o: &o}
	via := ""
	if x.peer, via, err = x.connect(ctx); err != nil {
		if o.CopyID && o.DryRun {
			r.Warn("copy-id", "", "root's key would be taken to %s first, which a dry run doesn't do", o.Peer)
		}
		return r, false, errors.Join(r.Err(), err)
	}
	defer func() { err = errors.Join(err, x.peer.Close()) }()
	if x.facts, err = x.peer.Facts(ctx); err != nil {
		return r, false, errors.Join(r.Err(), err)
	}
	if done, err := x.already(); done || err != nil {
		return r, done, err
	}
	checkFacts(h, r, x.facts, o.Request, h.Time())
	checkVersions(r, x.facts, o)
	checkWays(ctx, h, r, x.facts, o.Request)
	r.Force(o.Force...)
	if r.Err() == nil {
		problems, err := x.peer.Check(ctx, o.Request)
		if err != nil {
			return r, false, err
		}
		for _, p := range problems {
			p.Hard = true
			r.Add(p)
		}
	}
	device := o.WithDevice && x.facts.Device
	if device && via != "dialogue" {
		return r, false, plan.Fail(plan.Refused, conf.KindQDevice, "take it away first (pvecm qdevice remove), and set it up again afterwards", "the external vote can be set up again over ssh only, and by a node with this project's pvecm")
	}
	x.steps(r, via)
	if device {
		r.Step("%s sets the external vote up again, for %d nodes", o.Peer, len(x.facts.Members)+1)
	}
	if err := r.Err(); err != nil || o.DryRun {
		return r, false, err
	}
	x.journal = &Journal{Peer: o.Peer, Via: via, Fingerprint: o.Fingerprint, Request: o.Request, Begun: h.Time()}
	work := func() error {
		if err := h.Flock(ctx, cluster.Lock, func() error { return x.run(ctx, Prepared) }); err != nil || !device {
			return err
		}
		return x.renewDevice(ctx)
	}
	if s.Task != nil {
		return r, false, s.Task(h, "clusterjoin", "", work)
	}
	return r, false, work()
}

// already tells whether this host is a node of the peer's cluster.
func (x *join) already() (bool, error) {
	if !x.h.Exists(host.ClusterConf) || x.facts.Cluster == "" {
		return false, nil
	}
	f, err := cluster.Read(x.h)
	if err != nil {
		return false, err
	}
	return f.Section("totem").Get("cluster_name") == x.facts.Cluster && f.Node(x.h.Name) != nil &&
		slices.ContainsFunc(x.facts.Members, func(m Member) bool { return m.Name == x.h.Name }), nil
}

func (x *join) steps(r *plan.Report, via string) {
	r.Step("the cluster %s of %s gets node %s, over %s", x.facts.Cluster, x.o.Peer, x.o.Request.Name, map[string]string{"api": "its API", "ssh": "ssh", "dialogue": "ssh"}[via])
	if via == "dialogue" {
		r.Step("it is entered without votes, and gets %d once it is a member", x.o.Request.votes())
	}
	r.Step("this host gets corosync's key and configuration; its own tree goes to the backup, and the cluster's takes its place")
	r.Step("corosync and pve-cluster start; within %s this node has to be a member", x.o.Timeout)
	r.Step("its certificate and keys are made, and the web services load them")
}

// renewDevice has the peer, which the external host knows, set the external vote up again.
func (x *join) renewDevice(ctx context.Context) error {
	d, ok := x.peer.(interface {
		output(ctx context.Context, command ...string) ([]byte, error)
	})
	if !ok {
		return nil
	}
	x.h.Sayf("%s sets the external vote up again", x.o.Peer)
	if _, err := d.output(ctx, "pvecm", "qdevice", "setup", "--renew", "--no-copy-id"); err != nil {
		return plan.Errorf(plan.NotUndone, "this host is a member of the cluster, but the external vote is not set up for the new number of nodes (\"pvecm qdevice setup --renew\" on %s tries again): %w", x.o.Peer, err)
	}
	return nil
}

// connect finds the way to the peer.
func (x *join) connect(ctx context.Context) (Peer, string, error) {
	if x.s.Connect != nil {
		return x.s.Connect(ctx, x.h, x.o)
	}
	return connect(ctx, x.h, x.o)
}

func connect(ctx context.Context, h *host.Host, o *Options) (Peer, string, error) {
	if o.Via != "ssh" {
		if o.Via == "api" || apiAnswers(ctx, o.Peer) {
			c, err := o.Credentials()
			if err != nil {
				return nil, "", err
			}
			a := newAPI(o.Peer, o.Fingerprint, c, o.Trust)
			a.second = o.Second
			return a, "api", nil
		}
	}
	s, err := newShell(ctx, h, o.Peer, o.Fingerprint, o.Terminal)
	if err != nil {
		return nil, "", err
	}
	if o.CopyID && !o.DryRun {
		if err := s.copyID(ctx); err != nil {
			return nil, "", errors.Join(err, s.Close())
		}
	}
	d, err := newDialogue(ctx, s)
	switch {
	case err == nil:
		return d, "dialogue", nil
	case errors.Is(err, errStock):
		return &stock{shell: s}, "ssh", nil
	}
	return nil, "", errors.Join(err, s.Close())
}

// unfinished returns the join that the host's journal tells of, with its options in o.
func unfinished(h *host.Host, s Services, o *Options) (*join, error) {
	j, err := ReadJournal(h)
	if err != nil {
		return nil, err
	}
	if j == nil {
		return nil, plan.Fail(plan.Refused, "nothing-unfinished", "", "no join is unfinished on this host")
	}
	o.Peer, o.Request = j.Peer, j.Request
	if o.Fingerprint == "" {
		o.Fingerprint = j.Fingerprint
	}
	if o.Via = j.Via; o.Via == "dialogue" {
		o.Via = "ssh"
	}
	return &join{h: h, s: s, o: o, journal: j}, nil
}

// Resume goes on with a join that was interrupted.
func Resume(ctx context.Context, h *host.Host, s Services, o Options) error {
	x, err := unfinished(h, s, &o)
	if err != nil {
		return err
	}
	j := x.journal
	return h.Flock(ctx, cluster.Lock, func() (err error) {
		switch from := j.Phase; from {
		case Finished:
			return x.finish(ctx)
		case Joined:
			if x.isMember() == nil { // it came that far by itself
				return x.run(ctx, Joined)
			}
			fallthrough
		case Entered, Switched:
			// The cluster may have taken the entry back: ask again, and begin there.
			if x.peer, _, err = x.connect(ctx); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, x.peer.Close()) }()
			if x.facts, err = x.peer.Facts(ctx); err != nil {
				return err
			}
			if !x.facts.own {
				x.o.Request.Force = true
			}
			return x.run(ctx, Entered)
		default:
			if err := x.journal.forget(h); err != nil {
				return err
			}
			return plan.Fail(plan.Refused, "nothing-unfinished", "call pvecm add again", "nothing had been changed yet")
		}
	})
}

// Abort takes back what a join that was interrupted has done.
func Abort(ctx context.Context, h *host.Host, s Services, o Options) error {
	x, err := unfinished(h, s, &o)
	if err != nil {
		return err
	}
	j := x.journal
	if j.Phase == Finished {
		return plan.Fail(plan.Refused, "is-member", "\"pvecm add --resume\" completes it", "this host is a member of the cluster already")
	}
	return h.Flock(ctx, cluster.Lock, func() (err error) {
		if j.Phase == Entered || j.Phase == Switched || j.Phase == Joined {
			if x.peer, _, err = x.connect(ctx); err != nil {
				x.h.Warnf("the cluster can't be reached: %v", err)
				x.peer = nil
			} else {
				defer func() { err = errors.Join(err, x.peer.Close()) }()
				if x.facts, err = x.peer.Facts(ctx); err != nil {
					x.h.Warnf("the cluster can't be reached: %v", err)
					x.peer = nil
				}
			}
		}
		return x.rollBack()
	})
}

// run goes through the phases, from one on, and takes everything back if one fails.
func (x *join) run(ctx context.Context, from Phase) error {
	err := x.phases(ctx, from)
	if err == nil {
		return x.finish(ctx)
	}
	h := x.h
	fmt.Fprintf(h.Stderr, "%v\nTaking everything back.\n", err)
	if ctx.Err() != nil && plan.CodeOf(err) != plan.Timeout {
		err = plan.Errorf(plan.Failed, "interrupted: %w", err)
	}
	if undone := x.rollBack(); undone != nil {
		return plan.Errorf(plan.NotUndone, "the join failed: %w\nNot all of it could be taken back: %w", err, undone)
	}
	return plan.Errorf(max(plan.CodeOf(err), plan.Failed), "the join failed: %w\nEverything was taken back: this host is what it was, and the cluster doesn't have it", err)
}

// phases are what can be taken back.
func (x *join) phases(ctx context.Context, from Phase) error {
	h, j := x.h, x.journal
	if from == Prepared {
		if err := x.prepare(); err != nil {
			return err
		}
		if x.s.PrepareSSH != nil {
			if err := x.s.PrepareSSH(ctx, h); err != nil {
				return err
			}
		}
	}
	if from != Joined {
		if err := j.note(h, Entered); err != nil {
			return err
		}
		h.Sayf("Request addition of this node")
		answer, err := x.peer.Enter(ctx, x.o.Request)
		if err != nil {
			if plan.CodeOf(err) == plan.Refused || plan.CodeOf(err) == plan.Parameters {
				j.Phase = Prepared // there is nothing to take out, and the name may be another node's
			}
			return err
		}
		for _, w := range answer.Warnings {
			h.Warnf("%s", w)
		}
		if j.Version, err = judge(answer, x.o.Request); err != nil {
			return err
		}
		if err := j.note(h, Switched); err != nil {
			return err
		}
		h.Sayf("Join request OK, finishing setup locally")
		if err := x.switchOver(ctx, answer); err != nil {
			return err
		}
		if err := j.note(h, Joined); err != nil {
			return err
		}
	}
	h.Sayf("Waiting until this node is a member with quorum")
	if err := x.waitForMembership(ctx); err != nil {
		return err
	}
	return nil
}

// minKey is the least number of bytes of a key that is taken.
const minKey = cluster.MinAuthKey

// judge checks the peer's answer before anything is done with it.
func judge(a *cluster.Answer, r Request) (version uint64, err error) {
	if len(a.AuthKey) < minKey {
		return 0, plan.Errorf(plan.Failed, "the cluster's key has %d bytes only", len(a.AuthKey))
	}
	f, err := conf.Read(a.Conf)
	if err != nil {
		return 0, plan.Errorf(plan.Failed, "the cluster's corosync.conf: %w", err)
	}
	if f.Node(r.Name) == nil {
		return 0, plan.Errorf(plan.Failed, "the cluster's corosync.conf doesn't have this node, %s", r.Name)
	}
	return f.ConfigVersion()
}

// hostFiles are what a join replaces or makes on the host.
var hostFiles = []string{host.CorosyncConf, host.AuthKey}

// prepare copies what is going to be replaced.
func (x *join) prepare() error {
	h, j := x.h, x.journal
	if err := os.RemoveAll(h.Path(savedDir)); err != nil {
		return err
	}
	if err := h.Mkdir(savedDir, 0o700); err != nil {
		return err
	}
	for n, path := range hostFiles {
		s := Saved{Path: path}
		info, err := os.Stat(h.Path(path))
		if err == nil {
			text, err := h.ReadFile(path)
			if err != nil {
				return err
			}
			s.Exists, s.Mode, s.Copy = true, info.Mode().Perm(), savedDir+"/"+strconv.Itoa(n)
			if err := h.WriteFile(s.Copy, text, 0o600); err != nil {
				return err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		j.Files = append(j.Files, s)
	}
	// Whoever may log in as root here keeps that: updatecerts merges this.
	if text, err := h.ReadFile(host.Mount + "/priv/authorized_keys"); err == nil {
		if err := h.WriteFile(savedKeys, text, 0o600); err != nil {
			return err
		}
	}
	if err := cluster.CopyDatabase(h, savedDir+"/config.db"); err != nil {
		return fmt.Errorf("back up the tree's database: %w", err)
	}
	j.Corosync = x.active("corosync")
	return j.note(h, Prepared)
}

// active tells whether a unit runs.
func (x *join) active(unit string) bool {
	return x.h.Do(context.Background(), host.Command{Args: []string{"systemctl", "is-active", "--quiet", unit}}) == nil
}

// switchOver makes this host's files those of the cluster. Doing so again is no mistake.
func (x *join) switchOver(ctx context.Context, a *cluster.Answer) error {
	h := x.h
	if err := h.Mkdir(host.CorosyncDir, 0o755); err != nil {
		return err
	}
	if err := h.WriteFile(host.AuthKey, a.AuthKey, 0o400); err != nil {
		return err
	}
	if err := h.WriteFile(host.CorosyncConf, a.Conf, 0o644); err != nil {
		return err
	}
	h.Sayf("Stopping pve-cluster")
	if err := h.Run(ctx, "systemctl", "stop", "pve-cluster"); err != nil {
		return err
	}
	if x.active("corosync") {
		if err := h.Run(ctx, "systemctl", "stop", "corosync"); err != nil {
			return err
		}
	}
	if err := x.keepBackup(); err != nil {
		h.Warnf("the backup of the old tree: %v", err)
	}
	if err := cluster.RemoveDatabase(h); err != nil {
		return err
	}
	h.Sayf("Starting corosync and pve-cluster")
	return h.Run(ctx, "systemctl", "start", "corosync", "pve-cluster")
}

const (
	savedKeys = savedDir + "/authorized_keys"
	// oldKeys is what authorized_keys was before it became the cluster's.
	oldKeys = "/root/.ssh/authorized_keys.org"

	backupDir   = "/var/lib/pve-cluster/backup"
	keptBackups = 10
)

// keepBackup puts the copy of the old tree where backups are, of which the newest stay.
func (x *join) keepBackup() error {
	h := x.h
	if err := h.Mkdir(backupDir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(h.Path(backupDir), 0o700); err != nil {
		return err
	}
	// The form in which the stock tool leaves it, and administrators' scripts expect it.
	var text bytes.Buffer
	packed := gzip.NewWriter(&text)
	if err := errors.Join(sqlite.WriteSQL(packed, h.Path(savedDir+"/config.db")), packed.Close()); err != nil {
		return err
	}
	if err := h.WriteFile(fmt.Sprintf("%s/config-%d.sql.gz", backupDir, x.journal.Begun.Unix()), text.Bytes(), 0o644); err != nil {
		return err
	}
	return prune(h.Path(backupDir), keptBackups)
}

// prune removes all backups of trees but the newest.
func prune(dir string, keep int) error {
	var list []string
	list, err := filepath.Glob(filepath.Join(dir, "config-*.sql.gz"))
	if err != nil {
		return err
	}
	age := func(path string) int {
		name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "config-"), ".")
		n, _ := strconv.Atoi(name)
		return n
	}
	slices.SortFunc(list, func(a, b string) int { return age(b) - age(a) })
	var errs []error
	for _, path := range list[min(keep, len(list)):] {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

// isMember says what is missing until this host is a node with the cluster's tree.
func (x *join) isMember() error {
	h := x.h
	if err := h.Mounted(); err != nil {
		return err
	}
	m, err := h.Members()
	switch {
	case err != nil:
		return err
	case m.Cluster == nil:
		return errors.New("the daemon is not in cluster mode")
	case m.Nodes[h.Name].Online != 1:
		return errors.New("this node is not online")
	case m.Cluster.Quorate != 1 || !h.Quorate():
		return errors.New("there is no quorum")
	}
	// corosync.conf alone says nothing: the daemon takes the host's into a new tree. The
	// peer has made this directory.
	if dir := host.Mount + "/nodes/" + h.Name; !h.Exists(dir) {
		return fmt.Errorf("the tree is not the cluster's yet: it has no %s", dir)
	}
	f, err := cluster.Read(h)
	if err != nil {
		return err
	}
	if version, err := f.ConfigVersion(); err != nil || version < x.journal.Version {
		return fmt.Errorf("the tree is not the cluster's yet: corosync.conf has version %d, not %d (%w)", version, x.journal.Version, err)
	}
	if f.Node(h.Name) == nil {
		return errors.New("the cluster's corosync.conf doesn't have this node")
	}
	return nil
}

// waitForMembership waits until this host is a member, and has its votes set.
func (x *join) waitForMembership(ctx context.Context) error {
	limit := x.o.Timeout
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := x.isMember()
		if err == nil {
			break
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return plan.Fail(plan.Timeout, "not-a-member", "journalctl -u corosync -u pve-cluster; is UDP 5405 open between all nodes?", "this host was not a member of the cluster within %s: %v", limit, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if x.journal.Via != "dialogue" {
		return nil
	}
	if x.peer != nil {
		err := x.peer.Confirm(ctx, x.o.Request)
		if err == nil {
			return nil
		}
		x.h.Warnf("%s: %v; this node sets its votes itself", x.o.Peer, err)
	}
	// It is a member: it can do that itself.
	return cluster.SetVotesLocked(ctx, x.h, x.h.Name, x.o.Request.votes())
}

// webUnits load a node's certificate when they start.
var webUnits = []string{"pvedaemon", "pveproxy"}

// finish does what is left once the host is a member. Nothing is taken back any more.
func (x *join) finish(ctx context.Context) error {
	h, j := x.h, x.journal
	if err := j.note(h, Finished); err != nil {
		return err
	}
	if text, err := h.ReadFile(savedKeys); err == nil && h.Exists("/root/.ssh") && !h.Exists(oldKeys) {
		if err := h.WriteFile(oldKeys, text, 0o600); err != nil {
			return err
		}
	}
	if x.s.Finish != nil {
		if err := x.s.Finish(ctx, h); err != nil {
			return plan.Errorf(plan.NotUndone, "this host is a member of the cluster, but its keys are not complete: %w (\"pvecm add --resume\" tries again)", err)
		}
	}
	if units := h.Installed(webUnits); len(units) > 0 {
		if err := h.Run(ctx, append([]string{"systemctl", "reload-or-restart"}, units...)...); err != nil {
			h.Warnf("the web services didn't load the new certificate: %v", err)
		}
	}
	if err := j.forget(h); err != nil {
		return err
	}
	h.Sayf("This node, %s, is a member of the cluster", h.Name)
	return nil
}

// rollBackLimit is how long taking back may take.
const rollBackLimit = 3 * time.Minute

// rollBack brings this host back to what it was, then has the cluster forget it.
func (x *join) rollBack() error {
	ctx, cancel := context.WithTimeout(context.Background(), rollBackLimit)
	defer cancel()
	h, j := x.h, x.journal
	entered := j.Phase == Entered || j.Phase == Switched || j.Phase == Joined
	if j.Phase == Switched || j.Phase == Joined {
		if err := x.restore(ctx); err != nil {
			return fmt.Errorf("this host: %w (what was there is in %s; \"pvecm add --abort\" tries again)", err, h.Path(savedDir))
		}
	}
	if entered {
		if err := x.withdraw(ctx); err != nil {
			return err
		}
	}
	return j.forget(h)
}

// restore puts this host's files back and starts it as it ran.
func (x *join) restore(ctx context.Context) error {
	h, j := x.h, x.journal
	// Both are tried: what doesn't run needn't stop.
	errs := []error{h.Run(ctx, "systemctl", "stop", "pve-cluster"), h.Run(ctx, "systemctl", "stop", "corosync")}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, s := range j.Files {
		if !s.Exists {
			if err := os.Remove(h.Path(s.Path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		text, err := h.ReadFile(s.Copy)
		if err != nil {
			return err
		}
		if err := h.WriteFile(s.Path, text, s.Mode); err != nil {
			return err
		}
	}
	if err := cluster.RestoreDatabase(h, savedDir+"/config.db"); err != nil {
		return err
	}
	if err := h.Run(ctx, "systemctl", "start", "pve-cluster"); err != nil {
		return err
	}
	if j.Corosync {
		if err := h.Run(ctx, "systemctl", "start", "corosync"); err != nil {
			h.Warnf("%v", err)
		}
	}
	return nil
}

// lost tells whether an error is the end of the connection.
func lost(err error) bool { return errors.Is(err, io.EOF) || plan.CodeOf(err) == plan.Timeout }

// withdraw has the cluster forget this node.
func (x *join) withdraw(ctx context.Context) error {
	r := x.o.Request
	by := fmt.Sprintf("\"pvecm delnode %s\" on %s", r.Name, x.o.Peer)
	err := errors.New("it can't be reached")
	if x.peer != nil {
		if x.journal.Via != "dialogue" {
			if f, err := x.peer.Facts(ctx); err == nil && len(f.Members) > 0 &&
				!slices.ContainsFunc(f.Members, func(m Member) bool { return m.Name == r.Name && sameMember(m, r) }) {
				return nil // it isn't there, or is another one of that name
			}
		}
		if err = x.peer.Remove(ctx, r); err == nil {
			return nil
		}
		if x.journal.Via == "dialogue" && lost(err) {
			// The other side takes the entry back by itself when the connection ends.
			x.h.Warnf("%s: %v; it takes the entry back when the connection ends", x.o.Peer, err)
			return nil
		}
		if s, ok := x.peer.(*stock); ok && x.o.RollbackPeer {
			if _, e := s.output(ctx, "pvecm", "expected", "1"); e == nil {
				if err = x.peer.Remove(ctx, r); err == nil {
					return nil
				}
			}
		}
		by = fmt.Sprintf("\"pvecm expected 1\" and %s, if it has no quorum any more", by)
	} else if x.journal.Via == "dialogue" {
		x.h.Warnf("%s takes the entry back by itself when it notices that the connection is gone; if not: %s", x.o.Peer, by)
		return nil
	}
	// This host's side is done: what is left is the other one's.
	return errors.Join(fmt.Errorf("the cluster may still have node %s in its configuration (%w): %s takes it out", r.Name, err, by), x.journal.forget(x.h))
}
