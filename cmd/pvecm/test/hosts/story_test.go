package hosts

import (
	"strings"
	"testing"
	"time"

	"pmxcfs/cmd/internal/plan"
)

// TestCluster has the parts on hosts that they share: three that become a cluster, and a
// fourth that tries to get in.
func TestCluster(t *testing.T) {
	s := boot(t, 4)
	part := func(name string, f func(t *testing.T)) {
		t.Helper()
		// What follows builds on it.
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	part("CreateAndJoin", s.createAndJoin)
	t.Run("JoinsThatCantBeChangeNothing", s.refuses)
	part("KilledInEachPhase", s.surviveKills)
	part("PeerCutOffInEachPhase", s.surviveCuts)
	part("ColdStart", s.comesUpCold)
	part("ChangeOnTrial", s.goesBack)
	part("RemovingNodes", s.losesNodes)
	part("ExternalVote", s.hasAnExternalVote)
}

// guests are so many that a join with them in the tree is timed.
const guests = "mkdir -p /etc/pve/nodes/node1/qemu-server && cd /etc/pve/nodes/node1/qemu-server && for i in {1000..1999}; do echo 'memory: 512' > $i.conf; done"

// createAndJoin makes the cluster as docs/installation.md says, and does each step again.
func (s *hosts) createAndJoin(t *testing.T) {
	first := s.all[0]
	first.pvecm(t, "create", "lab")
	are(t, first)
	if out := first.pvecm(t, "create", "lab"); !strings.Contains(out, "nothing to do") {
		t.Errorf("creating it again: %s", out)
	}
	first.fails(t, plan.Refused, []string{"cluster"}, "create", "other")
	first.sh(t, guests)
	for _, h := range s.all[1:] {
		first.letsIn(t, h)
	}
	for i, h := range s.all[1:3] {
		add := []string{"add", "node1", "--via", "ssh", "--fingerprint", first.hostKey(t)}
		begin := time.Now()
		out := h.pvecm(t, add...)
		t.Logf("joined within %v:\n%s", time.Since(begin).Round(10*time.Millisecond), out)
		if _, err := h.read("/etc/pve/nodes/node1/qemu-server/1999.conf"); err != nil {
			t.Errorf("a node that has joined lacks a guest: %v", err)
		}
		are(t, s.all[:i+2]...)
		if out := h.pvecm(t, add...); !strings.Contains(out, "nothing to do") {
			t.Errorf("%s joins again: %s", h.Name(), out)
		}
	}
	s.showsAsCorosync(t, s.all[:3])
	for _, h := range s.all[:3] {
		h.pvecm(t, "check")
	}
}
