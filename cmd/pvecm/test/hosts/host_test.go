package hosts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pmxcfs/cmd/internal/plan"
	"pmxcfs/contrib/vmlab"
)

const (
	journal = "/var/lib/pve-cluster/join.json"
	conf    = "/etc/pve/corosync.conf"
	// settles is how long a cluster may take to see a change: on a machine with many times
	// as much to do as it can.
	settles = 5 * time.Minute
)

// host is a host with the package.
type host struct{ *vmlab.Host }

// hosts are several, of one network.
type hosts struct {
	*vmlab.Lab
	all []host
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// boot brings up so many hosts with the package: fresh, in no cluster.
func boot(t *testing.T, n int) *hosts {
	t.Helper()
	vmlab.Require(t)
	deb, programs := built(t)
	l := vmlab.NewWith(t, vmlab.Options{Suites: slices.Repeat([]string{vmlab.Trixie}, n), Packages: vmlab.Dependencies})
	s := &hosts{Lab: l}
	var all sync.WaitGroup
	for _, h := range l.Hosts() {
		h := host{h}
		s.all = append(s.all, h)
		all.Go(func() { h.setUp(t, deb, programs) })
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return s
}

// built finds the package that `make deb` made, and what of this project's programs it
// doesn't have.
func built(t *testing.T) (deb string, programs []string) {
	t.Helper()
	debs, err := filepath.Glob("../../../../dist/trixie/pve-cluster_*.deb")
	if err != nil || len(debs) == 0 {
		t.Fatalf("dist/trixie holds no package of `make debs` (%v)", err)
	}
	deb = debs[len(debs)-1]
	list, err := exec.Command("dpkg-deb", "--contents", deb).Output()
	if err != nil {
		t.Fatalf("%s: %v", deb, err)
	}
	if bytes.Contains(list, []byte("./usr/bin/pvecm\n")) {
		return deb, nil
	}
	return deb, []string{"../../../../bin/pvecm", "../../../../bin/pmxcfs"}
}

// setUp makes a host what a fresh one is after installing the package.
func (h host) setUp(t *testing.T, deb string, programs []string) {
	ctx := within(t, settles)
	content, err := os.ReadFile(deb)
	if err != nil {
		t.Error(err)
		return
	}
	if err := h.WriteFile("/root/pve-cluster.deb", content, 0o644); err != nil {
		t.Error(err)
		return
	}
	// What it depends on is there.
	if out, err := h.Exec(ctx, "dpkg", "--force-unsafe-io", "--install", "/root/pve-cluster.deb"); err != nil {
		t.Errorf("%v\n%s", err, out)
		return
	}
	for _, p := range programs {
		content, err := os.ReadFile(p)
		if err != nil {
			t.Errorf("`make build` makes it: %v", err)
			return
		}
		// Not over the file of a program that runs.
		name := "/usr/bin/" + filepath.Base(p)
		if err := h.WriteFile(name+".new", content, 0o755); err != nil {
			t.Error(err)
			return
		}
		if out, err := h.Exec(ctx, "mv", name+".new", name); err != nil {
			t.Errorf("%v\n%s", err, out)
			return
		}
	}
	// The roots are one: what is a host's own is made here, as installing ssh does.
	const own = `
set -e
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -A
rm -rf /etc/corosync/qnetd /etc/corosync/qdevice
rm -f /etc/systemd/system/multi-user.target.wants/corosync-q*
systemctl stop corosync-qnetd corosync-qdevice
systemctl restart ssh pve-cluster
# The service that makes keys and certificates has its own time.
! systemctl cat pve-cluster-certs > /dev/null 2>&1 || timeout 120 bash -c '
until [ -e /etc/pve/local/pve-ssl.pem ] && [ "$(systemctl show -P ActiveState pve-cluster-certs)" = inactive ]; do sleep 0.2; done'
`
	if out, err := h.Exec(ctx, "bash", "-c", own); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// sh runs a shell's text, which has to succeed, and returns what it wrote.
func (h host) sh(t *testing.T, text string) string {
	t.Helper()
	out, err := h.Exec(within(t, settles), "bash", "-c", text)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// run runs a command and returns what it wrote, both outputs together, and its status.
func (h host) run(t *testing.T, argv ...string) (string, int) {
	t.Helper()
	out, err := h.Exec(within(t, settles), argv...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return string(out), exit.ExitCode()
	}
	t.Fatal(err)
	return "", 0
}

// pvecm runs pvecm, which has to succeed.
func (h host) pvecm(t *testing.T, args ...string) string {
	t.Helper()
	out, status := h.run(t, append([]string{"pvecm"}, args...)...)
	if status != 0 {
		t.Fatalf("%s: pvecm %s: status %d:\n%s", h.Name(), strings.Join(args, " "), status, out)
	}
	return out
}

// fails runs pvecm, which has to end with a status and say all of these.
func (h host) fails(t *testing.T, code plan.Code, says []string, args ...string) string {
	t.Helper()
	out, status := h.run(t, append([]string{"pvecm"}, args...)...)
	if status != int(code) {
		t.Errorf("%s: pvecm %s: status %d, want %d:\n%s", h.Name(), strings.Join(args, " "), status, code, out)
	}
	for _, text := range says {
		if !strings.Contains(out, text) {
			t.Errorf("%s: pvecm %s doesn't say %q:\n%s", h.Name(), strings.Join(args, " "), text, out)
		}
	}
	return out
}

// eventually waits until what is true.
func eventually(t *testing.T, d time.Duration, what func() error) {
	t.Helper()
	ctx := within(t, d)
	for {
		err := what()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", d, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// read reads a file of the host.
func (h host) read(name string) ([]byte, error) {
	path, err := h.Path(name)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// has tells whether the host has a file.
func (h host) has(name string) bool {
	path, err := h.Path(name)
	if err != nil {
		return false
	}
	_, err = os.Lstat(path)
	return err == nil
}

// state is what "pvecm status" tells as JSON.
type state struct {
	Cluster *struct{ Name string }
	Quorum  *struct {
		Quorate                 bool
		Expected, Total, Needed int
	}
	Nodes []struct {
		Name   string
		Votes  int
		Online bool
	}
}

func (h host) state(ctx context.Context) (s state, err error) {
	out, err := h.Exec(ctx, "bash", "-c", "pvecm status --output-format json 2>/dev/null || [ $? -le 2 ]")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("%w: %s", err, out)
	}
	return s, nil
}

// are waits until these hosts are one quorate cluster with a vote each and nobody else in
// it, have the same tree, and one corosync.conf.
func are(t *testing.T, members ...host) {
	t.Helper()
	ctx := within(t, 2*settles)
	eventually(t, settles, func() error {
		for _, h := range members {
			s, err := h.state(ctx)
			if err != nil {
				return err
			}
			if s.Quorum == nil || !s.Quorum.Quorate || s.Quorum.Expected != len(members) || s.Quorum.Total != len(members) {
				return fmt.Errorf("%s: quorum %+v, nodes %+v", h.Name(), s.Quorum, s.Nodes)
			}
			var names, want []string
			for _, n := range s.Nodes {
				if n.Online && n.Votes == 1 {
					names = append(names, n.Name)
				}
			}
			for _, h := range members {
				want = append(want, h.Name())
			}
			slices.Sort(names)
			slices.Sort(want)
			if len(s.Nodes) != len(want) || !slices.Equal(names, want) {
				return fmt.Errorf("%s: nodes %+v, want %v", h.Name(), s.Nodes, want)
			}
		}
		return nil
	})
	for _, w := range members {
		text := fmt.Appendf(nil, "%d", time.Now().UnixNano())
		path, err := w.Path("/etc/pve/from-" + w.Name())
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, settles, func() error { return os.WriteFile(path, text, 0o644) })
		eventually(t, settles, func() error {
			for _, r := range members {
				if got, err := r.read("/etc/pve/from-" + w.Name()); !bytes.Equal(got, text) {
					return fmt.Errorf("%s doesn't have what %s wrote (%v)", r.Name(), w.Name(), err)
				}
				tree, err := r.read(conf)
				if err != nil {
					return err
				}
				if file, err := r.read("/etc/corosync/corosync.conf"); err != nil || !bytes.Equal(file, tree) {
					return fmt.Errorf("%s: corosync.conf differs between host and tree (%v):\n%s\n%s", r.Name(), err, file, tree)
				}
			}
			return nil
		})
	}
}

// isAlone checks that a host is in no cluster, works, and has nothing left of one.
func (h host) isAlone(t *testing.T) {
	t.Helper()
	ctx := within(t, settles)
	eventually(t, settles, func() error {
		path, err := h.Path("/etc/pve/alone")
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		s, err := h.state(ctx)
		if err == nil && s.Cluster != nil {
			err = fmt.Errorf("%s is in cluster %s", h.Name(), s.Cluster.Name)
		}
		return err
	})
	for _, name := range []string{"/etc/corosync/authkey", conf, journal, "/var/lib/pve-cluster/join.saved"} {
		if h.has(name) {
			t.Errorf("%s is left on %s", name, h.Name())
		}
	}
}

// files lists what a command that refuses must not change: each file with its mode,
// owner and content.
func (h host) files(t *testing.T) string {
	t.Helper()
	return h.sh(t, `
for d in /etc/corosync /etc/ssh /root/.ssh /var/lib/pve-cluster /etc/pve; do
	[ -d $d ] || continue
	find $d -path /etc/pve/priv/lock -prune -o -name '.?*' -path '/etc/pve/*' -prune -o ! -name 'config.db*' ! -name 'history.db*' -printf '%p %y %m %u:%g %l\n' | sort
	find $d -path /etc/pve/priv/lock -prune -o -name '.?*' -path '/etc/pve/*' -prune -o -type f ! -name 'config.db*' ! -name 'history.db*' -exec sha256sum {} + | sort
done
systemctl is-active corosync pve-cluster`)
}

// unchanged runs something that must change nothing on these hosts.
func unchanged(t *testing.T, list []host, f func()) {
	t.Helper()
	before := make([]string, len(list))
	for i, h := range list {
		before[i] = h.files(t)
	}
	f()
	for i, h := range list {
		if after := h.files(t); after != before[i] {
			t.Errorf("%s was changed:\n%s", h.Name(), difference(before[i], after))
		}
	}
}

// difference shows the lines that two texts don't share.
func difference(before, after string) string {
	var b strings.Builder
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, l := range old {
		if !slices.Contains(now, l) {
			fmt.Fprintf(&b, "- %s\n", l)
		}
	}
	for _, l := range now {
		if !slices.Contains(old, l) {
			fmt.Fprintf(&b, "+ %s\n", l)
		}
	}
	return b.String()
}

// hostKey is the fingerprint of the host's ssh key, as ssh-keygen shows it.
func (h host) hostKey(t *testing.T) string {
	t.Helper()
	return strings.Fields(h.sh(t, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"))[1]
}

// letsIn puts root's key of another host where root may log in with it.
func (h host) letsIn(t *testing.T, other host) {
	t.Helper()
	key := other.sh(t, `[ -e /root/.ssh/id_rsa ] || ssh-keygen -q -t rsa -b 2048 -N '' -f /root/.ssh/id_rsa; cat /root/.ssh/id_rsa.pub`)
	h.sh(t, "mkdir -p -m 0700 /root/.ssh && echo '"+key+"' >> /root/.ssh/authorized_keys")
}
