package cluster

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab/labtest"
)

const (
	// lockTime is the age from which a lock may be broken.
	lockTime = 120 * time.Second
	// lateSync is the age that the locks have at the last sync.
	lateSync = 60 * time.Second
)

// TestLocksGrowOldWhileNodesComeAndGo takes locks and then does to the nodes what
// doesn't concern them. After each sync the locks must be as old as before, or the
// first one would not be broken in time. The daemon of node 1, which decides, stays.
func TestLocksGrowOldWhileNodesComeAndGo(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 3)
	share(c, "of three")
	locks := takeLocks(c)
	for _, s := range []struct {
		name string
		run  func(c *cluster)
	}{
		{"GuestOfADeadNodeIsMoved", movedGuest},
		{"ClientsComeBackAfterARestart", clientsComeBack},
		{"ValuesAndMessagesSurviveRestarts", statusSurvivesRestarts},
		{"BothSidesOfAPartitionMergeTheirStatus", statusMerges},
		{"NodeThatLeavesTheClusterIsForgotten", leavingNode},
		{"LocksAreBrokenInTime", locks.areBroken},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.run(c.In(t)) }) {
			c.In(t)
			t.Fatal("the cluster is not as the next test needs it")
		}
		c.In(t)
	}
	c.WantSameDatabases()
}

// agingLocks are locks that were taken at about the same time.
type agingLocks struct {
	from, until time.Time // when node 1 first saw them
}

// The locks: of node 2, which nobody renews; the same, of node 3; and one that its
// owner renews.
const (
	abandoned = "priv/lock/abandoned"
	orphaned  = "priv/lock/orphaned"
	renewed   = "priv/lock/renewed"
)

func takeLocks(c *cluster) *agingLocks {
	c.T.Helper()
	c.Node(1).Mkdir("priv/lock")
	for _, n := range c.Nodes {
		n.WantDir("priv/lock")
	}
	l := &agingLocks{from: time.Now()}
	for lock, owner := range map[string]*node{abandoned: c.Node(2), orphaned: c.Node(3), renewed: c.Node(2)} {
		owner.Must(os.Mkdir(owner.Path(lock), 0o755))
		c.Node(1).WantDir(lock)
	}
	l.until = time.Now()
	for _, n := range c.Nodes {
		breakLock(n, abandoned)
		if err := os.Mkdir(n.Path(abandoned), 0o755); !errors.Is(err, syscall.EEXIST) {
			c.T.Errorf("%s: taking a lock that is held: %v", n, err)
		}
	}
	// Who doesn't own it can't renew it.
	if err := os.Chtimes(c.Node(3).Path(abandoned), time.Time{}, time.Now()); !errors.Is(err, syscall.EACCES) {
		c.T.Errorf("renewing another's lock: %v", err)
	}
	c.WantTogether(c.Nodes...) // what was asked for has had its effect
	wantHeld(c, abandoned)
	return l
}

// wantHeld checks that no node has lost the lock.
func wantHeld(c *cluster, lock string) {
	c.T.Helper()
	for _, n := range c.Nodes {
		if _, err := os.Stat(n.Path(lock)); err != nil {
			c.T.Errorf("%s: %s is lost: %v", n, lock, err)
		}
	}
}

// breakLock asks for it, as Proxmox's tools do; that it is refused is the answer
// also when it will be granted.
func breakLock(n *node, lock string) {
	n.T.Helper()
	err := syscall.Utimes(n.Path(lock), make([]syscall.Timeval, 2))
	if !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.ENOENT) {
		n.T.Errorf("%s: asking to break %s: %v, want EACCES", n, lock, err)
	}
}

