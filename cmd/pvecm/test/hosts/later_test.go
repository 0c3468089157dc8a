package hosts

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pmxcfs/cmd/internal/plan"
)

// losesNodes takes nodes out: one that runs, against advice, and one that is off.
func (s *hosts) losesNodes(t *testing.T) {
	first, third, fourth := s.all[0], s.all[2], s.all[3]
	fourth.pvecm(t, "add", "node1", "--via", "ssh", "--fingerprint", first.hostKey(t))
	are(t, s.all...)
	unchanged(t, s.all[:2], func() { first.fails(t, plan.Refused, []string{"node4", "running"}, "delnode", "node4") })
	unchanged(t, s.all[:2], func() { first.fails(t, plan.Refused, []string{"node9"}, "delnode", "node9") })
	first.pvecm(t, "delnode", "node4", "--kill")
	for _, name := range []string{"/etc/corosync/corosync.conf", "/etc/corosync/authkey"} {
		if fourth.has(name) {
			t.Errorf("a node that was removed still has %s", name)
		}
	}
	if first.has("/etc/pve/nodes/node4") || strings.Contains(first.sh(t, "cat /etc/pve/priv/authorized_keys"), "root@node4") {
		t.Error("the tree still has node4's directory or key")
	}
	are(t, s.all[:3]...)
	eventually(t, settles, func() error {
		if out, _ := fourth.Exec(within(t, settles), "systemctl", "is-active", "corosync"); strings.TrimSpace(string(out)) == "active" {
			return fmt.Errorf("corosync on node4 is %s", out)
		}
		return nil
	})
	if err := third.Shutdown(within(t, settles)); err != nil {
		t.Fatal(err)
	}
	eventually(t, settles, func() error {
		s, err := first.state(within(t, settles))
		if err == nil && s.Quorum.Total != 2 {
			err = fmt.Errorf("%+v", s.Quorum)
		}
		return err
	})
	first.pvecm(t, "delnode", "node3")
	are(t, s.all[:2]...)
}

// comesUpCold has the power go for all members, which come back one by one.
func (s *hosts) comesUpCold(t *testing.T) {
	members := s.all[:3]
	for _, h := range members {
		if err := h.Crash(within(t, settles)); err != nil {
			t.Fatal(err)
		}
	}
	for i, h := range members {
		if err := h.Boot(within(t, settles)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			eventually(t, settles, func() error { return h.hasQuorum(t, false) })
			if out, status := h.run(t, "pvecm", "status"); status != int(plan.NotQuorate) || !strings.Contains(out, "Activity blocked") {
				t.Errorf("alone: status %d:\n%s", status, out)
			}
			continue
		}
		for _, up := range members[:i+1] {
			eventually(t, settles, func() error { return up.hasQuorum(t, true) })
		}
	}
	are(t, members...)
	for _, h := range members {
		if units, err := h.FailedUnits(within(t, settles)); err != nil || len(units) > 0 {
			t.Errorf("%s: failed units: %v (%v)", h.Name(), units, err)
		}
	}
}

