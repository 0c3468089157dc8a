// Package qdevice sets up and removes an external vote: a daemon on each node
// (corosync-qdevice) that asks one on a host outside of the cluster (corosync-qnetd).
//
// The certificates by which they trust each other are made by corosync's own programs on
// the nodes and the external host. What passes between these goes through ssh's pipes and
// root's own directories: the file that holds the nodes' private key has no passphrase.
package qdevice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

const (
	deviceDir = "/etc/corosync/qdevice"
	deviceDB  = deviceDir + "/net/nssdb"
	netDB     = "/etc/corosync/qnetd/nssdb"
	netPort   = 5403
)

// Clocks may differ by so much before certificates of one host may not be valid yet on
// another, and before a look at logs misleads.
const (
	clockWarn = 5 * time.Second
	clockStop = 60 * time.Second
)

// Options are those of setup.
type Options struct {
	External    netip.Addr // address of the external host
	Force       []string   // kinds of problems that are no reason to stop
	DryRun      bool
	User        string // on the external host; empty means root
	Port        int    // of its ssh server; 0 means 22
	NoCopyID    bool   // root's key is there already
	RemoveKey   bool   // from the external host, when the vote is removed
	ClusterName string // by which the external host knows the cluster; empty means the cluster's
	Timeout     time.Duration
	// Without is a node that is about to be removed, and needn't be online.
	Without string
}

// Services are what setting up needs of a running cluster.
type Services struct {
	Reload func() error                         // has corosync read its configuration
	Voting func() (missing []string, err error) // the nodes whose device does not vote yet
}

// node is a member.
type node struct {
	name, ip string
	local    bool
}

// run is one setup or removal.
type run struct {
	*host.Host
	Options
	s     Services
	r     *plan.Report
	nodes []node
	// again: there is an external vote, which is being set up anew.
	again bool
	undo  []func(context.Context) error // last one first
}

// on runs a shell's text on a node, with in as its input.
func (x *run) on(ctx context.Context, n node, in []byte, text string) ([]byte, error) {
	args := []string{"sh", "-c", text}
	if !n.local {
		args = append(x.SSH(n.name, n.ip, "-o", "ConnectTimeout=10"), "--", text)
	}
	out, err := x.Pipe(ctx, bytes.NewReader(in), args...)
	if err != nil {
		return out, fmt.Errorf("node %s: %w", n.name, err)
	}
	return out, nil
}

// sshOptions are those by which the external host is reached.
func (x *run) sshOptions() []string {
	// A look changes nothing: ssh learns no further keys of the host.
	args := []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "UpdateHostKeys=no"}
	if x.Port != 0 {
		args = append(args, "-p", strconv.Itoa(x.Port))
	}
	return args
}

func (x *run) login() string {
	user := x.User
	if user == "" {
		user = "root"
	}
	return user + "@" + x.External.String()
}

