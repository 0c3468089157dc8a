package packages

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/cmd/internal/keys"
	"pmxcfs/contrib/vmlab"
	"pmxcfs/internal/testutil"
)

const certs = "pve-cluster-certs.service"

// TestInstallationByTheBook does on two fresh hosts, one of each release, what
// docs/installation.md says, to the letter: install, create, add.
func TestInstallationByTheBook(t *testing.T) {
	vmlab.Require(t)
	t.Parallel()
	const document = "installation.md"
	part := parts(t)
	l := vmlab.New(t, vmlab.Trixie, vmlab.Bookworm)
	node1, node2 := host{l.Host(1)}, host{l.Host(2)}
	both := []host{node1, node2}
	part("OneHost", func(t *testing.T) {
		for _, h := range both {
			for _, name := range []string{"corosync", "openssh-client", "openssh-server", "rrdcached"} {
				h.fails(t, "dpkg", "-s", name)
			}
			r := built(t, h.Suite(), plain)
			content, err := os.ReadFile(r.deb)
			if err != nil {
				t.Fatal(err)
			}
			there := "/root/" + filepath.Base(r.deb)
			if err := h.WriteFile(there, content, 0o644); err != nil {
				t.Fatal(err)
			}
			// A host has no network of its own to download by.
			h.apt(t, "install", "-o", "APT::Install-Recommends=true", "--download-only", there)
			follow(t, document, "One host", h)
			h.serves(t, soon, ".debug", "0\n")
			h.certified(t, h.Name())
			h.well(t)
		}
	})
	part("ACluster", func(t *testing.T) {
		follow(t, document, "A cluster", node1, both...)
		c := cluster{lab: l, hosts: both, name: "example"}
		c.agree(t, both...)
		for _, h := range both {
			// The same authority for both.
			if err := node1.holds("pve-root-ca.pem", must(h.read("pve-root-ca.pem"))(t)); err != nil {
				t.Error(err)
			}
			h.certified(t, h.Name())
			h.well(t)
		}
		// Each way, as migrations go.
		ssh := "ssh -o BatchMode=yes -o HostKeyAlias=%[1]s -o UserKnownHostsFile=/etc/pve/nodes/%[1]s/ssh_known_hosts -o GlobalKnownHostsFile=none root@%[1]s hostname"
		for i, h := range both {
			other := both[1-i].Name()
			if got := h.sh(t, fmt.Sprintf(ssh, other)); got != other {
				t.Errorf("from %s, %s says it is %q", h.Name(), other, got)
			}
		}
	})
	part("NobodyWaitsForTheCertificatesWithoutQuorum", func(t *testing.T) {
		if err := node2.Shutdown(within(t, settles)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := node1.Reboot(within(t, settles)); err != nil { // until no job is left
			t.Fatal(err)
		}
		t.Logf("rebooted without quorum within %v", time.Since(begin).Round(100*time.Millisecond))
		if got := node1.property(t, unit, "ActiveState"); got != "active" {
			t.Errorf("without quorum, the daemon's unit is %s", got)
		}
		if got := node1.property(t, certs, "ActiveState"); got != "active" {
			t.Errorf("without quorum, %s is %s, and does not wait", certs, got)
		}
		// Stopping is no failure, and nothing starts the daemon again.
		node1.run(t, "systemctl", "stop", unit)
		node1.sh(t, "touch /etc/hosts")
		time.Sleep(2 * time.Second)
		for _, u := range []string{unit, certs, "pve-cluster-certs.path", "pve-cluster-certs.timer"} {
			if got := node1.property(t, u, "ActiveState"); got != "inactive" {
				t.Errorf("after the stop, %s is %s", u, got)
			}
		}
		node1.run(t, "systemctl", "start", unit)
		if err := node2.Boot(within(t, settles)); err != nil {
			t.Fatal(err)
		}
		for _, h := range both {
			testutil.EventuallyWithin(t, settles, func() error {
				if got := h.property(t, certs, "ActiveState"); got != "inactive" {
					return fmt.Errorf("with quorum, %s of %s is %s", certs, h.Name(), got)
				}
				return nil
			})
			h.well(t)
		}
	})
}

// certified waits until the node has keys and a certificate for these names, which its
// cluster's authority has signed.
func (h host) certified(t *testing.T, names ...string) {
	t.Helper()
	testutil.EventuallyWithin(t, settles, func() error {
		ca, err := h.read("pve-root-ca.pem")
		if err != nil {
			return err
		}
		text, err := h.read("nodes/" + h.Name() + "/pve-ssl.pem")
		if err != nil {
			return err
		}
		c, err := keys.ParseCertificate([]byte(text))
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(ca))
		for _, name := range append(names, h.Address()) {
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
				return fmt.Errorf("%s: %w", h.Name(), err)
			}
		}
		return nil
	})
	testutil.EventuallyWithin(t, settles, func() error {
		if state := h.property(t, certs, "ActiveState"); state != "inactive" {
			return fmt.Errorf("%s is %s", certs, state)
		}
		return nil
	})
	if got := h.property(t, certs, "Result"); got != "success" {
		t.Errorf("%s: the result of %s is %s", h.Name(), certs, got)
	}
}