func (l *agingLocks) areBroken(c *cluster) {
	breaker, owner := c.Node(3), c.Node(2)
	time.Sleep(time.Until(l.until.Add(lateSync)))
	owner.Must(os.Chtimes(owner.Path(renewed), time.Time{}, time.Now()))
	// One sync in which node 1 has what all have, and one in which it is behind.
	breaker.Stop()
	breaker.Start()
	c.WantTogether(c.Nodes...)
	decider := c.Node(1)
	decider.Must(c.Lab.Cut(decider.Host.ID()))
	c.WantTogether(owner, breaker)
	owner.Write("meanwhile", "something else")
	before := len(decider.Log())
	decider.Must(c.Lab.HealHost(decider.Host.ID()))
	c.WantTogether(c.Nodes...)
	if !strings.Contains(decider.Log()[before:], "update complete - trying to commit") {
		c.T.Errorf("%s was not behind: nothing is shown", decider)
	}
	synced := time.Now()

	for {
		begin := time.Now()
		breakLock(breaker, abandoned)
		breakLock(owner, orphaned)
		breakLock(breaker, renewed)
		time.Sleep(time.Second) // what a client waits between two tries
		gone := 0
		for _, lock := range []string{abandoned, orphaned} {
			if _, err := os.Stat(breaker.Path(lock)); err != nil {
				gone++
			}
		}
		if age := time.Since(l.from); gone > 0 && age < lockTime {
			c.T.Fatalf("a lock was broken at an age of %v", age)
		}
		if gone == 2 {
			break
		}
		if begin.After(synced.Add(lockTime)) {
			c.T.Fatalf("a lock is not broken at an age of %v", time.Since(l.until))
		}
	}
	age := time.Since(l.until)
	c.T.Logf("the locks are broken at an age of %v, %v after the last sync", age.Round(time.Millisecond), time.Since(synced).Round(time.Millisecond))
	if limit := synced.Add(lockTime - 20*time.Second); time.Now().After(limit) {
		c.T.Errorf("the locks are broken at an age of %v: their age counted from the last sync", age)
	}
	for _, n := range c.Nodes {
		n.WantNone(abandoned)
		n.WantNone(orphaned)
	}
	wantHeld(c, renewed)
	breaker.Must(os.Mkdir(breaker.Path(abandoned), 0o755))
	for _, n := range c.Others(breaker) {
		n.WantDir(abandoned)
	}
	owner.Must(os.Remove(owner.Path(renewed)))
}

func guestFile(n *node, vmid int) string {
	return fmt.Sprintf("nodes/%s/qemu-server/%d.conf", n, vmid)
}

// wantGuest waits until all these nodes' VM lists say where a guest is.
func wantGuest(vmid int, at *node, nodes ...*node) {
	for _, n := range nodes {
		n.T.Helper()
		n.Eventually(fmt.Sprintf("guest %d is at %s", vmid, at), func() error {
			guests, err := vmlist(n)
			if want := at.String() + " qemu"; err == nil && guests[fmt.Sprint(vmid)] != want {
				err = fmt.Errorf("%v", guests)
			}
			return err
		})
	}
}

// movedGuest has a node die, an administrator move its guest, and the node come
// back with a database in which it still has it.
func movedGuest(c *cluster) {
	const vmid = 100
	dead, to := c.Node(3), c.Node(2)
	const conf = "name: moved\nmemory: 512\n"
	dead.Mkdir("nodes/" + dead.String() + "/qemu-server")
	to.Mkdir("nodes/" + to.String() + "/qemu-server")
	dead.Write(guestFile(dead, vmid), conf)
	c.Everywhere(guestFile(dead, vmid), conf)
	wantGuest(vmid, dead, c.Nodes...)
	// A copy would be a second guest of that number.
	if err := os.WriteFile(to.Path(guestFile(to, vmid)), []byte(conf), 0o640); !errors.Is(err, syscall.EEXIST) {
		c.T.Errorf("a second configuration of the guest: %v", err)
	}

	crash(dead)
	survivors := c.Others(dead)
	c.WantTogether(survivors...)
	to.Must(os.Rename(to.Path(guestFile(dead, vmid)), to.Path(guestFile(to, vmid))))
	wantGuest(vmid, to, survivors...)
	for _, n := range survivors {
		n.WantFile(guestFile(to, vmid), conf)
		n.WantNone(guestFile(dead, vmid))
	}
	to.Write(guestFile(to, vmid), conf+"cores: 2\n")

	// Alone it shows what it had, and can do nothing with it.
	dead.Start()
	dead.WantReadOnly(guestFile(dead, vmid))
	wantGuest(vmid, dead, dead)
	dead.Must(dead.Host.StartCorosync())
	c.WantTogether(c.Nodes...)
	wantGuest(vmid, to, c.Nodes...)
	c.Everywhere(guestFile(to, vmid), conf+"cores: 2\n")
	for _, n := range c.Nodes {
		n.WantNone(guestFile(dead, vmid))
	}
	if err := os.WriteFile(dead.Path(guestFile(dead, vmid)), []byte(conf), 0o640); !errors.Is(err, syscall.EEXIST) {
		c.T.Errorf("the node that was dead makes its guest again: %v", err)
	}
	dead.Must(os.Rename(dead.Path(guestFile(to, vmid)), dead.Path(guestFile(dead, vmid))))
	wantGuest(vmid, dead, c.Nodes...)
	dead.Must(os.Remove(dead.Path(guestFile(dead, vmid))))
}
