package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// RenameOptions are how a node gets another name.
type RenameOptions struct {
	Old, New string
	Force    []string
	DryRun   bool
	Timeout  time.Duration // for the node to be a member again under its new name
}

// renamePhase is how far a renaming is. It is noted before the phase begins, and each can be
// gone through again: a renaming that was interrupted goes on, and is never taken back.
type renamePhase string

const (
	renameTree renamePhase = "tree" // corosync.conf and the node's directory
	renameHost renamePhase = "host" // the host's name, and the daemon under it
	renameRest renamePhase = "rest" // keys, certificates, the other nodes' hosts, services
)

const renameJournal = "/var/lib/pve-cluster/rename.json"

// renaming is one under way.
type renaming struct {
	h *host.Host
	s Services
	o RenameOptions
	r *plan.Report

	Old   string      `json:"old"`
	New   string      `json:"new"`
	Phase renamePhase `json:"phase"`
	Begun time.Time   `json:"begun"`

	// step is told before each step; for tests, in which it may fail.
	step func(name string) error
}

// Rename gives a node another name. It is done on the node itself: another one has it do it.
// done: it has that name.
func Rename(ctx context.Context, h *host.Host, s Services, o RenameOptions) (r *plan.Report, done bool, err error) {
	x := &renaming{h: h, s: s, o: o, r: &plan.Report{}, step: func(string) error { return nil }}
	return x.rename(ctx)
}

func (x *renaming) rename(ctx context.Context) (r *plan.Report, done bool, err error) {
	h, o := x.h, x.o
	there, err := x.readJournal()
	switch {
	case err != nil:
		return x.r, false, err
	case there && (x.Old != o.Old || x.New != o.New):
		return x.r, false, plan.Fail(plan.Refused, "unfinished", fmt.Sprintf("\"pvecm rename-node %s %s\" completes it", x.Old, x.New), "this node's change of its name from %s to %s is unfinished", x.Old, x.New)
	case there:
		x.r.Step("the change of the name that was begun at %s is completed", x.Begun.Format(time.DateTime))
		if o.DryRun {
			return x.r, false, nil
		}
		return x.r, false, h.Flock(ctx, renameLock, func() error { return x.run(ctx) })
	}
	x.Old, x.New = o.Old, o.New
	if err := h.Mounted(); err != nil {
		return x.r, false, err
	}
	f, err := Read(h)
	if err != nil {
		return x.r, false, err
	}
	alone := !h.Exists(host.ClusterConf)
	switch {
	case h.Name == x.Old:
	case h.Name == x.New && (alone || f.Node(x.New) != nil && f.Node(x.Old) == nil):
		return x.r, true, nil
	case f.Node(x.Old) != nil:
		return x.r, false, x.elsewhere(ctx, x.Old)
	case f.Node(x.New) != nil:
		return x.r, false, x.elsewhere(ctx, x.New)
	default:
		return x.r, false, plan.Fail(plan.Refused, conf.KindUnknownNode, "\"pvecm nodes\" lists them", "there is no node %s", x.Old)
	}
	if err := x.check(ctx, f, alone); err != nil || o.DryRun {
		return x.r, false, err
	}
	return x.r, false, h.Flock(ctx, renameLock, func() error {
		x.Begun = h.Time()
		if err := x.note(renameTree); err != nil {
			return err
		}
		return x.run(ctx)
	})
}

// renameLock is this host's: a change of corosync.conf takes Lock itself.
const renameLock = "/var/lock/pvecm-rename.lock"

// elsewhere has the node itself do it.
func (x *renaming) elsewhere(ctx context.Context, name string) error {
	h := x.h
	m, err := h.Members()
	if err != nil {
		return err
	}
	if m.Nodes[name].Online != 1 {
		return plan.Fail(plan.Refused, "node-offline", "start it, or call this on it", "node %s is not online, and has to change its name itself", name)
	}
	args := x.on(name, m, "rename-node", x.Old, x.New, fmt.Sprintf("--timeout=%d", int(x.o.Timeout.Seconds())))
	if len(x.o.Force) > 0 {
		args = append(args, "--force="+strings.Join(x.o.Force, ","))
	}
	if x.o.DryRun {
		args = append(args, "--dry-run")
	}
	err = h.Run(ctx, args...)
	var failed *host.CommandError
	if errors.As(err, &failed) && failed.Status > 0 && failed.Status < 255 {
		return &plan.Error{Code: plan.Code(failed.Status), Cause: fmt.Errorf("node %s did not change its name", name)}
	}
	return err
}

