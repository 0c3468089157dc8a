package keys

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/cmd/internal/host"
)

// testHost is a new node1 below a directory.
func testHost(t *testing.T) (*host.Host, *bytes.Buffer) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"etc/pve", "etc/ssh", "etc/corosync", "etc/cron.d", "root", "usr/bin", "usr/sbin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	h := &host.Host{
		Root: root, Name: "node1", Stdout: &out, Stderr: &out,
		Lookup:   func(string) []netip.Addr { return []netip.Addr{node1.Address} },
		Writable: func() bool { return true },
		Now:      func() time.Time { return recordedAt },
	}
	put(t, h, "/etc/resolv.conf", "search lab.example\n")
	put(t, h, "/etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAAB3host root@node1\n")
	put(t, h, "/etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAC3host root@node1\n")
	if err := os.Symlink("nodes/node1", h.Path("/etc/pve/local")); err != nil {
		t.Fatal(err)
	}
	return h, &out
}

func put(t *testing.T, h *host.Host, path, text string) {
	t.Helper()
	if err := os.WriteFile(h.Path(path), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, h *host.Host, path string) string {
	t.Helper()
	b, err := h.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// state is every file of the mount with its content.
func state(t *testing.T, h *host.Host) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{host.Mount, "/root"} {
		err := filepath.WalkDir(h.Path(dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(path, h.Root)
			if d.Type().IsRegular() {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				all[name] = string(b)
			} else {
				all[name] = d.Type().String()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestUpdateMakesWhatIsMissingAndNothingTwice(t *testing.T) {
	h, out := testHost(t)
	put(t, h, "/etc/corosync/authkey", "secret")
	if err := os.Chmod(h.Path("/etc/corosync/authkey"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Update(t.Context(), h, Options{}); err != nil {
		t.Fatal(err)
	}
	recorded, err := os.ReadFile("testdata/updatecerts-first.tree")
	if err != nil {
		t.Fatal(err)
	}
	first := state(t, h)
	for line := range strings.Lines(string(recorded)) {
		f := strings.Fields(line)
		path := f[2]
		if strings.HasPrefix(filepath.Base(path), ".") || f[0][0] == 'l' && path != "/etc/pve/local" { // the daemon's
			continue
		}
		if _, ok := first[path]; !ok {
			t.Errorf("%s is missing", path)
		}
	}
	if got, want := get(t, h, "/etc/pve/nodes/node1/ssh_known_hosts"), "node1 ssh-rsa AAAAB3host\nnode1 ssh-ed25519 AAAAC3host"; got != want {
		t.Errorf("known hosts: %q, want %q", got, want)
	}
	if target, _ := os.Readlink(h.Path(rootKeys)); target != clusterKeys {
		t.Errorf("authorized_keys leads to %q", target)
	}
	if got, want := get(t, h, clusterKeys), get(t, h, rootKey+".pub"); got != want {
		t.Errorf("authorized_keys %q, want %q", got, want)
	}
	if info, err := os.Stat(h.Path("/etc/corosync/authkey")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("corosync's key: %v, %v", info.Mode(), err)
	}
	if got := get(t, h, serialFile); got != "01\n" {
		t.Errorf("serial number %q", got)
	}
	if why := Outdated([]byte(get(t, h, "/etc/pve/nodes/node1/pve-ssl.pem")), []byte(get(t, h, "/etc/pve/nodes/node1/pve-ssl.key")), []byte(get(t, h, caFile)), node1, recordedAt); why != "" {
		t.Errorf("the new certificate is outdated: %s", why)
	}
	for _, want := range []string{"certificate authority", "this node's certificate: there is none", "authkey could be read by others"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not told: %s", want, out)
		}
	}

	out.Reset()
	if err := Update(t.Context(), h, Options{}); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 0 {
		t.Errorf("a second run tells: %s", out)
	}
	if second := state(t, h); !equal(first, second) {
		t.Error("a second run changes something")
	}

	for _, test := range []struct {
		says   string
		change func()
	}{
		{"making this node's certificate\n", func() {}},
		{"lacks the address 10.9.9.9", func() { h.Lookup = func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.9.9.9")} } }},
		{"it ends on", func() { h.Now = func() time.Time { return recordedAt.Add(717 * day) } }},
	} {
		before := get(t, h, "/etc/pve/nodes/node1/pve-ssl.pem")
		test.change()
		out.Reset()
		if err := Update(t.Context(), h, Options{Force: strings.HasSuffix(test.says, "\n")}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), test.says) || get(t, h, "/etc/pve/nodes/node1/pve-ssl.pem") == before {
			t.Errorf("%q: no new certificate: %s", test.says, out)
		}
	}
	if got := get(t, h, serialFile); got != "04\n" {
		t.Errorf("serial number %q after three more certificates", got)
	}
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func TestUpdateWaitsForQuorumAndNoLonger(t *testing.T) {
	h, _ := testHost(t)
	if err := EnsureRootKey(t.Context(), h); err != nil { // which takes longer than we wait
		t.Fatal(err)
	}
	h.Writable = func() bool { return false }
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := Update(ctx, h, Options{Silent: true}); err == nil || !strings.Contains(err.Error(), "waiting for quorum") {
		t.Errorf("%v", err)
	}
	if h.Exists("/etc/pve/priv") {
		t.Error("something was written without quorum")
	}
}

func TestAuthorizedKeysBecomesALinkAsRecorded(t *testing.T) {
	var all struct {
		Cases []struct {
			Name   string
			Before struct {
				Cluster, Root *string
				RootKind      string `json:"root_kind"`
			}
			After struct {
				Cluster, Backup *string
				RootLink        string `json:"root_link"`
			}
		} `json:"authorized_keys_link"`
	}
	vectors(t, &all)
	for _, v := range all.Cases {
		t.Run(v.Name, func(t *testing.T) {
			h, _ := testHost(t)
			for _, dir := range []string{"/etc/pve/priv", rootDir} {
				if err := os.MkdirAll(h.Path(dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if v.Before.Cluster != nil {
				put(t, h, clusterKeys, *v.Before.Cluster)
			}
			link := map[string]string{"link": clusterKeys, "otherlink": "/nowhere"}[v.Before.RootKind]
			if link != "" {
				if err := os.Symlink(link, h.Path(rootKeys)); err != nil {
					t.Fatal(err)
				}
			} else if v.Before.RootKind == "file" {
				put(t, h, rootKeys, *v.Before.Root)
			}
			if err := LinkAuthorizedKeys(h); err != nil {
				t.Fatal(err)
			}
			if target, _ := os.Readlink(h.Path(rootKeys)); target != v.After.RootLink {
				t.Errorf("link to %q, want %q", target, v.After.RootLink)
			}
			if got := get(t, h, clusterKeys); got != *v.After.Cluster {
				t.Errorf("cluster's file %q, want %q", got, *v.After.Cluster)
			}
			old, err := readIfThere(h, rootKeysOld)
			if err != nil || string(old) != string(bytesOf(v.After.Backup)) || (old == nil) != (v.After.Backup == nil) {
				t.Errorf("backup %q, want %q; %v", old, bytesOf(v.After.Backup), err)
			}
		})
	}
}

func TestPrivateKeyWithoutItsPublicHalfIsKept(t *testing.T) {
	h, _ := testHost(t)
	if err := EnsureRootKey(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	private, public := get(t, h, rootKey), get(t, h, rootKey+".pub")
	if err := os.Remove(h.Path(rootKey + ".pub")); err != nil {
		t.Fatal(err)
	}
	if err := EnsureRootKey(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if get(t, h, rootKey) != private {
		t.Error("the private key was replaced")
	}
	if got := get(t, h, rootKey+".pub"); publicKey(got) != publicKey(public) || !strings.HasSuffix(got, " root@node1\n") {
		t.Errorf("%q, want %q", got, public)
	}
}

func TestRootsKeyIsMadeOnceByTwoAtATime(t *testing.T) {
	h, _ := testHost(t)
	h.Exec = func(_ context.Context, c host.Command) error {
		if h.Exists(rootKey) {
			return fmt.Errorf("%v: overwrite (y/n)?", c.Args)
		}
		put(t, h, rootKey, "private")
		time.Sleep(10 * time.Millisecond) // between the two files
		put(t, h, rootKey+".pub", "public")
		return nil
	}
	errs := make(chan error)
	for range 4 {
		go func() { errs <- EnsureRootKey(t.Context(), h) }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestKnownHostsIsUnmergedOnceAllNodesHaveTheirFiles(t *testing.T) {
	h, _ := testHost(t)
	for _, dir := range []string{"/etc/pve/priv", "/etc/pve/nodes/node1", "/etc/pve/nodes/node2"} {
		if err := os.MkdirAll(h.Path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, h, clusterHosts, "node2 ssh-rsa AAAA\n")
	if err := os.Symlink(clusterHosts, h.Path(systemHosts)); err != nil {
		t.Fatal(err)
	}
	if err := WriteKnownHosts(h); err != nil {
		t.Fatal(err)
	}
	if allNodesHaveKnownHosts(h) {
		t.Error("node2 has no file yet")
	}
	put(t, h, knownHostsFile("node2"), "node2 ssh-rsa AAAA")
	if !allNodesHaveKnownHosts(h) {
		t.Error("all nodes have their files")
	}
	if err := Unmerge(h); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(h.Path(systemHosts)); err != nil || !info.Mode().IsRegular() || get(t, h, systemHosts) != "node2 ssh-rsa AAAA\n" {
		t.Errorf("%v, %v", info, err)
	}
}

func TestCronTableIsLinkedWhereGuestsAreBackedUp(t *testing.T) {
	for _, with := range []bool{false, true} {
		h, _ := testHost(t)
		if with {
			put(t, h, vzdumpProgram, "")
		}
		put(t, h, cronLink, "old")
		put(t, h, vzdumpCron, vzdumpText)
		u := updater{h, Options{}}
		for range 2 {
			if err := u.cron(); err != nil {
				t.Fatal(err)
			}
		}
		target, _ := os.Readlink(h.Path(cronLink))
		saved, _ := readIfThere(h, cronSaved)
		if with != (target == vzdumpCron) || with != (string(saved) == "old") {
			t.Errorf("with vzdump %v: link %q, saved %q", with, target, saved)
		}
	}
}

func TestSSHDIsChangedOnlyIfRootCannotLogIn(t *testing.T) {
	for _, test := range []struct {
		says    []string // by sshd -T, one after the other
		changed bool
		warns   string
		reload  bool
	}{
		{[]string{"permitrootlogin prohibit-password\n"}, false, "", false},
		{[]string{"permitrootlogin no\n", "permitrootlogin prohibit-password\n"}, true, "", true},
		{[]string{"permitrootlogin no\n", "permitrootlogin no\n"}, true, "wins over it", false},
		{[]string{"error"}, false, "is unknown", false},
	} {
		h, out := testHost(t)
		put(t, h, "/usr/sbin/sshd", "")
		var ran []string
		h.Exec = func(_ context.Context, c host.Command) error {
			ran = append(ran, strings.Join(c.Args, " "))
			if c.Args[0] == "/usr/sbin/sshd" {
				say := test.says[0]
				test.says = test.says[1:]
				if say == "error" {
					return fmt.Errorf("no")
				}
				fmt.Fprint(c.Stdout, say)
			}
			return nil
		}
		if err := AllowRootLogin(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if h.Exists(sshdDropIn) != test.changed || !strings.Contains(out.String(), test.warns) ||
			slices.Contains(ran, "systemctl reload-or-restart sshd") != test.reload {
			t.Errorf("%+v: changed %v, ran %q, said %s", test, h.Exists(sshdDropIn), ran, out)
		}
	}
}

func TestForgettingANodeRemovesItsKeysOnly(t *testing.T) {
	h, _ := testHost(t)
	if err := os.MkdirAll(h.Path("/etc/pve/priv/lock"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, h, "/etc/pve/priv/authorized_keys", "ssh-rsa AAAAB3one root@node1\nssh-rsa AAAAB3two root@node2\nfrom=\"10.0.0.0/8\" ssh-rsa AAAAB3two\nssh-ed25519 AAAAC3me me@desk\n")
	put(t, h, "/etc/pve/priv/known_hosts", "node1 ssh-rsa AAAAB3h1\nnode2 ssh-rsa AAAAB3h2\nNODE2,10.99.0.2 ssh-rsa AAAAB3h2\n|1|salt|hash ssh-rsa AAAAB3x\n")
	n, err := ForgetNode(t.Context(), h, "node2")
	if err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	if got, want := get(t, h, "/etc/pve/priv/authorized_keys"), "ssh-rsa AAAAB3one root@node1\nssh-ed25519 AAAAC3me me@desk"; strings.TrimSpace(got) != want {
		t.Errorf("authorized_keys: %q, want %q", got, want)
	}
	if got, want := get(t, h, "/etc/pve/priv/known_hosts"), "node1 ssh-rsa AAAAB3h1\n|1|salt|hash ssh-rsa AAAAB3x\n"; got != want {
		t.Errorf("known_hosts: %q, want %q", got, want)
	}
	if n, err := ForgetNode(t.Context(), h, "node2"); err != nil || n != 0 {
		t.Errorf("once more: %d, %v", n, err)
	}
}