// outside runs a shell's text on the external host, as root.
func (x *run) outside(ctx context.Context, in []byte, text string) ([]byte, error) {
	if x.User != "" && x.User != "root" {
		text = "sudo -n sh -c '" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	args := append(append([]string{"ssh"}, x.sshOptions()...), x.login(), "--", text)
	out, err := x.Pipe(ctx, bytes.NewReader(in), args...)
	if err != nil {
		return out, fmt.Errorf("external host %s: %w", x.External, err)
	}
	return out, nil
}

// withFile is a shell's text that runs a command with its input in a file that only root
// reads and that is gone afterwards; "$f" names it.
func withFile(command string) string {
	return `umask 077; d=$(mktemp -d) || exit 1; f="$d/file"; cat > "$f"; ` + command + `; s=$?; rm -rf "$d"; exit $s`
}

// Setup gives the cluster an external vote. The report tells what was found and what is
// done. A failure takes back what was done.
func Setup(ctx context.Context, h *host.Host, s Services, o Options) (*plan.Report, error) {
	x := &run{Host: h, Options: o, s: s, r: &plan.Report{}}
	name, err := x.check(ctx)
	if err != nil || o.DryRun {
		return x.r, err
	}
	return x.r, x.orBack(ctx, x.setUp(ctx, name))
}

// orBack takes everything back if something failed.
func (x *run) orBack(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	// An interrupt is no reason to leave half of it behind.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var left []error
	for _, undo := range slices.Backward(x.undo) {
		if uerr := undo(back); uerr != nil {
			left = append(left, uerr)
		}
	}
	if len(left) > 0 {
		return &plan.Error{Code: plan.NotUndone, Cause: fmt.Errorf("%w; and taking it back: %w", err, errors.Join(left...))}
	}
	return &plan.Error{Code: max(plan.CodeOf(err), plan.Failed), Cause: fmt.Errorf("%w (what was done is taken back)", err)}
}

// Repair makes all certificates of the external vote anew. The vote stays in the
// configuration, and the daemons restart one after the other.
func Repair(ctx context.Context, h *host.Host, s Services, o Options) (*plan.Report, error) {
	x := &run{Host: h, Options: o, s: s, r: &plan.Report{}, again: true}
	name, err := x.check(ctx)
	if err != nil || o.DryRun {
		return x.r, err
	}
	return x.r, x.orBack(ctx, x.repair(ctx, name))
}

// aside is where certificates are while new ones are made.
const aside = ".old"

func (x *run) repair(ctx context.Context, name string) error {
	// The daemons go on with what they have read.
	const restart = "systemctl restart corosync-qdevice"
	x.undo = append(x.undo, func(ctx context.Context) error {
		return x.everywhere(ctx, nil, fmt.Sprintf("if [ -e %[1]s%[2]s ]; then rm -rf %[1]s && mv %[1]s%[2]s %[1]s; fi; %[3]s", deviceDir, aside, restart))
	})
	if err := x.everywhere(ctx, nil, fmt.Sprintf("[ ! -e %[1]s ] || { rm -rf %[1]s%[2]s && mv %[1]s %[1]s%[2]s; }", deviceDir, aside)); err != nil {
		return err
	}
	signed := fmt.Sprintf("%s/cluster-%s.crt", netDB, name)
	if _, err := x.outside(ctx, nil, fmt.Sprintf("[ ! -e %[1]s ] || cp -p %[1]s %[1]s%[2]s", signed, aside)); err != nil {
		return err
	}
	if err := x.certificates(ctx, name, fmt.Sprintf("[ ! -e %[1]s%[2]s ] || mv %[1]s%[2]s %[1]s", signed, aside)); err != nil {
		return err
	}
	for _, n := range x.nodes {
		x.Sayf("restarting corosync-qdevice on %s", n.name)
		if _, err := x.on(ctx, n, nil, restart+" && systemctl enable --quiet corosync-qdevice"); err != nil {
			return err
		}
		if err := x.await(ctx, n.name); err != nil {
			return err
		}
	}
	if err := x.await(ctx, ""); err != nil {
		return err
	}
	x.undo = nil
	_, err := x.outside(ctx, nil, "rm -f "+signed+aside)
	if err = errors.Join(err, x.everywhere(ctx, nil, "rm -rf "+deviceDir+aside)); err != nil {
		x.Warnf("old certificates are left: %v", err)
	}
	return nil
}

// Renew takes the external vote away and sets it up again at the same host, for the present
// number of nodes.
func Renew(ctx context.Context, h *host.Host, s Services, o Options) (*plan.Report, error) {
	x := &run{Host: h, Options: forNumber(o), s: s, r: &plan.Report{}, again: true}
	name, err := x.check(ctx)
	if err != nil || o.DryRun {
		return x.r, err
	}
	o = x.Options // with the external host
	o.RemoveKey = false
	if _, err := Remove(ctx, h, s, o); err != nil {
		return x.r, err
	}
	x = &run{Host: h, Options: o, s: s, r: &plan.Report{}}
	if _, err := x.members(); err != nil {
		return x.r, err
	}
	return x.r, x.without(x.orBack(ctx, x.setUp(ctx, name)))
}

// forNumber has the algorithm follow the number of nodes, whatever it is.
func forNumber(o Options) Options {
	o.Force = append(slices.Clone(o.Force), "odd", "leftovers", "name-in-use")
	return o
}

// without says what is missing if the vote was taken away and not set up again.
func (x *run) without(err error) error {
	if err == nil {
		return nil
	}
	return plan.Errorf(plan.NotUndone, "the cluster has no external vote now, since setting it up again failed (\"pvecm qdevice setup %s\" tries again): %w", x.External, err)
}

// Around removes a node from a cluster that may have an external vote: remove gets to know
// whether it has to take the vote out of the configuration at once with the node, since
// without both none may have quorum. It is set up again for the nodes that are left.
func Around(ctx context.Context, h *host.Host, s Services, o Options, remove func(device bool) error) error {
	f, err := cluster.Read(h)
	if err != nil {
		return err
	}
	if !f.Section("quorum").Has("device") {
		return remove(false)
	}
	x := &run{Host: h, Options: forNumber(o), s: s, r: &plan.Report{}, again: true}
	name, err := x.check(ctx)
	if err != nil {
		x.r.WriteWarnings(h.Stderr)
		return err
	}
	if o.DryRun {
		for _, step := range x.r.Steps {
			h.Sayf("would do: %s, for the nodes that are left", step)
		}
		return remove(true)
	}
	if err := remove(true); err != nil {
		return err
	}
	x.r = &plan.Report{}
	if err := x.cleanUp(ctx, name); err != nil {
		return x.without(err)
	}
	if len(x.nodes) < 2 {
		h.Sayf("the external vote is gone: one node needs none")
		return nil
	}
	return x.without(x.orBack(ctx, x.setUp(ctx, name)))
}

// members fills in the nodes and complains of those that are not online.
func (x *run) members() (*conf.File, error) {
	if err := cluster.NeedCluster(x.Host); err != nil {
		return nil, err
	}
	if err := x.NeedQuorum(); err != nil {
		return nil, err
	}
	f, err := cluster.Read(x.Host)
	if err != nil {
		return nil, err
	}
	m, err := x.Members()
	if err != nil {
		return nil, err
	}
	for _, section := range f.Nodes() {
		n := node{name: conf.NodeName(section)}
		if n.name == x.Without {
			continue
		}
		n.local = n.name == x.Name
		n.ip = m.Nodes[n.name].IP
		if m.Nodes[n.name].Online != 1 || n.ip == "" {
			x.r.Stop("node-offline", "start it", "node %s is not online, and all nodes must be", n.name)
			continue
		}
		x.nodes = append(x.nodes, n)
	}
	return f, nil
}

// check looks for everything that speaks against a setup, and returns the cluster's name.
func (x *run) check(ctx context.Context) (string, error) {
	f, err := x.members()
	if err != nil {
		return "", err
	}
	has, at := f.Section("quorum").Has("device"), f.Section("quorum", "device", "net").Get("host")
	switch {
	case has && !x.again:
		x.r.Stop("qdevice-exists", "--repair makes its certificates anew; to have another one, remove it first: pvecm qdevice remove", "the cluster has an external vote already (on %s)", at)
	case !has && x.again:
		return "", plan.Fail(plan.Refused, "no-qdevice", "pvecm qdevice setup ADDRESS", "the cluster has no external vote")
	case x.again:
		address, err := netip.ParseAddr(at)
		if err != nil || x.External.IsValid() && x.External != address {
			return "", plan.Fail(plan.Refused, "other-host", "remove it first, and set up another one: pvecm qdevice remove", "the cluster's external vote is on %q", at)
		}
		x.External = address
	}
	name := x.ClusterName
	if name == "" {
		name = f.Section("totem").Get("cluster_name")
	}
	if err := conf.ValidCluster(name); err != nil {
		x.r.Stop("cluster-name", "give another one with --cluster-name-on-host", "the cluster's name %q can't be one on the external host: %v", name, err)
	}
	number := len(f.Nodes())
	if f.Node(x.Without) != nil {
		number--
	}
	if number%2 == 1 && !(x.again && slices.Contains(x.Force, "odd")) {
		x.r.Refuse("odd", "an external vote is for an even number of nodes; --force=odd sets one up that counts as much as all nodes but one", "the cluster has an odd number of nodes (%d)", number)
	}
	for _, n := range x.nodes {
		x.checkNode(ctx, n)
	}
	if conf.ValidCluster(name) == nil { // else it is not for a shell
		x.checkOutside(ctx, name)
	}
	if x.again {
		x.r.Step("the external vote at %s is set up again, with new certificates", x.External)
	}
	x.r.Step("certificates are made on %s, %s", x.External, strings.Join(x.names(), ", "))
	x.r.Step("corosync.conf: the device \"net\" at %s, algorithm %s", x.External, x.algorithm())
	x.r.Step("corosync-qdevice is started and enabled on %s", strings.Join(x.names(), ", "))
	x.r.Force(x.Force...)
	return name, x.r.Err()
}

func (x *run) names() (list []string) {
	for _, n := range x.nodes {
		list = append(list, n.name)
	}
	return list
}

// algorithm splits an even number of nodes fairly; with an odd one the last node standing
// shall win.
func (x *run) algorithm() string {
	if len(x.nodes)%2 == 0 {
		return "ffsplit"
	}
	return "lms"
}

func (x *run) checkNode(ctx context.Context, n node) {
	out, err := x.on(ctx, n, nil, fmt.Sprintf(
		`command -v corosync-qdevice-net-certutil >/dev/null && echo tool; test -e %s && echo database; `+
			`command -v bash >/dev/null && timeout 5 bash -c 'exec 3<>/dev/tcp/%s/%d' 2>/dev/null && echo port; true`, deviceDB, x.External, netPort))
	if err != nil {
		x.r.Stop("node-unreachable", "\"pvecm check\" says more", "%v", err)
		return
	}
	said := strings.Fields(string(out))
	if !slices.Contains(said, "tool") {
		x.r.Stop("not-installed", "apt install corosync-qdevice", "node %s lacks the package corosync-qdevice", n.name)
	}
	if slices.Contains(said, "database") && !x.again {
		x.r.Refuse("leftovers", "--force=leftovers removes them", "node %s has certificates of an earlier external vote (%s)", n.name, deviceDB)
	}
	if !slices.Contains(said, "port") {
		x.r.Refuse("port", "is corosync-qnetd running there, and does a firewall let TCP through?", "node %s does not reach port %d of %s", n.name, netPort, x.External)
	}
}

func (x *run) checkOutside(ctx context.Context, name string) {
	if _, err := x.outside(ctx, nil, "true"); err != nil {
		switch {
		case x.NoCopyID:
			x.r.Add(plan.Problem{Kind: "login", Text: err.Error(), Remedy: "put root's public key there: /root/.ssh/id_rsa.pub", Hard: true, Code: plan.Trust})
			return
		case x.DryRun:
			x.r.Warn("login", "", "root's key is not on %s yet: its password will be asked for, and the rest is checked then", x.External)
			return
		}
		args := []string{"ssh-copy-id", "-i", "/root/.ssh/id_rsa"}
		if x.Port != 0 {
			args = append(args, "-p", strconv.Itoa(x.Port))
		}
		if err := x.Do(ctx, host.Command{Args: append(args, x.login()), Stdin: x.Stdin, Stdout: x.Stdout, Stderr: x.Stderr}); err != nil {
			x.r.Add(plan.Problem{Kind: "login", Text: err.Error(), Remedy: "put root's public key there: /root/.ssh/id_rsa.pub", Hard: true, Code: plan.Trust})
			return
		}
	}
	before := x.Time()
	out, err := x.outside(ctx, nil, fmt.Sprintf(
		`command -v corosync-qnetd-certutil >/dev/null && echo tool; test -e %s/cluster-%s.crt && echo taken; date +time=%%s`, netDB, name))
	if err != nil {
		x.r.Stop("external-unreachable", "", "%v", err)
		return
	}
	said := strings.Fields(string(out))
	if !slices.Contains(said, "tool") {
		x.r.Stop("not-installed", "apt install corosync-qnetd", "the external host %s lacks the package corosync-qnetd", x.External)
	}
	if slices.Contains(said, "taken") && !x.again {
		x.r.Refuse("name-in-use", "if it was this one: --force=name-in-use; else give another name with --cluster-name-on-host", "the external host %s has a certificate of a cluster named %s already", x.External, name)
	}
	for _, word := range said {
		if text, ok := strings.CutPrefix(word, "time="); ok {
			seconds, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				continue
			}
			switch diff := time.Unix(seconds, 0).Sub(before).Abs(); {
			case diff > clockStop:
				x.r.Refuse("clock", "set one of them right", "the clocks here and on %s differ by %v: certificates would not be valid", x.External, diff.Round(time.Second))
			case diff > clockWarn:
				x.r.Warn("clock", "", "the clocks here and on %s differ by %v", x.External, diff.Round(time.Second))
			}
		}
	}
}

