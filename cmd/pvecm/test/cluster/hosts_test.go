package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/internal/testutil"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

//go:embed systemctl.sh
var systemctl string

// program is pvecm, built once.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(labtest.Program()), "pvecm")
	if out, err := exec.Command("go", "build", "-o", path, "pmxcfs/cmd/pvecm").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building pvecm: %w\n%s", err, out)
	}
	return path, nil
})

// identities are ssh keys of hosts and their roots, a directory for each, made once: what makes
// hosts different from each other needn't differ between tests.
var identities = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(labtest.Program()), "identities")
	var made sync.WaitGroup
	errs := make([]error, maxHosts)
	for i := range maxHosts {
		made.Go(func() {
			own := filepath.Join(dir, lab.Name(i+1))
			errs[i] = os.MkdirAll(own, 0o700)
			for _, args := range [][]string{{"rsa", "-b", "2048", "-f", own + "/ssh_host_rsa_key"}, {"ed25519", "-f", own + "/ssh_host_ed25519_key"}, {"rsa", "-b", "2048", "-f", own + "/id_rsa"}} {
				out, err := exec.Command("ssh-keygen", append([]string{"-q", "-N", "", "-C", "root@" + lab.Name(i+1), "-t"}, args...)...).CombinedOutput()
				if err != nil {
					errs[i] = errors.Join(errs[i], fmt.Errorf("ssh-keygen: %w: %s", err, out))
				}
			}
		})
	}
	made.Wait()
	return dir, errors.Join(errs...)
})

// maxHosts is the largest number of hosts of a test.
const maxHosts = 5

// hosts are fresh hosts.
type hosts struct {
	t   *testing.T
	lab *lab.Lab
	all []*node
}

// node is one of them.
type node struct {
	*lab.Host
	t *testing.T
}

// setUp gives a host a root directory and programs of its own, and starts what a host
// with the package has running. It is given pmxcfs, pvecm, and
// a directory with ssh keys.
const setUp = `
set -e
mount -t tmpfs -o mode=0700 tmpfs /root
mkdir -p /root/.ssh /run/usr/up /run/usr/work /run/tmp
chmod 0700 /root/.ssh
mount -t overlay overlay -o lowerdir=/usr,upperdir=/run/usr/up,workdir=/run/usr/work /usr
mount -t tmpfs tmpfs /var/tmp
cp "$1" /usr/bin/pmxcfs
cp "$2" /usr/bin/pvecm
cat > /usr/bin/systemctl
chmod 0755 /usr/bin/systemctl /usr/bin/pvecm /usr/bin/pmxcfs
rm -rf /etc/corosync/* /etc/ssh/ssh_known_hosts /etc/ssh/ssh_host_*
mkdir -p /etc/corosync /etc/ssh
cp -p "$3"/ssh_host_* /etc/ssh/
cp -p "$3"/id_rsa* /root/.ssh/
printf 'UsePAM no\nPermitRootLogin prohibit-password\nStrictModes no\nSubsystem sftp internal-sftp\n' > /etc/ssh/sshd_config
printf 'search lab.example\n' > /etc/resolv.conf
getent group www-data > /dev/null || groupadd www-data
systemctl start ssh pve-cluster
`

