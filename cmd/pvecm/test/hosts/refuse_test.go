package hosts

import (
	"strings"
	"testing"

	"pmxcfs/cmd/internal/plan"
)

// refuses tries joins that can't be, of the fourth host: each ends with its status, says
// why, and changes nothing on either side.
func (s *hosts) refuses(t *testing.T) {
	peer, h := s.all[0], s.all[3]
	add := []string{"add", "node1", "--via", "ssh", "--fingerprint", peer.hostKey(t)}
	for _, c := range []struct {
		name  string
		on    host   // where something is set up
		begin string // how
		end   string // and taken back
		code  plan.Code
		says  []string
		args  []string
	}{
		{name: "taken id", code: plan.Refused, says: []string{"id 2", "node2"}, args: append(add, "--nodeid", "2")},
		{name: "foreign address, which another node has", code: plan.Refused, says: []string{"10.99.0.2", "node2"}, args: append(add, "--link0", "10.99.0.2", "--force=link-address")},
		{name: "address of nobody", code: plan.Refused, says: []string{"10.99.0.77"}, args: append(add, "--link0", "10.99.0.77")},
		{name: "unknown link", code: plan.Refused, says: []string{"no link 1"}, args: append(add, "--link0", "10.99.0.4", "--link1", "10.99.0.4")},
		{
			name: "guests", on: h, code: plan.Refused, says: []string{"guests", "100"}, args: add,
			begin: "mkdir -p /etc/pve/nodes/node4/qemu-server && touch /etc/pve/nodes/node4/qemu-server/100.conf",
			end:   "rm /etc/pve/nodes/node4/qemu-server/100.conf",
		},
		{
			name: "taken name", on: h, code: plan.Refused, says: []string{"node2"},
			args:  append(add, "--link0", "10.99.0.4", "--force=link-address"), // /etc/hosts has that of the other one
			begin: "mv /usr/bin/pvecm /usr/bin/pvecm.real; printf '%s\\n' '#!/bin/sh' 'exec unshare --uts sh -c \"hostname node2; exec pvecm.real \\\"\\$@\\\"\" pvecm \"$@\"' > /usr/bin/pvecm; chmod 0755 /usr/bin/pvecm",
			end:   "mv /usr/bin/pvecm.real /usr/bin/pvecm",
		},
		{
			// A host's clock is the machine's: what the peer says of its own is shifted.
			name: "clocks 5 minutes apart", on: peer, code: plan.Refused, says: []string{"clocks of both hosts are"}, args: add,
			begin: "printf '%s\\n' '#!/bin/bash' 'pvecm.real \"$@\" | sed -u \"s/\\\"time\\\":\\\"[^\\\"]*\\\"/\\\"time\\\":\\\"$(date -u -d +5min +%FT%TZ)\\\"/\"' > /usr/local/bin/pvecm; cp /usr/bin/pvecm /usr/local/bin/pvecm.real; chmod 0755 /usr/local/bin/pvecm",
			end:   "rm /usr/local/bin/pvecm /usr/local/bin/pvecm.real",
		},
		{
			name: "link that doesn't reach a member", on: h, code: plan.Refused, says: []string{"node3", "link 0", "10.99.0.3"}, args: add,
			begin: "ip route add unreachable 10.99.0.3/32", end: "ip route del unreachable 10.99.0.3/32",
		},
		{name: "wrong fingerprint", code: plan.Trust, says: []string{"no host key of node1 has the fingerprint"}, args: []string{"add", "node1", "--via", "ssh", "--fingerprint", h.hostKey(t)}},
		{name: "unknown host key", code: plan.Trust, says: []string{"node1"}, args: []string{"add", "node1", "--via", "ssh"}},
		{
			name: "wrong host key", on: h, code: plan.Trust, says: []string{"node1"}, args: []string{"add", "node1", "--via", "ssh"},
			begin: "printf 'node1,10.99.0.1 %s\\n' \"$(cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub)\" > /root/.ssh/known_hosts", end: "rm /root/.ssh/known_hosts",
		},
		{
			name: "key not let in", on: peer, code: plan.Trust, says: []string{"--copy-id"}, args: add,
			begin: "cp -p /etc/pve/priv/authorized_keys /root/keys && sed -i /root@node4/d /etc/pve/priv/authorized_keys", end: "cp /root/keys /etc/pve/priv/authorized_keys && rm /root/keys",
		},
		{name: "no cluster there", code: plan.Refused, says: []string{"node4 says: this host is in no cluster"}, args: []string{"add", "node4", "--via", "ssh", "--fingerprint", h.hostKey(t)}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			if c.begin != "" {
				c.on.sh(t, c.begin)
				defer c.on.sh(t, c.end)
			}
			if c.name == "no cluster there" {
				h.letsIn(t, h)
			}
			unchanged(t, []host{peer, h}, func() {
				h.fails(t, c.code, c.says, c.args...)
				if c.code == plan.Refused {
					h.fails(t, c.code, c.says, append(c.args, "--dry-run")...)
				}
			})
		})
	}
	t.Run("a-dry-run-that-finds-nothing", func(t *testing.T) {
		unchanged(t, []host{peer, h}, func() { t.Log(h.pvecm(t, append(add, "--dry-run")...)) })
	})
	t.Run("password", func(t *testing.T) { s.asksForThePassword(t) })
	t.Run("no-quorum", func(t *testing.T) {
		if err := s.Split([]int{1, 4}); err != nil {
			t.Fatal(err)
		}
		eventually(t, settles, func() error { return peer.hasQuorum(t, false) })
		unchanged(t, []host{peer, h}, func() { h.fails(t, plan.NotQuorate, []string{"no quorum"}, add...) })
		if err := s.Heal(); err != nil {
			t.Fatal(err)
		}
		are(t, s.all[:3]...)
	})
	h.isAlone(t)
}

// asksForThePassword has root's key go to the peer, which takes passwords.
func (s *hosts) asksForThePassword(t *testing.T) {
	peer, h := s.all[0], s.all[3]
	peer.sh(t, `cp -p /etc/pve/priv/authorized_keys /root/keys && sed -i /root@node4/d /etc/pve/priv/authorized_keys
echo 'PermitRootLogin yes' > /etc/ssh/sshd_config.d/password.conf && systemctl reload ssh && echo root:right | chpasswd`)
	defer peer.sh(t, "rm /etc/ssh/sshd_config.d/password.conf && systemctl reload ssh && passwd -q -l root; cp /root/keys /etc/pve/priv/authorized_keys && rm /root/keys")
	try := func(password string) (string, int) {
		// ssh asks this program where there is no terminal.
		if err := h.WriteFile("/usr/local/bin/ask", []byte("#!/bin/sh\necho "+password+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return h.run(t, "env", "SSH_ASKPASS=/usr/local/bin/ask", "SSH_ASKPASS_REQUIRE=force", "pvecm", "add", "node1", "--via", "ssh", "--copy-id", "--nodeid", "2", "--fingerprint", peer.hostKey(t))
	}
	unchanged(t, []host{peer}, func() { // this host may have made its root's key
		if out, status := try("wrong"); status != int(plan.Trust) {
			t.Errorf("with a wrong password: status %d: %s", status, out)
		}
	})
	// It gets as far as the cluster.
	if out, status := try("right"); status != int(plan.Refused) || !strings.Contains(out, "node id 2 belongs to") {
		t.Errorf("with the right password: status %d: %s", status, out)
	}
}