// setUp does what check has planned.
func (x *run) setUp(ctx context.Context, name string) error {
	if slices.ContainsFunc(x.r.Problems, func(p plan.Problem) bool { return p.Kind == "leftovers" }) {
		if err := x.everywhere(ctx, nil, "systemctl stop corosync-qdevice; rm -rf "+deviceDB); err != nil {
			return err
		}
	}
	x.undo = append(x.undo, func(ctx context.Context) error { return x.everywhere(ctx, nil, "rm -rf "+deviceDir) })
	unsign := fmt.Sprintf("rm -f %s/cluster-%s.crt", netDB, name)
	if err := x.certificates(ctx, name, unsign); err != nil {
		return err
	}
	x.Sayf("entering the external vote into corosync.conf")
	x.undo = append(x.undo, func(ctx context.Context) error {
		return errors.Join(x.withoutDevice(ctx), x.everywhere(ctx, nil, "systemctl disable --now corosync-qdevice"))
	})
	err := x.change(ctx, func(f *conf.File) error {
		if f.Section("quorum").Has("device") {
			return plan.Fail(plan.Refused, "qdevice-exists", "", "somebody else has set up an external vote meanwhile")
		}
		device := conf.Block{Name: "device", Keys: map[string]string{"model": "net"}, Blocks: []conf.Block{{
			Name: "net", Keys: map[string]string{"tls": "on", "host": x.External.String(), "algorithm": x.algorithm()},
		}}}
		if x.algorithm() == "ffsplit" {
			device.Keys["votes"] = "1"
		}
		return f.Insert(f.Section("quorum"), device)
	})
	if err != nil {
		return err
	}
	// The daemon of the device does not start before corosync has the new configuration,
	// which comes to the nodes' hosts and is loaded a moment later.
	if err := x.everywhere(ctx, nil, loaded); err != nil {
		return err
	}
	x.Sayf("starting corosync-qdevice on %s", strings.Join(x.names(), ", "))
	if err := x.everywhere(ctx, nil, "systemctl start corosync-qdevice && systemctl enable --quiet corosync-qdevice"); err != nil {
		return err
	}
	if err := x.s.Reload(); err != nil {
		return fmt.Errorf("having corosync read its configuration: %w", err)
	}
	return x.await(ctx, "")
}