// fresh brings up hosts that are in no cluster, and know each other's root.
func fresh(t *testing.T, n int) *hosts {
	t.Helper()
	lab.Require(t, "ssh", "sshd", "ssh-keygen")
	pvecm, err := program()
	if err != nil {
		t.Fatal(err)
	}
	own, err := identities()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Up(lab.Options{Hosts: n, NoCorosync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	c := &hosts{t: t, lab: l}
	var wait sync.WaitGroup
	for _, h := range l.Hosts() {
		o := &node{h, t}
		c.all = append(c.all, o)
		wait.Go(func() {
			if out, status := o.in(systemctl, "bash", "-c", setUp, "setup", labtest.Program(), pvecm, filepath.Join(own, o.Name())); status != 0 {
				t.Errorf("%s: setting up: %s", o.Name(), out)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
	var keys, known bytes.Buffer
	for _, o := range c.all {
		keys.Write(o.read("/root/.ssh/id_rsa.pub"))
		host := strings.Fields(string(o.read("/etc/ssh/ssh_host_ed25519_key.pub")))
		fmt.Fprintf(&known, "%s,%s %s %s\n", o.Name(), lab.Address(o.ID()), host[0], host[1])
	}
	for _, o := range c.all {
		o.write("/root/.ssh/authorized_keys", keys.String())
		o.write("/root/.ssh/known_hosts", known.String())
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, o := range c.all {
			for _, log := range []string{"/var/log/systemctl.log", "/var/log/pmxcfs.log", "/var/log/corosync.out"} {
				text, _ := os.ReadFile(o.Path(log))
				if len(text) > 3000 {
					text = text[len(text)-3000:]
				}
				t.Logf("%s %s:\n%s", o.Name(), log, text)
			}
		}
	})
	return c
}

func (c *hosts) node(i int) *node { return c.all[i-1] }

// in runs a program on the host with an input, and returns what it wrote and its status.
func (o *node) in(stdin string, args ...string) (string, int) {
	var out bytes.Buffer
	p, err := o.Start(lab.Spec{Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &out})
	if err != nil {
		o.t.Fatal(err)
	}
	err = p.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), exit.ExitCode()
	}
	if err != nil {
		o.t.Fatalf("%s: %v: %v", o.Name(), args, err)
	}
	return out.String(), 0
}

// pvecm runs pvecm on the host.
func (o *node) pvecm(args ...string) (string, int) {
	return o.in("", append([]string{"/usr/bin/pvecm"}, args...)...)
}

// must runs pvecm, which has to succeed.
func (o *node) must(args ...string) string {
	o.t.Helper()
	out, status := o.pvecm(args...)
	if status != 0 {
		o.t.Fatalf("%s: pvecm %s: status %d: %s", o.Name(), strings.Join(args, " "), status, out)
	}
	return out
}

func (o *node) read(path string) []byte {
	text, err := os.ReadFile(o.Path(path))
	if err != nil {
		o.t.Fatal(err)
	}
	return text
}

// creates makes a cluster of the first host, in which others join it. corosync there hands the
// token round a few times after a message, not 30 times: that is most of what it does.
// Whatever pvecm changes later keeps an administrator's own setting.
func (c *hosts) creates(others ...*node) {
	c.t.Helper()
	one := c.node(1)
	one.must("create", "lab")
	text := strings.Replace(string(one.read("/etc/pve/corosync.conf")), "config_version: 1\n", "config_version: 2\n  seqno_unchanged_const: 3\n", 1)
	testutil.Eventually(c.t, "the new cluster can be written to", func() error {
		next := one.Path("/etc/pve/corosync.conf.new")
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			return err
		}
		return os.Rename(next, one.Path("/etc/pve/corosync.conf"))
	})
	c.wantTogether(1, one)
	for i, o := range others {
		o.must("add", lab.Address(1), "--via", "ssh")
		c.wantTogether(i+2, append([]*node{one}, others[:i+1]...)...)
	}
}

// letsIn enters another host's key, which goes when the node does.
func (o *node) letsIn(other *node) {
	key := string(other.read("/root/.ssh/id_rsa.pub"))
	if out, status := o.in(key, "bash", "-c", "cat >> /etc/pve/priv/authorized_keys"); status != 0 {
		o.t.Fatal(out)
	}
}

func (o *node) has(path string) bool {
	_, err := os.Lstat(o.Path(path))
	return err == nil
}

func (o *node) write(path, text string) {
	if err := os.WriteFile(o.Path(path), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
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

func (o *node) state() (s state) {
	p, err := o.Exec(context.Background(), "/bin/bash", "-c", "pvecm status --output-format json 2>/dev/null || true")
	if err != nil {
		o.t.Fatal(err)
	}
	if err := json.Unmarshal(p, &s); err != nil {
		o.t.Fatalf("%v: %s", err, p)
	}
	return s
}

// wantTogether waits until these hosts are a quorate cluster of so many votes, all online,
// and have the same tree.
func (c *hosts) wantTogether(votes int, nodes ...*node) {
	c.t.Helper()
	testutil.Eventually(c.t, "the nodes are together", func() error {
		for _, o := range nodes {
			s := o.state()
			if s.Quorum == nil || !s.Quorum.Quorate || s.Quorum.Expected != votes || s.Quorum.Total != votes {
				return fmt.Errorf("%s: %+v", o.Name(), s.Quorum)
			}
			online := 0
			for _, n := range s.Nodes {
				if n.Online {
					online++
				}
			}
			if online != len(nodes) {
				return fmt.Errorf("%s sees %d nodes", o.Name(), online)
			}
		}
		return nil
	})
	mark := fmt.Sprintf("mark %d", time.Now().UnixNano())
	testutil.Eventually(c.t, "what is written on one node is on all", func() error {
		// The daemon hears of the quorum a moment after the one who asks corosync.
		if err := os.WriteFile(c.node(1).Path("/etc/pve/mark"), []byte(mark), 0o600); err != nil {
			return err
		}
		for _, o := range nodes {
			if text, _ := os.ReadFile(o.Path("/etc/pve/mark")); string(text) != mark {
				return fmt.Errorf("%s has %q", o.Name(), text)
			}
			own, err := os.ReadFile(o.Path("/etc/corosync/corosync.conf"))
			tree, err2 := os.ReadFile(c.node(1).Path("/etc/pve/corosync.conf"))
			if err != nil || err2 != nil || !bytes.Equal(own, tree) {
				return fmt.Errorf("%s has another corosync.conf", o.Name())
			}
		}
		return nil
	})
}

// wantAlone checks that a host is in no cluster and works, with nothing left of a join.
func (o *node) wantAlone() {
	o.t.Helper()
	testutil.Eventually(o.t, o.Name()+" is a host on its own", func() error {
		if err := os.WriteFile(o.Path("/etc/pve/alone"), nil, 0o600); err != nil {
			return err
		}
		if s := o.state(); s.Cluster != nil {
			return fmt.Errorf("it is in cluster %s", s.Cluster.Name)
		}
		return nil
	})
	for _, path := range []string{"/etc/corosync/authkey", "/etc/corosync/corosync.conf", "/etc/pve/corosync.conf", "/var/lib/pve-cluster/join.json", "/var/lib/pve-cluster/join.saved"} {
		if o.has(path) {
			o.t.Errorf("%s is left on %s", path, o.Name())
		}
	}
}