// check looks for what speaks against it.
func (x *renaming) check(ctx context.Context, f *conf.File, alone bool) error {
	h, r := x.h, x.r
	if err := h.NeedQuorum(); err != nil {
		return err
	}
	checkDirectory(r)
	if !alone {
		if err := x.checkCluster(ctx, f); err != nil {
			return err
		}
	}
	if h.Exists(nodeDir(x.New)) {
		r.Refuse("leftovers", "look at it, and remove it if nothing in it is needed", "there is a directory of a node of that name: %s", nodeDir(x.New))
	}
	if list := runningGuests(h); len(list) > 0 {
		r.Stop("guests-running", "stop them, or migrate them to another node", "guests run on this node: %s", brief(list))
	}
	if inUse(h, "ha/resources.cfg") {
		r.Refuse("ha", "remove the resources, and add them again afterwards: pvesh get /cluster/ha/resources", "high availability is in use, and knows this node by its name")
	}
	x.checkName()
	for _, path := range []string{"/etc/mailname", "/etc/postfix/main.cf"} {
		if text, err := h.ReadFile(path); err == nil && slices.ContainsFunc(strings.FieldsFunc(string(text), func(c rune) bool { return strings.ContainsRune(" \t\n,=", c) }), x.isOld) {
			r.Warn("references", "edit it", "%s has this host's old name", path)
		}
	}
	r.Step("%s: the directory becomes %s, with the configurations of %d guests", nodeDir(x.Old), nodeDir(x.New), len(configured(h, x.Old)))
	for _, file := range referring {
		if text, err := h.ReadFile(host.Mount + "/" + file); err == nil && string(text) != renameReferences(string(text), x.Old, x.New) {
			r.Step("%s: what names this node gets the new name", file)
		}
	}
	r.Step("this host's name changes from %s to %s (/etc/hostname, /etc/hosts), and pve-cluster restarts", x.Old, x.New)
	r.Step("this node's certificate and ssh keys get the new name; its RRD files move")
	r.Force(x.o.Force...)
	return r.Err()
}

// checkDirectory refuses to work from within the mount, which goes away meanwhile.
func checkDirectory(r *plan.Report) {
	if dir, err := os.Getwd(); err == nil && (dir == host.Mount || strings.HasPrefix(dir, host.Mount+"/")) {
		r.Stop("in-mount", "change to another directory first", "the current directory, %s, is in the mount, which goes away meanwhile", dir)
	}
}

// inUse tells whether a file of the tree has any content.
func inUse(h *host.Host, file string) bool {
	text, err := h.ReadFile(host.Mount + "/" + file)
	return err == nil && strings.TrimSpace(string(text)) != ""
}

func (x *renaming) checkCluster(ctx context.Context, f *conf.File) error {
	h, r := x.h, x.r
	m, err := h.Members()
	if err != nil {
		return err
	}
	own := f.Node(x.Old)
	if own == nil {
		return plan.Fail(plan.Refused, conf.KindUnknownNode, "\"pvecm config show\" shows them", "there is no node %s in the cluster's corosync.conf", x.Old)
	}
	for _, n := range conf.Links(own) {
		if _, address := conf.LinkAddress(own, n); x.isOld(address) {
			r.Stop("link-name", fmt.Sprintf("give it an IP address first: pvecm set-address %s --link%d ADDRESS", x.Old, n), "corosync finds this node by its name on link %d (%s)", n, address)
		}
	}
	for _, n := range f.Nodes() {
		name := conf.NodeName(n)
		if name == x.Old {
			continue
		}
		if strings.EqualFold(name, x.New) {
			r.Stop(conf.KindNodeExists, "", "there is a node %s in the cluster", name)
		}
		if m.Nodes[name].Online != 1 {
			r.Warn("node-offline", fmt.Sprintf("run \"pvecm node-renamed %s %s\" there when it is up", x.Old, x.New), "node %s is not online: its /etc/hosts and its RRD files keep the old name", name)
			continue
		}
		if _, err := h.Output(ctx, x.on(name, m, "apiver")...); err != nil {
			r.Refuse("ssh", "\"pvecm check\" says more", "node %s can't be reached, whose /etc/hosts and RRD files have the old name: %v", name, err)
		}
	}
	r.Step("corosync.conf: node %s (id %s) becomes %s", x.Old, own.Get("nodeid"), x.New)
	return nil
}