// certificates makes them on the external host and all nodes. unsign takes back what is done
// on the external host.
func (x *run) certificates(ctx context.Context, name, unsign string) error {
	x.Sayf("making certificates on %s", x.External)
	ca, err := x.outside(ctx, nil, fmt.Sprintf(`test -e %[1]s/qnetd-cacert.crt || corosync-qnetd-certutil -i >&2; cat %[1]s/qnetd-cacert.crt`, netDB))
	if err != nil {
		return err
	}
	if err := x.everywhere(ctx, ca, withFile(`corosync-qdevice-net-certutil -i -c "$f" >&2`)); err != nil {
		return err
	}
	here := node{name: x.Name, local: true}
	request, err := x.on(ctx, here, nil, fmt.Sprintf("corosync-qdevice-net-certutil -r -n %s >&2 && cat %s/qdevice-net-node.crq", name, deviceDB))
	if err != nil {
		return err
	}
	x.undo = append(x.undo, func(ctx context.Context) error {
		_, err := x.outside(ctx, nil, unsign)
		return err
	})
	signed, err := x.outside(ctx, request, withFile(fmt.Sprintf(`corosync-qnetd-certutil -s -c "$f" -n %s >&2 && cat %s/cluster-%[1]s.crt`, name, netDB)))
	if err != nil {
		return err
	}
	bundle, err := x.on(ctx, here, signed, withFile(fmt.Sprintf(`cp "$f" %[1]s/cluster-%[2]s.crt && corosync-qdevice-net-certutil -M -c %[1]s/cluster-%[2]s.crt >&2 && cat %[1]s/qdevice-net-node.p12`, deviceDB, name)))
	if err != nil {
		return err
	}
	for _, n := range x.nodes {
		if n.local {
			continue
		}
		if _, err := x.on(ctx, n, bundle, withFile(`corosync-qdevice-net-certutil -m -c "$f" >&2`)); err != nil {
			return err
		}
	}
	return nil
}

