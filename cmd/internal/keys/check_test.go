package keys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pmxcfs/cmd/internal/host"
)

func kinds(list []Finding) (out []string) {
	for _, f := range list {
		mark := ""
		if f.Fixed {
			mark = "+"
		}
		out = append(out, mark+f.Node+" "+f.Kind)
	}
	slices.Sort(out)
	return out
}

func TestCheckFindsAndMends(t *testing.T) {
	h, out := testHost(t)
	if err := Update(t.Context(), h, Options{Silent: true}); err != nil {
		t.Fatal(err)
	}
	put(t, h, "/etc/pve/.members", `{"nodename":"node1","nodelist":{"node1":{"id":1,"online":1,"ip":"10.99.0.1"}}}`)
	list, err := Check(t.Context(), h, false)
	if err != nil || len(list) > 0 {
		t.Fatalf("of a good host: %v, %v", list, err)
	}

	put(t, h, "/etc/corosync/authkey", strings.Repeat("x", 256))
	for _, err := range []error{
		os.Chmod(h.Path("/etc/corosync/authkey"), 0o644),
		os.Remove(h.Path(rootKeys)),
		os.Remove(h.Path(clusterKeys)),
		os.Remove(h.Path("/etc/pve/nodes/node1/pve-ssl.key")),
		os.Remove(h.Path(wwwKeyFile)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	put(t, h, "/etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAAB3other root@node1\n")
	put(t, h, "/etc/pve/.members", `{"nodename":"node1","nodelist":{"node1":{"id":1,"online":1,"ip":"10.99.0.1"},
		"node2":{"id":2,"online":1,"ip":"10.99.0.2"},"node3":{"id":3,"online":1,"ip":"10.99.0.3"},"node4":{"id":4,"online":0}}}`)
	if err := Directories(h, "node3"); err != nil {
		t.Fatal(err)
	}
	put(t, h, knownHostsFile("node3"), "node3 ssh-ed25519 AAAAC3three")
	var asked []string
	h.Exec = func(ctx context.Context, c host.Command) error {
		line := strings.Join(c.Args, " ")
		asked = append(asked, line)
		switch {
		case strings.HasPrefix(line, "ssh-keygen"):
			e := h.Exec
			defer func() { h.Exec = e }()
			h.Exec = nil
			return h.Do(ctx, c)
		case line == "ssh-keyscan -T 5 10.99.0.3":
			fmt.Fprint(c.Stdout, "# x\n10.99.0.3 ssh-ed25519 AAAAC3three\n")
		case strings.Contains(line, "root@10.99.0.2"):
			fmt.Fprint(c.Stderr, "Permission denied")
			return &host.CommandError{Args: c.Args, Status: 255, Err: errors.New("exit status 255")}
		}
		return nil
	}
	want := []string{
		"node1 authkey-mode", "node1 authorized-keys-link", "node1 certificate", "node1 key-not-entered", "node1 known-hosts", "node1 www-key",
		"node2 certificate", "node2 known-hosts", "node2 ssh", "node3 certificate",
	}
	list, err = Check(t.Context(), h, false)
	if err != nil || !slices.Equal(kinds(list), want) {
		t.Fatalf("%q, %v; want %q", kinds(list), err, want)
	}
	i := slices.IndexFunc(list, func(f Finding) bool { return f.Kind == "ssh" })
	if !strings.Contains(list[i].String(), "Permission denied") {
		t.Errorf("%v", list[i])
	}
	for j, w := range want {
		if strings.HasPrefix(w, "node1") {
			want[j] = "+" + w
		}
	}
	list, err = Check(t.Context(), h, true)
	if err != nil || !slices.Equal(kinds(list), want) {
		t.Errorf("mended: %q, %v; want %q\n%s", kinds(list), err, want, out)
	}
	for _, node := range []string{"10.99.0.2", "10.99.0.3"} {
		if !slices.ContainsFunc(asked, func(s string) bool { return strings.HasSuffix(s, "root@"+node+" -- pvecm updatecerts --silent") }) {
			t.Errorf("%s was not asked to mend itself: %q", node, asked)
		}
	}
}

func TestCheckMendsNothingWithoutQuorum(t *testing.T) {
	h, _ := testHost(t)
	h.Writable = func() bool { return false }
	put(t, h, "/etc/pve/.members", `{"nodename":"node1","nodelist":{}}`)
	list, err := Check(t.Context(), h, true)
	if len(list) == 0 || err == nil || !strings.Contains(err.Error(), "no quorum") {
		t.Errorf("%q, %v", kinds(list), err)
	}
}