// on is the command line that has another node run pvecm.
func (x *renaming) on(name string, m host.Members, args ...string) []string {
	return append(x.h.SSH(name, m.Nodes[name].IP, "-o", "ConnectTimeout=10", "-o", "UpdateHostKeys=no"), append([]string{"--", "pvecm"}, args...)...)
}

// checkName looks whether the host will have an address by its new name: without one the
// daemon does not start.
func (x *renaming) checkName() {
	h := x.h
	text, _ := h.ReadFile("/etc/hosts")
	addressOf := func(text, name string) (found netip.Addr) {
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			fields := strings.Fields(line)
			if len(fields) < 2 || !slices.Contains(fields[1:], name) {
				continue
			}
			if a, err := netip.ParseAddr(fields[0]); err == nil && !a.IsLoopback() {
				return a
			}
		}
		return found
	}
	address := addressOf(renameInHosts(string(text), x.Old, x.New, true), x.New)
	if !address.IsValid() {
		for _, a := range h.Resolve(x.New) {
			if !a.IsLoopback() {
				address = a
				break
			}
		}
	}
	if !address.IsValid() {
		x.r.Stop("no-address", fmt.Sprintf("enter it into /etc/hosts or DNS, as you have %s", x.Old), "the name %s has no address but loopback ones", x.New)
		return
	}
	if has, err := h.HasAddress(address); err == nil && !has {
		x.r.Stop("foreign-address", "", "the name %s stands for %s, which is not an address of this host", x.New, address)
	}
}

// isOld tells whether a host name is the old one, with or without a domain.
func (x *renaming) isOld(name string) bool { return sameHost(name, x.Old) }

func sameHost(name, short string) bool {
	label, _, _ := strings.Cut(name, ".")
	return strings.EqualFold(label, short)
}

func (x *renaming) readJournal() (bool, error) {
	text, err := x.h.ReadFile(renameJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, x)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", x.h.Path(renameJournal), err)
	}
	return true, nil
}

func (x *renaming) note(p renamePhase) error {
	x.Phase = p
	text, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return err
	}
	return x.h.WriteFile(renameJournal, append(text, '\n'), 0o600)
}

// run goes through the phases that are left.
func (x *renaming) run(ctx context.Context) error {
	phases := []struct {
		phase renamePhase
		steps []func(context.Context) error
	}{
		{renameTree, []func(context.Context) error{x.enter, x.moveDirectory, x.moveReferences}},
		{renameHost, []func(context.Context) error{x.nameHost, x.restart}},
		{renameRest, []func(context.Context) error{x.moveDirectory, x.keys, x.others, x.oldNameGoes, x.services}},
	}
	begun := false
	for _, p := range phases {
		if begun = begun || p.phase == x.Phase; !begun {
			continue
		}
		err := x.note(p.phase)
		for i := 0; i < len(p.steps) && err == nil; i++ {
			if err = x.step(fmt.Sprintf("%s %d", p.phase, i)); err == nil {
				err = p.steps[i](ctx)
			}
		}
		if err != nil {
			return plan.Errorf(plan.NotUndone, "%w\nThe change of the name is unfinished: \"pvecm rename-node %s %s\" on this host completes it", err, x.Old, x.New)
		}
	}
	if !begun {
		return fmt.Errorf("%s: there is no phase %q", x.h.Path(renameJournal), x.Phase)
	}
	if err := os.Remove(x.h.Path(renameJournal)); err != nil {
		return err
	}
	x.h.Sayf("This node is %s now", x.New)
	return host.SyncDir(filepath.Dir(x.h.Path(renameJournal)))
}

