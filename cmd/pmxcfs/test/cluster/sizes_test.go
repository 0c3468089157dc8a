package cluster

import (
	"fmt"
	"os"
	"testing"
	"time"

	"pmxcfs/contrib/lab/labtest"
)

// TestTwoNodes has one cluster in which no node may be lost.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 2)
	for _, s := range []struct {
		name string
		run  func(c *cluster)
	}{
		{"EveryOperationReachesTheOther", everyOperation},
		{"LossOfOneLeavesTheOtherReadOnly", loneOfTwo},
		{"ExpectedVotesMakeTheLoneOneWritable", expectedVotes},
		{"OfTwoHistoriesTheLongerWins", splitBrain},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.run(c.In(t)) }) {
			c.In(t)
			t.Fatal("the cluster is not as the next test needs it")
		}
		c.In(t)
	}
	c.WantSameDatabases()
}

// share makes what WantReadOnly looks at.
func share(c *cluster, content string) {
	c.T.Helper()
	c.Node(1).Mkdir("nodes")
	c.Node(1).Mkdir("priv")
	c.Node(1).Write("shared", content)
	c.Everywhere("shared", content)
}

// crash ends the daemon and corosync of a node, as a power cut would.
func crash(n *node) {
	n.T.Helper()
	n.Kill()
	n.Must(n.Host.KillCorosync())
}

// boot starts both again.
func boot(n *node) {
	n.T.Helper()
	n.Must(n.Host.StartCorosync())
	n.Start()
}

func loneOfTwo(c *cluster) {
	share(c, "of two")
	for _, lost := range c.Nodes {
		lone := c.Others(lost)[0]
		crash(lost)
		lone.WantReadOnly("shared")
		boot(lost)
		c.WantTogether(c.Nodes...)
		content := "after the loss of " + lost.String()
		lost.Write("shared", content)
		c.Everywhere("shared", content)
	}
	// Nor can either go on when they don't see each other.
	if err := c.Lab.Split([]int{1}, []int{2}); err != nil {
		c.T.Fatal(err)
	}
	for _, n := range c.Nodes {
		n.WantReadOnly("shared")
	}
	if err := c.Lab.Heal(); err != nil {
		c.T.Fatal(err)
	}
	c.WantTogether(c.Nodes...)
}

// expect has a node's corosync go on with fewer votes: pvecm expected.
func expect(n *node, votes int) {
	n.T.Helper()
	n.Eventually("the votes expected are the fewer", func() error {
		_, err := n.Host.Exec(n.T.Context(), "corosync-quorumtool", "-e", fmt.Sprint(votes))
		return err
	})
}

func expectedVotes(c *cluster) {
	for _, lost := range c.Nodes {
		lone := c.Others(lost)[0]
		crash(lost)
		lone.WantReadOnly("shared")
		expect(lone, 1)
		c.WantTogether(lone)
		content := "written alone by " + lone.String()
		lone.Write("shared", content)
		lone.Mkdir("alone")
		boot(lost)
		c.WantTogether(c.Nodes...)
		c.Everywhere("shared", content)
		lost.WantDir("alone")
		lost.Must(os.Remove(lost.Path("alone")))
		lone.WantNone("alone")
	}
}

// splitBrain has both nodes write while an administrator has told each that it may
// go on alone. What follows isn't a merge of contents: the database with the higher
// version is everybody's.
func splitBrain(c *cluster) {
	for _, ahead := range c.Nodes {
		behind := c.Others(ahead)[0]
		if err := c.Lab.Split([]int{1}, []int{2}); err != nil {
			c.T.Fatal(err)
		}
		for _, n := range c.Nodes {
			n.WantReadOnly("shared")
			expect(n, 1)
			n.WantWritable()
		}
		for i := range 40 {
			ahead.Write("shared", fmt.Sprintf("ahead %d", i))
		}
		ahead.Mkdir("only-ahead")
		ahead.Write("only-ahead/file", "of "+ahead.String())
		behind.Write("shared", "behind")
		behind.Mkdir("only-behind")
		behind.Write("only-behind/file", "of "+behind.String())
		if err := c.Lab.Heal(); err != nil {
			c.T.Fatal(err)
		}
		c.WantTogether(c.Nodes...)
		c.Everywhere("shared", "ahead 39")
		c.Everywhere("only-ahead/file", "of "+ahead.String())
		for _, n := range c.Nodes {
			n.WantNone("only-behind")
		}
		behind.Remove("only-ahead")
		ahead.WantNone("only-ahead")
	}
}

// TestFiveNodes divides a cluster in each way, and disturbs two nodes at a time
// while all write.
func TestFiveNodes(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 5)
	for _, s := range []struct {
		name string
		run  func(c *cluster)
	}{
		{"EveryOperationReachesAllNodes", everyOperation},
		{"OneNodeWinsTheRaceForAVMID", raceForVMID},
		{"OneNodeWinsTheRaceForALock", raceForLock},
		{"AllNodesWriteAtOnce", allWriteAtOnce},
		{"ThreeGoOnWithoutTwo", threeWithoutTwo},
		{"NobodyGoesOnInThirds", thirds},
		{"NothingAcknowledgedIsLostUnderLoad", func(c *cluster) { underLoad(c, 2, (*roundFlag+1)/2) }},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.run(c.In(t)) }) {
			c.In(t)
			t.Fatal("the cluster is not as the next test needs it")
		}
		c.In(t)
	}
	c.WantSameDatabases()
}

func threeWithoutTwo(c *cluster) {
	share(c, "of five")
	// The lowest node id, which opens a sync, is once with the minority.
	for _, minority := range [][]int{{4, 5}, {1, 3}} {
		few := []*node{c.Node(minority[0]), c.Node(minority[1])}
		most := c.Others(few...)
		if err := c.Lab.Split(minority); err != nil {
			c.T.Fatal(err)
		}
		for _, n := range few {
			n.WantReadOnly("shared")
		}
		c.WantTogether(most...)
		content := fmt.Sprintf("without %v", minority)
		for i, n := range most {
			n.Write(fmt.Sprintf("majority-%d", i), content)
		}
		most[0].Write("shared", content)
		for _, n := range few {
			if err := n.Holds("shared", content); err == nil {
				c.T.Errorf("%s has what was written on the other side", n)
			}
		}
		if err := c.Lab.Heal(); err != nil {
			c.T.Fatal(err)
		}
		c.WantTogether(c.Nodes...)
		c.Everywhere("shared", content)
		for i := range most {
			p := fmt.Sprintf("majority-%d", i)
			c.Everywhere(p, content)
			few[0].Must(os.Remove(few[0].Path(p)))
		}
	}
}

func thirds(c *cluster) {
	if err := c.Lab.Split([]int{1, 5}, []int{2, 4}); err != nil {
		c.T.Fatal(err)
	}
	for _, n := range c.Nodes {
		n.WantReadOnly("shared")
	}
	// Two of the sides meet: enough.
	if err := c.Lab.Split([]int{2, 4}); err != nil {
		c.T.Fatal(err)
	}
	most := c.Others(c.Node(2), c.Node(4))
	c.WantTogether(most...)
	content := fmt.Sprint("of three, ", time.Now().UnixNano())
	c.Node(5).Write("shared", content)
	for _, n := range []*node{c.Node(2), c.Node(4)} {
		n.WantReadOnly("shared")
	}
	if err := c.Lab.Heal(); err != nil {
		c.T.Fatal(err)
	}
	c.WantTogether(c.Nodes...)
	c.Everywhere("shared", content)
}
