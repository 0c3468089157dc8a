package look

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/status/ipc"
)

// secrets makes secrets, and remembers them.
type secrets struct{ list []string }

func (s *secrets) make() string {
	x := fmt.Sprintf("Sup3rHush%02dx", len(s.list))
	s.list = append(s.list, x)
	return x
}

// plant has a node's tree hold secrets wherever a real one does, and in some places
// where it should not.
func (s *secrets) plant(n *labtest.Node) {
	x := s.make
	files := map[string]string{
		"storage.cfg": "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\ncifs: share\n\tserver 10.1.2.3\n\tshare data\n\tusername admin\n\tpassword " + x() +
			"\n\tdomain " + x() + "\n# the password was " + x() + "\npbs: backup\n\tserver 10.1.2.4\n\tencryption-key " + x() + "\n\toptions password=" + x() + "\n",
		"datacenter.cfg": "keyboard: de\nhttp_proxy: http://me:" + x() + "@proxy:3128\nwebauthn: rp=x,origin=" + x() + "\ndescription: " + x() + "\nu2f: appid=" + x() + "\n",
		"user.cfg":       "user:a@pve:1:0:::a@x:" + x() + "::\ntoken:a@pve!t:0:1:" + x() + "::\n",
		"domains.cfg":    "ldap: d\n\tbind_dn " + x() + "\n",
		"pve-www.key":    "-----BEGIN RSA PRIVATE KEY-----\n" + x() + "\n-----END RSA PRIVATE KEY-----\n",
		"authkey.pub":    x(), "notifications.cfg": "smtp: m\n\tcomment " + x() + "\n",
		"replication.cfg":                  "local: 100-0\n\ttarget node2\n\tcomment " + x() + "\n",
		"ha/resources.cfg":                 "vm: 100\n\tgroup g\n\tcomment " + x() + "\n",
		"firewall/cluster.fw":              "# " + x() + "\n",
		"priv/shadow.cfg":                  "root@pam:$5$abc$" + x() + ":\n",
		"priv/token.cfg":                   "a@pve!t " + x() + "\n",
		"priv/storage/share.pw":            "password=" + x() + "\n",
		"priv/" + x() + ".key":             x(),
		"priv/a " + x() + " b":             x(),
		"nodes/node1/pve-ssl.key":          x(),
		"nodes/node1/config":               "acme: account=" + x() + "\n# " + x() + "\n",
		"nodes/node1/priv/" + x():          x(),
		"nodes/node1/qemu-server/100.conf": "name: a\ncipassword: " + x() + "\nsshkeys: " + x() + "\nargs: -secret " + x() + "\n",
	}
	for path, content := range files {
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			n.Mkdir(path[:i])
		}
		n.Write(path, content)
	}
	n.Mkdir("priv/lock/" + x())
	conf, err := os.ReadFile(n.Path("corosync.conf"))
	n.Must(err)
	// The host's copy alone: corosync does not read it again.
	hostConf := strings.Replace(string(conf), "totem {", "# "+x()+"\ntotem {\n  key: "+x()+"\n  keyfile: "+x(), 1)
	n.Must(os.WriteFile(n.Host.Path("/etc/corosync/corosync.conf"), []byte(hostConf), 0o644))
}

func TestReportHasNoSecrets(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 2)
	n := c.Node(1)
	var s secrets
	s.plant(n)
	// A value of the log that anybody may write, with what looks like a secret.
	text := "login failed: password=" + s.make() + ", token: " + s.make() + ", http://u:" + s.make() + "@h/ PVEAuthCookie=" + s.make() + " a@pve!x=" + s.make() + " secret is " + s.make()
	const ident, tag = "a@pve", "pvedaemon"
	entry := &labtest.Request{Op: ipc.OpLog, Data: string([]byte{6, byte(len(ident) + 1), byte(len(tag) + 1)}) + ident + "\x00" + tag + "\x00" + text + "\x00"}
	if n.Ask(entry); entry.Errno != 0 {
		t.Fatal(entry.Errno)
	}
	for _, daemon := range []string{"with its daemon", "without it"} {
		t.Run(daemon, func(t *testing.T) {
			n.T = t
			if daemon == "without it" {
				n.Stop()
			}
			if out, status := look(n, "report", "/run/report.tar.gz"); status != 0 {
				t.Fatalf("status %d: %s", status, out)
			}
			if st, err := os.Stat(n.Host.Path("/run/report.tar.gz")); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", st.Mode(), err)
			}
			if out, status := look(n, "report", "/run/report.tar.gz"); status != 1 {
				t.Errorf("over a file that exists: status %d: %s", status, out)
			}
			parts := archive(t, n.Host.Path("/run/report.tar.gz"))
			n.Must(os.Remove(n.Host.Path("/run/report.tar.gz")))
			for name, content := range parts {
				for _, x := range s.list {
					if i := strings.Index(content, x); i >= 0 {
						t.Errorf("%s has a secret: …%s…", name, content[max(0, i-120):min(len(content), i+40)])
					}
				}
				if strings.HasSuffix(name, ".json") && !json.Valid([]byte(content)) {
					t.Errorf("%s is no JSON", name)
				}
			}
			// That it has anything at all.
			only(t, parts["tree.txt"], "/storage.cfg", "/nodes/node1/qemu-server/100.conf", "private ones")
			only(t, parts["config/storage.cfg"], "server 10.1.2.3", "path /var/lib/vz", "(left out)")
			only(t, parts["config/corosync.conf"], "cluster_name: lab", "ring0_addr: 10.99.0.1")
			only(t, parts["config/datacenter.cfg"], "keyboard: de")
			only(t, parts["versions.txt"], "pmxcfs ", "corosync ")
			only(t, parts["doctor.txt"], "group", "database")
			if daemon == "with its daemon" {
				only(t, parts["status.txt"], "pmxcfs on node1", "cluster \"lab\"")
				only(t, parts["compare.txt"], "equal: all 2 nodes")
				only(t, parts["log.json"], `"msg": "(left out)"`, `"tag": "pvedaemon"`)
				if out, status := look(n, "report", "--with-logs", "/run/with-logs.tar.gz"); status != 0 {
					t.Fatalf("status %d: %s", status, out)
				}
				logs := archive(t, n.Host.Path("/run/with-logs.tar.gz"))
				only(t, logs["log.json"], "login failed: password=(left out)")
				only(t, logs["README.txt"], "--with-logs", "nobody knows")
			} else {
				only(t, parts["status.txt"], "the daemon is not running")
			}
		})
	}
}

// archive takes a report apart.
func archive(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		parts[strings.TrimPrefix(h.Name, "pmxcfs-report/")] = b.String()
	}
}