// enter gives the node its new name in corosync.conf.
func (x *renaming) enter(ctx context.Context) error {
	h := x.h
	if err := h.Mounted(); err != nil {
		return err
	}
	if err := h.NeedQuorum(); err != nil {
		return err
	}
	if !h.Exists(host.ClusterConf) {
		return nil
	}
	version := uint64(0)
	err := Locked(ctx, h, func(context.Context) error {
		before, err := Read(h)
		if err != nil {
			return err
		}
		if version, err = before.ConfigVersion(); err != nil || before.Node(x.Old) == nil {
			return err
		}
		after, err := before.Change(func(f *conf.File) error { return f.Set(f.Node(x.Old), "name", x.New) })
		if err != nil {
			return Refusal(err)
		}
		x.s.log(h, "node %s becomes %s", x.Old, x.New)
		version++
		return Activate(h, after)
	})
	if err != nil {
		return err
	}
	// A daemon that starts must not find a corosync that calls the node by its old name.
	return x.s.awaitLoaded(ctx, version, x.o.Timeout)
}

// moveDirectory moves what is in the node's old directory file by file, since a guest belongs
// to the node in whose directory its configuration is. What is there twice is taken from the old one.
func (x *renaming) moveDirectory(context.Context) error {
	h := x.h
	from, to := h.Path(nodeDir(x.Old)), h.Path(nodeDir(x.New))
	var dirs []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if !d.IsDir() {
			return os.Rename(path, target)
		}
		dirs = append(dirs, path)
		if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}

// referring are the settings that name nodes in a form that is known.
var referring = []string{"ha/groups.cfg", "ha/rules.cfg", "jobs.cfg", "replication.cfg", "storage.cfg"}

// reference is a line that names nodes.
var reference = regexp.MustCompile(`(?m)^([ \t]+(?:nodes?|source|target)[ \t]+)(.*)$`)

// renameReferences gives a node its new name in settings.
func renameReferences(text, old, new string) string {
	word := regexp.MustCompile(`(^|[\s,;])` + regexp.QuoteMeta(old) + `($|[\s,;:])`)
	return reference.ReplaceAllStringFunc(text, func(line string) string {
		m := reference.FindStringSubmatch(line)
		// Twice: two matches side by side share what is between them.
		for range 2 {
			m[2] = word.ReplaceAllString(m[2], "${1}"+new+"${2}")
		}
		return m[1] + m[2]
	})
}