// loaded waits until corosync on a node has loaded the device.
const loaded = `for i in $(seq 150); do corosync-cmapctl quorum.device. 2>/dev/null | grep -q "^quorum.device.model " && exit 0; sleep 0.2; done; ` +
	`echo "corosync has not loaded the external vote within 30 s" >&2; exit 1`

// await waits until the device votes on a node; empty means on every one.
func (x *run) await(ctx context.Context, node string) error {
	limit := x.Timeout
	if limit == 0 {
		limit = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		missing, err := x.s.Voting()
		switch {
		case err != nil:
		case node != "" && !slices.Contains(missing, node):
			return nil
		case len(missing) == 0:
			x.Sayf("the external vote counts on all nodes")
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("it does not count on %s (journalctl -u corosync-qdevice there says why)", strings.Join(missing, ", "))
			}
			return &plan.Error{Code: plan.Timeout, Cause: fmt.Errorf("the external vote does not work after %v: %w", limit, err)}
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// everywhere runs a shell's text on all nodes, and goes on to the others if one fails.
func (x *run) everywhere(ctx context.Context, in []byte, text string) error {
	var errs []error
	for _, n := range x.nodes {
		_, err := x.on(ctx, n, in, text)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// change changes the cluster's configuration under its locks.
func (x *run) change(ctx context.Context, change func(*conf.File) error) error {
	return x.ClusterLock(ctx, cluster.ConfLock, func(context.Context) error {
		f, err := cluster.Read(x.Host)
		if err != nil {
			return err
		}
		after, err := f.Change(change)
		if err != nil {
			return cluster.Refusal(err)
		}
		return cluster.Activate(x.Host, after)
	})
}

// withoutDevice takes the device out of the configuration, if it is in it.
func (x *run) withoutDevice(ctx context.Context) error {
	f, err := cluster.Read(x.Host)
	if err != nil || !f.Section("quorum").Has("device") {
		return err
	}
	return x.change(ctx, func(f *conf.File) error {
		if !f.Section("quorum").Has("device") {
			return plan.Fail(plan.Refused, "no-qdevice", "", "somebody else has removed the external vote meanwhile")
		}
		return f.Remove(f.Section("quorum", "device"))
	})
}

// Remove takes the external vote away, and what setting it up has left on the nodes and, if
// it can be reached, on the external host.
func Remove(ctx context.Context, h *host.Host, s Services, o Options) (*plan.Report, error) {
	x := &run{Host: h, Options: o, s: s, r: &plan.Report{}}
	f, err := x.members()
	if err != nil {
		return x.r, err
	}
	device := f.Section("quorum", "device")
	if !f.Section("quorum").Has("device") {
		x.r.Stop("no-qdevice", "", "the cluster has no external vote")
	}
	x.r.Step("corosync.conf: the external vote goes")
	x.r.Step("corosync-qdevice is stopped and disabled on %s, and its certificates are removed", strings.Join(x.names(), ", "))
	if o.RemoveKey {
		x.r.Step("the external host lets this node's root in no more")
	}
	x.r.Force(o.Force...)
	if err := x.r.Err(); err != nil || o.DryRun {
		return x.r, err
	}
	name := o.ClusterName
	if name == "" {
		name = f.Section("totem").Get("cluster_name")
	}
	if err := x.withoutDevice(ctx); err != nil {
		return x.r, err
	}
	x.External, err = netip.ParseAddr(device.Section("net").Get("host"))
	if err != nil || conf.ValidCluster(name) != nil {
		name = "" // it is not for a shell
	}
	if err := x.cleanUp(ctx, name); err != nil {
		return x.r, &plan.Error{Code: plan.NotUndone, Cause: fmt.Errorf("the external vote is out of the configuration, but: %w", err)}
	}
	return x.r, nil
}

// cleanUp removes what an external vote that is out of the configuration has left.
func (x *run) cleanUp(ctx context.Context, name string) error {
	err := x.everywhere(ctx, nil, "systemctl stop corosync-qdevice; systemctl disable --quiet corosync-qdevice; rm -rf "+deviceDir)
	if err = errors.Join(err, x.s.Reload()); err != nil || name == "" {
		return err
	}
	if _, err := x.outside(ctx, nil, fmt.Sprintf("rm -f %s/cluster-%s.crt", netDB, name)); err != nil {
		x.Warnf("the cluster's certificate stays on the external host: %v", err)
	}
	if x.RemoveKey {
		if err := x.removeKey(ctx); err != nil {
			x.Warnf("root's key stays on the external host: %v", err)
		}
	}
	return nil
}

// removeKey has the external host let this node's root in no more.
func (x *run) removeKey(ctx context.Context) error {
	text, err := x.ReadFile("/root/.ssh/id_rsa.pub")
	if err != nil {
		return err
	}
	key := strings.Fields(string(text))
	if len(key) < 2 {
		return errors.New("/root/.ssh/id_rsa.pub holds no key")
	}
	// Not by outside: the file is that of whoever logs in.
	args := append(append([]string{"ssh"}, x.sshOptions()...), x.login(), "--", withoutKey)
	_, err = x.Pipe(ctx, strings.NewReader(key[1]+"\n"), args...)
	return err
}

// withoutKey removes the lines with the key in the input.
const withoutKey = `umask 077; f=$HOME/.ssh/authorized_keys; [ ! -e "$f" ] || { grep -vF -f - "$f" > "$f.pvecm"; [ $? -le 1 ] && cat "$f.pvecm" > "$f"; s=$?; rm -f "$f.pvecm"; exit $s; }`

// stateLine is one of what the device's daemon tells of itself.
var stateLine = regexp.MustCompile(`^([A-Za-z][^:]*):\s+(.*)$`)

// State reads what the daemon's socket answers to "status verbose": of its lines those
// that say how it is, by name. It is empty if the daemon is not there.
func State(text []byte) map[string]string {
	state := map[string]string{}
	for line := range strings.Lines(string(text)) {
		m := stateLine.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil {
			continue
		}
		switch m[1] {
		case "Algorithm", "Echo reply received", "Last poll call", "Model", "QNetd host", "State", "Tie-breaker":
			state[m[1]] = m[2]
		}
	}
	return state
}