// keepsCertificates looks at what happens without anybody's doing: keys and certificate
// are made, and renewed when the host has another name.
func (h host) keepsCertificates(t *testing.T) {
	h.certified(t, h.Name())
	for _, name := range []string{"pve-cluster-certs.path", "pve-cluster-certs.timer"} {
		if got := h.property(t, name, "ActiveState"); got != "active" {
			t.Errorf("%s is %s", name, got)
		}
	}
	if got := h.run(t, "readlink", "/root/.ssh/authorized_keys"); got != "/etc/pve/priv/authorized_keys" {
		t.Errorf("root's authorized_keys leads to %s", got)
	}
	before := h.run(t, "cat", mount+"/nodes/"+h.Name()+"/pve-ssl.pem")
	h.run(t, "pvecm", "updatecerts")
	if now := h.run(t, "cat", mount+"/nodes/"+h.Name()+"/pve-ssl.pem"); now != before {
		t.Error("a certificate that is good was made anew")
	}
	h.sh(t, "cp /etc/resolv.conf /root/resolv.before && echo search elsewhere.test >> /etc/resolv.conf")
	h.certified(t, h.Name(), h.Name()+".elsewhere.test")
	h.sh(t, "cat /root/resolv.before > /etc/resolv.conf")
	for _, u := range []string{certs, "pve-cluster-certs.path", "pve-cluster-certs.timer"} {
		if out := h.run(t, "systemd-analyze", "verify", "--recursive-errors=no", "--man=no", u); out != "" {
			t.Errorf("systemd-analyze verify: %s", out)
		}
	}
}

// ownKey is a public key that root of a host is let in by.
const ownKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ3dm1sYWIgdGVzdCBrZXkgbm90IGluIHVzZSEhISEh admin@desk"

// keepsKeys removes the package, with the daemon there and without: root's keys are there
// afterwards, in a file of the host's own.
func (h host) keepsKeys(t *testing.T, r release) {
	const file = "/root/.ssh/authorized_keys"
	h.certified(t, h.Name())
	h.sh(t, "echo '"+ownKey+"' >> "+file)
	for _, stopped := range []bool{false, true} {
		h.serves(t, soon, ".debug", "0\n")
		h.certified(t, h.Name())
		if got := h.run(t, "stat", "-c", "%F", file); got != "symbolic link" {
			t.Errorf("with the package, root's authorized_keys is a %s", got)
		}
		if stopped {
			h.run(t, "systemctl", "stop", unit)
		}
		h.apt(t, "remove", plain)
		if got := h.run(t, "stat", "-c", "%F %a %U", file); got != "regular file 600 root" {
			t.Errorf("without the package (stopped before: %v), root's authorized_keys is a %s", stopped, got)
		}
		if text := h.run(t, "cat", file); strings.Count(text, ownKey) != 1 {
			t.Errorf("without the package (stopped before: %v), root's authorized_keys holds\n%s", stopped, text)
		}
		h.install(t, r)
	}
	h.serves(t, soon, ".debug", "0\n")
}

// replacesCommand puts our pvecm in the stock command's place, and takes it away again.
func (h host) replacesCommand(t *testing.T, r release) {
	before := h.stockFiles(t)
	content, err := os.ReadFile(r.deb)
	if err != nil {
		t.Fatal(err)
	}
	there := "/root/" + filepath.Base(r.deb)
	if err := h.WriteFile(there, content, 0o644); err != nil {
		t.Fatal(err)
	}
	h.apt(t, "install", "--download-only", there)
	list := blocks(t, "proxmox.md")
	list = slices.DeleteFunc(list, func(b block) bool { return b.title != "The command pvecm" })
	if len(list) != 2 {
		t.Fatalf("the chapter has %d blocks of commands, not one for each way", len(list))
	}
	ours := regexp.MustCompile(`^pvecm version `)
	version := func() string {
		out, _ := h.Exec(within(t, settles), "pvecm", "--version")
		return strings.TrimSpace(string(out))
	}
	h.does(t, list[0])
	if got := version(); !ours.MatchString(got) {
		t.Errorf("pvecm is %q", got)
	}
	h.sh(t, "zcat -f /usr/share/man/man1/pvecm.1.gz | grep -q updatecerts")
	same(t, "with our pvecm", before, h.stockFiles(t))
	// The stock package's next version goes where it belongs.
	h.apt(t, "install", "--reinstall", "libpve-cluster-api-perl")
	if got := version(); !ours.MatchString(got) {
		t.Errorf("after the stock package was installed again, pvecm is %q", got)
	}
	if out := h.sh(t, "dpkg --verify; dpkg --audit"); out != "" {
		t.Errorf("dpkg objects:\n%s", out)
	}
	h.does(t, list[1])
	if got := version(); ours.MatchString(got) {
		t.Errorf("after the removal, pvecm is %q", got)
	}
	if got := h.sh(t, "dpkg-divert --list '*pvecm*'; find /usr -xdev -name '*pvecm*.distrib*'"); got != "" {
		t.Errorf("left of the diversions:\n%s", got)
	}
	same(t, "with the stock pvecm again", before, h.stockFiles(t))
	h.manages(t)
}

// TestOneMaintainer has whoever packages or asks find one address.
func TestOneMaintainer(t *testing.T) {
	address := regexp.MustCompile(`[\w.+-]+@[\w-]+(?:\.[\w-]+)+`)
	control, err := os.ReadFile("../../../../debian/control")
	if err != nil {
		t.Fatal(err)
	}
	want := address.Find(control)
	if want == nil {
		t.Fatal("debian/control names no address")
	}
	for _, name := range []string{"debian/control", "debian/changelog", "README.md", "SECURITY.md"} {
		text, err := os.ReadFile("../../../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		found := address.FindAll(text, -1)
		if len(found) == 0 {
			t.Errorf("%s names no address", name)
		}
		for _, a := range found {
			if !bytes.Equal(a, want) {
				t.Errorf("%s names %s, debian/control %s", name, a, want)
			}
		}
	}
}