// moveReferences gives the node its new name in the settings of the cluster.
func (x *renaming) moveReferences(ctx context.Context) error {
	h := x.h
	for _, file := range referring {
		path := host.Mount + "/" + file
		change := func(write bool) (needed bool, err error) {
			text, err := h.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			after := renameReferences(string(text), x.Old, x.New)
			if needed = after != string(text); needed && write {
				err = h.WriteTree(path, []byte(after))
			}
			return needed, err
		}
		needed, err := change(false)
		if needed {
			// The lock that Proxmox's own tools take for this file.
			err = h.ClusterLock(ctx, "file-"+strings.NewReplacer("/", "_", ".", "_").Replace(file), func(context.Context) error {
				_, err := change(true)
				return err
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// renameInHosts gives a host another name in the text of /etc/hosts; with keep the old one
// stays behind it.
func renameInHosts(text, old, new string, keep bool) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		entry, comment, commented := strings.Cut(strings.TrimSuffix(line, "\n"), "#")
		fields := strings.Fields(entry)
		if len(fields) < 2 || !slices.ContainsFunc(fields[1:], func(name string) bool { return sameHost(name, old) }) {
			b.WriteString(line)
			continue
		}
		var names []string
		for _, name := range fields[1:] {
			if sameHost(name, old) {
				names = append(names, new+name[len(old):])
			}
			if keep || !sameHost(name, old) {
				names = append(names, name)
			}
		}
		seen := map[string]bool{}
		names = slices.DeleteFunc(names, func(name string) bool {
			twice := seen[name]
			seen[name] = true
			return twice
		})
		b.WriteString(fields[0] + " " + strings.Join(names, " "))
		if commented {
			b.WriteString(" #" + comment)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// changeHosts gives a host another name in /etc/hosts.
func changeHosts(h *host.Host, old, new string, keep bool) error {
	text, err := h.ReadFile("/etc/hosts")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	after := renameInHosts(string(text), old, new, keep)
	if after == string(text) {
		return nil
	}
	return h.WriteFile("/etc/hosts", []byte(after), 0o644)
}

// nameHost gives the host its new name. As long as the old one may still be in force,
// /etc/hosts has both.
func (x *renaming) nameHost(ctx context.Context) error {
	h := x.h
	if err := changeHosts(h, x.Old, x.New, true); err != nil {
		return err
	}
	h.Sayf("Stopping pve-cluster")
	if err := h.Run(ctx, "systemctl", "stop", "pve-cluster"); err != nil {
		return err
	}
	text, err := h.ReadFile("/etc/hostname")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name := x.New
	if full := strings.TrimSpace(string(text)); x.isOld(full) || sameHost(full, x.New) {
		if _, domain, found := strings.Cut(full, "."); found {
			name += "." + domain
		}
	}
	if err := h.WriteFile("/etc/hostname", []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	if x.s.SetHostname != nil {
		if err := x.s.SetHostname(name); err != nil {
			return fmt.Errorf("set the host's name: %w", err)
		}
	}
	h.Name = x.New
	// While no daemon writes them here.
	return moveRRD(h, x.Old, x.New)
}

// restart starts the daemon under the new name.
func (x *renaming) restart(ctx context.Context) error {
	h := x.h
	h.Sayf("Starting pve-cluster as %s", x.New)
	if err := h.Run(ctx, "systemctl", "start", "pve-cluster"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, x.o.Timeout)
	defer cancel()
	return await(ctx, "this node is not back", func() error {
		if err := h.Mounted(); err != nil {
			return err
		}
		return h.NeedQuorum()
	})
}

// keys makes the node's certificate and keys those of the new name.
func (x *renaming) keys(ctx context.Context) error {
	if x.s.RenameKeys != nil {
		if err := x.s.RenameKeys(ctx, x.h, x.Old, x.New); err != nil {
			return err
		}
	}
	if x.s.UpdateKeys == nil {
		return nil
	}
	return x.s.UpdateKeys(ctx, x.h)
}

// others has the other nodes follow. One that can't is no reason to stop.
func (x *renaming) others(ctx context.Context) error {
	h := x.h
	if !h.Exists(host.ClusterConf) {
		return nil
	}
	m, err := h.Members()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Nodes)) {
		if name == x.New || m.Nodes[name].Online != 1 {
			continue
		}
		if _, err := h.Output(ctx, x.on(name, m, "node-renamed", x.Old, x.New)...); err != nil {
			h.Warnf("node %s has the old name in its /etc/hosts and RRD files (\"pvecm node-renamed %s %s\" there changes that): %v", name, x.Old, x.New, err)
		}
	}
	return nil
}

// Renamed has this host follow when another one has changed its name.
func Renamed(h *host.Host, old, new string) error {
	return errors.Join(changeHosts(h, old, new, false), moveRRD(h, old, new))
}

func (x *renaming) oldNameGoes(context.Context) error { return changeHosts(x.h, x.Old, x.New, false) }

// namedUnits know the node by the name that the host had when they started.
var namedUnits = []string{"pvedaemon", "pveproxy", "spiceproxy", "pvestatd", "pvescheduler", "pve-ha-lrm", "pve-ha-crm", "pve-firewall"}

// services restarts those of Proxmox VE that are there.
func (x *renaming) services(ctx context.Context) error {
	h := x.h
	units := h.Installed(namedUnits)
	if len(units) == 0 {
		return nil
	}
	if err := h.Run(ctx, append([]string{"systemctl", "try-restart"}, units...)...); err != nil {
		h.Warnf("services that know this node by its old name are not all restarted: %v", err)
	}
	return nil
}

// container is the command socket of a container that runs, in /proc/net/unix.
var container = regexp.MustCompile(`(?m)@/(?:var/lib|etc/pve)/lxc/([0-9]+)/command$`)

// runningGuests are the ids of the guests that run on this host, found as Proxmox VE's tools do.
func runningGuests(h *host.Host) (list []string) {
	pids, _ := filepath.Glob(h.Path("/run/qemu-server/*.pid"))
	for _, path := range pids {
		id := strings.TrimSuffix(filepath.Base(path), ".pid")
		pid, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		line, err := h.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/cmdline")
		if err == nil && strings.Contains(string(line), "\x00-id\x00"+id+"\x00") {
			list = append(list, id)
		}
	}
	if sockets, err := h.ReadFile("/proc/net/unix"); err == nil {
		for _, m := range container.FindAllSubmatch(sockets, -1) {
			list = append(list, string(m[1]))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
