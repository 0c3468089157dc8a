package quorumtool

import (
	"fmt"
	"strings"

	"pmxcfs/corosync/votequorum"
)

// Causes says what keeps the cluster from being whole, a sentence each, the most
// important first. It is empty if all is well.
func (s *Snapshot) Causes() []string {
	causes := []string{}
	if !s.Quorate() {
		missing := s.Self.Quorum - s.Self.TotalVotes
		text := fmt.Sprintf("no quorum: %s present, %d needed", plural(s.Self.TotalVotes, "vote"), s.Self.Quorum)
		if missing <= 0 && s.Self.Flags&votequorum.FlagWaitForAll != 0 {
			text += "; corosync waits until all nodes have been there once (wait_for_all)"
		}
		causes = append(causes, text)
	}
	for _, n := range s.Absent {
		if n.Local {
			continue
		}
		text := fmt.Sprintf("node %s (id %d, %s) is not a member", n.Name, n.ID, plural(n.Votes, "vote"))
		switch up, down := n.linkNumbers(); {
		case len(up) > 0:
			text += ": its links " + strings.Join(up, ", ") + " are connected, so corosync there is starting, stopped, or has another key or configuration"
		case len(down) > 0:
			text += ": no link to it is connected; the host is off, its corosync is stopped, or the network between is cut"
		}
		causes = append(causes, text)
	}
	for _, n := range s.Members {
		if n.Local {
			continue
		}
		if up, down := n.linkNumbers(); len(down) > 0 {
			text := fmt.Sprintf("link %s to node %s is down", strings.Join(down, ", "), n.Name)
			if len(up) > 0 {
				text += "; link " + strings.Join(up, ", ") + " carries the traffic"
			}
			causes = append(causes, text)
		}
	}
	if s.HasDevice() {
		switch {
		case s.Self.Flags&votequorum.FlagQDeviceAlive == 0:
			causes = append(causes, "the external vote is registered, but its daemon does not answer: see \"systemctl status corosync-qdevice\"")
		case s.Self.Flags&votequorum.FlagQDeviceCastVote == 0:
			causes = append(causes, "the external vote is not cast: its host is unreachable, or gives the vote to the other part of the cluster")
		}
		for _, n := range s.Members {
			if n.Device&votequorum.FlagQDeviceRegistered == 0 {
				causes = append(causes, fmt.Sprintf("node %s has no external vote registered: start corosync-qdevice there", n.Name))
			}
		}
	}
	if s.Self.HighestExpected != s.Self.ExpectedVotes {
		causes = append(causes, fmt.Sprintf("this node expects %s, another one %d: their corosync.conf differ, or \"pvecm expected\" was used", plural(s.Self.ExpectedVotes, "vote"), s.Self.HighestExpected))
	}
	return causes
}

// linkNumbers returns the numbers of a node's links that are connected, and of those that
// are not.
func (n *Node) linkNumbers() (up, down []string) {
	for _, l := range n.Links {
		if l.Connected {
			up = append(up, fmt.Sprint(l.Number))
		} else {
			down = append(down, fmt.Sprint(l.Number))
		}
	}
	return up, down
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
