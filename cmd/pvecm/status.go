package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/exit"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/cmd/internal/quorumtool"
	"pmxcfs/corosync/conf"
)

// status shows the configuration's head and corosync's view.
func status(_ context.Context, c *call) error {
	h := c.env.host
	if !h.Exists(host.ClusterConf) {
		if c.json() {
			return c.writeJSON((*quorumtool.Snapshot)(nil).Document(nil))
		}
		return cluster.NeedCluster(h)
	}
	configuration := configured(h)
	snapshot, err := quorumtool.Read()
	if c.json() {
		if err != nil {
			h.Warnf("%v", err)
		}
		if err := c.writeJSON(snapshot.Document(configuration)); err != nil {
			return err
		}
		return ended(snapshot.ExitStatus())
	}
	if configuration != nil {
		configuration.Write(c.env.stdout)
	}
	if err != nil {
		return plan.Errorf(plan.Failed, "%w", err)
	}
	snapshot.WriteStatus(c.env.stdout)
	tellCauses(c, snapshot)
	return ended(snapshot.ExitStatus())
}

// configured is what status tells of the cluster's corosync.conf; nil: nothing.
func configured(h *host.Host) *quorumtool.Configuration {
	text, err := h.ReadFile(host.ClusterConf)
	if err != nil {
		h.Warnf("%v", err)
		return nil
	}
	f, err := conf.Read(text)
	if err != nil {
		h.Warnf("%s: %v", host.ClusterConf, err)
		return nil
	}
	if !f.Has("totem") {
		return nil
	}
	totem := f.Section("totem")
	return &quorumtool.Configuration{Name: totem.Get("cluster_name"), Version: totem.Get("config_version"), Transport: totem.Get("transport"), SecAuth: totem.Get("secauth")}
}

// tellCauses says on stderr what is wrong: the text on stdout is what scripts read.
func tellCauses(c *call, s *quorumtool.Snapshot) {
	for _, cause := range s.Causes() {
		c.env.host.Warnf("%s", cause)
	}
}

func ended(status int) error {
	if status == 0 {
		return nil
	}
	return exit.Status(status)
}

// nodes lists the members.
func nodes(_ context.Context, c *call) error {
	if !c.env.host.Exists(host.ClusterConf) {
		if c.json() {
			return c.writeJSON([]quorumtool.NodeDocument{})
		}
		return cluster.NeedCluster(c.env.host)
	}
	snapshot, err := quorumtool.Read()
	if err != nil {
		return plan.Errorf(plan.Failed, "%w", err)
	}
	if c.json() {
		return c.writeJSON(snapshot.Document(nil).Nodes)
	}
	snapshot.WriteNodes(c.env.stdout)
	return nil
}

// expected sets the expected votes.
func expected(_ context.Context, c *call) error {
	if err := cluster.NeedCluster(c.env.host); err != nil {
		return err
	}
	_, given := c.values["expected"]
	if given == c.isSet("reset") {
		return usagef("give either a number of votes or --reset")
	}
	snapshot, err := quorumtool.Read()
	if err != nil {
		return plan.Errorf(plan.Failed, "%w", err)
	}
	votes := c.number("expected", 0)
	if c.isSet("reset") {
		votes = snapshot.Configured()
	}
	if given && votes < snapshot.Self.ExpectedVotes && len(snapshot.Absent) > 0 && !c.isSet("yes") && terminal(c.env.host.Stdin) {
		var missing []string
		for _, n := range snapshot.Absent {
			missing = append(missing, n.Name)
		}
		fmt.Fprintf(c.env.stdout, "With %d expected votes this side may go on without %s. If one of them runs, cut off from here,\n"+
			"both sides will start guests and change the configuration on their own.\n"+
			"It lasts until corosync restarts; \"pvecm expected --reset\" takes it back.\n"+
			"Are all of them off? (yes/no): ", votes, strings.Join(missing, ", "))
		answer, _ := bufio.NewReader(c.env.host.Stdin).ReadString('\n')
		if !strings.EqualFold(strings.TrimSpace(answer), "yes") {
			return plan.Fail(plan.Refused, "not-confirmed", "", "nothing was changed")
		}
	}
	if err := quorumtool.SetExpected(votes); err != nil {
		return plan.Errorf(plan.Failed, "%w", err)
	}
	return nil
}

// terminal tells whether somebody can be asked.
func terminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