// hasAnExternalVote gives the two nodes that are left one, on the fourth host.
func (s *hosts) hasAnExternalVote(t *testing.T) {
	first, second, outside := s.all[0], s.all[1], s.all[3]
	members := s.all[:2]
	// It was a node, and becomes a host with corosync-qnetd as Debian starts it.
	outside.sh(t, `systemctl disable --quiet --now pve-cluster corosync
corosync-qnetd-certutil -i -G > /dev/null
chgrp coroqnetd /etc/corosync/qnetd/nssdb /etc/corosync/qnetd/nssdb/{cert9,key4}.db
systemctl enable --quiet --now corosync-qnetd
mkdir -p -m 0700 /root/.ssh; rm -f /root/.ssh/authorized_keys`)
	outside.letsIn(t, first)
	first.sh(t, "ssh-keyscan -t ed25519 "+outside.Address()+" >> /root/.ssh/known_hosts 2>/dev/null")
	setup := []string{"qdevice", "setup", outside.Address()}

	second.sh(t, "mv /usr/sbin/corosync-qdevice-net-certutil /usr/sbin/corosync-qdevice /root/")
	unchanged(t, members, func() { first.fails(t, plan.Refused, []string{"node2", "corosync-qdevice"}, setup...) })
	second.sh(t, "mv /root/corosync-qdevice-net-certutil /root/corosync-qdevice /usr/sbin/")

	t.Log(first.pvecm(t, setup...))
	device := func(votes int) func() error {
		return func() error {
			s, err := first.state(within(t, settles))
			if err == nil && (s.Quorum == nil || !s.Quorum.Quorate || s.Quorum.Total != votes || s.Quorum.Expected != 3) {
				err = fmt.Errorf("quorum %+v", s.Quorum)
			}
			return err
		}
	}
	eventually(t, settles, device(3))
	first.fails(t, plan.Refused, []string{"already"}, setup...)
	s.showsAsCorosync(t, members)
	for _, h := range members {
		if found := h.sh(t, "find /etc/pve -name '*.p12' -o -name '*qnetd*'"); found != "" {
			t.Errorf("%s: left in the tree: %s", h.Name(), found)
		}
	}

	// A node goes, and the other keeps quorum.
	if err := second.Crash(within(t, settles)); err != nil {
		t.Fatal(err)
	}
	eventually(t, settles, device(2))
	s.showsAsCorosync(t, members[:1])
	if err := second.Boot(within(t, settles)); err != nil {
		t.Fatal(err)
	}
	eventually(t, settles, device(3))

	// The external host goes, and both keep quorum.
	outside.sh(t, "systemctl stop corosync-qnetd")
	eventually(t, settles, device(2))
	s.showsAsCorosync(t, members)
	outside.sh(t, "systemctl start corosync-qnetd")
	eventually(t, settles, device(3))

	// Its certificates are made anew, also where they are gone, and it counts all the time.
	second.sh(t, "rm -rf /etc/corosync/qdevice")
	before, err := first.read(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(first.pvecm(t, "qdevice", "setup", "--repair"))
	eventually(t, settles, device(3))
	if after, err := first.read(conf); err != nil || !bytes.Equal(before, after) {
		t.Errorf("corosync.conf after a repair:\n%s", after)
	}

	t.Log(first.pvecm(t, "qdevice", "remove"))
	are(t, members...)
	for _, h := range members {
		if out, status := h.run(t, "systemctl", "is-active", "corosync-qdevice"); status == 0 {
			t.Errorf("%s: corosync-qdevice is %s", h.Name(), out)
		}
		if h.has("/etc/corosync/qdevice/net/nssdb") {
			t.Errorf("%s: certificates are left", h.Name())
		}
	}
	first.fails(t, plan.Refused, []string{"no external vote"}, "qdevice", "remove")

	// A dead node goes, and the vote with it: the last node has quorum alone.
	t.Log(first.pvecm(t, setup...))
	if err := second.Crash(within(t, settles)); err != nil {
		t.Fatal(err)
	}
	eventually(t, settles, device(2))
	t.Log(first.pvecm(t, "delnode", "node2", "--with-qdevice"))
	are(t, first)
	if text, err := first.read(conf); err != nil || bytes.Contains(text, []byte("device {")) || bytes.Contains(text, []byte("node2")) {
		t.Errorf("corosync.conf:\n%s", text)
	}
}

// clockLine is what differs between two looks at the same state.
var clockLine = regexp.MustCompile(`(?m)^Date:.*$`)

// showsAsCorosync compares "status" and "nodes" with corosync's own tool.
func (s *hosts) showsAsCorosync(t *testing.T, list []host) {
	t.Helper()
	for _, h := range list {
		eventually(t, settles, func() error {
			own, _ := h.run(t, "bash", "-c", "pvecm status 2>/dev/null")
			theirs, _ := h.run(t, "corosync-quorumtool", "-siH")
			_, own, _ = strings.Cut(own, "\n\n") // behind the configuration's block
			own, theirs = clockLine.ReplaceAllString(own, "Date:"), clockLine.ReplaceAllString(theirs, "Date:")
			if own != theirs {
				return fmt.Errorf("%s: status says\n%s\nnot\n%s", h.Name(), own, theirs)
			}
			own, _ = h.run(t, "bash", "-c", "pvecm nodes 2>/dev/null")
			if theirs, _ = h.run(t, "corosync-quorumtool", "-l"); own != theirs {
				return fmt.Errorf("%s: nodes says\n%s\nnot\n%s", h.Name(), own, theirs)
			}
			return nil
		})
	}
}
