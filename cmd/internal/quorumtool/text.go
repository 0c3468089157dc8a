package quorumtool

import (
	"fmt"
	"io"
	"strings"
	"time"

	"pmxcfs/corosync/votequorum"
)

// flagNames are the names of votequorum's flags, in the order in which they are told.
var flagNames = []struct {
	flag votequorum.Flags
	name string
}{
	{votequorum.FlagTwoNode, "2Node"},
	{votequorum.FlagQuorate, "Quorate"},
	{votequorum.FlagWaitForAll, "WaitForAll"},
	{votequorum.FlagLastManStanding, "LastManStanding"},
	{votequorum.FlagAutoTieBreaker, "AutoTieBreaker"},
	{votequorum.FlagAllowDownscale, "AllowDownscale"},
	{votequorum.FlagQDeviceRegistered, "Qdevice"},
}

// provider is the only source of quorum that there is.
const provider = "corosync_votequorum"

// WriteStatus writes what "corosync-quorumtool -siH" does: quorum, votes, and the members
// with addresses and hexadecimal ids.
func (s *Snapshot) WriteStatus(w io.Writer) {
	heading(w, "Quorum information")
	field(w, "Date:", s.Time.Format(time.ANSIC))
	field(w, "Quorum provider:", provider)
	field(w, "Nodes:", len(s.Members))
	field(w, "Node ID:", fmt.Sprintf("0x%08x", uint32(s.Self.Node)))
	field(w, "Ring ID:", fmt.Sprintf("%x.%x", uint32(s.Ring.Node), s.Ring.Seq))
	field(w, "Quorate:", map[bool]string{true: "Yes", false: "No"}[s.Quorate()])
	fmt.Fprintln(w)
	heading(w, "Votequorum information")
	field(w, "Expected votes:", s.Self.ExpectedVotes)
	field(w, "Highest expected:", s.Self.HighestExpected)
	field(w, "Total votes:", s.Self.TotalVotes)
	blocked := " "
	if !s.Quorate() {
		blocked = "Activity blocked"
	}
	field(w, "Quorum:", fmt.Sprintf("%d %s", s.Self.Quorum, blocked))
	var flags strings.Builder
	for _, f := range flagNames {
		if s.Self.Flags&f.flag != 0 {
			flags.WriteString(f.name + " ")
		}
	}
	field(w, "Flags:", flags.String())
	fmt.Fprintln(w)
	s.members(w, "0x%08x", func(n *Node) string {
		if len(n.Addresses) > 0 {
			return n.Addresses[0].String()
		}
		return n.Name
	})
}

// WriteNodes writes what "corosync-quorumtool -l" does: the members with their names.
func (s *Snapshot) WriteNodes(w io.Writer) {
	fmt.Fprintln(w)
	s.members(w, "%10d", func(n *Node) string { return n.Name })
}

func heading(w io.Writer, text string) {
	fmt.Fprintf(w, "%s\n%s\n", text, strings.Repeat("-", len(text)))
}

func field(w io.Writer, name string, value any) { fmt.Fprintf(w, "%-17s %v\n", name, value) }

// members writes the table of members, and of the external vote if there is one.
func (s *Snapshot) members(w io.Writer, id string, name func(*Node) string) {
	heading(w, "Membership information")
	device := s.HasDevice()
	column := func(text string) string {
		if !device {
			return ""
		}
		return fmt.Sprintf(" %10s", text)
	}
	fmt.Fprintf(w, "%10s %10s%s Name\n", "Nodeid", "Votes", column("Qdevice"))
	for i := range s.Members {
		n := &s.Members[i]
		local := ""
		if n.Local {
			local = " (local)"
		}
		fmt.Fprintf(w, id+" %10d%s %s%s\n", uint32(n.ID), n.Votes, column(deviceState(n.Device)), name(n), local)
	}
	if !device {
		return
	}
	votes, withheld := s.Self.QDeviceVotes, ""
	if s.Self.Flags&votequorum.FlagQDeviceCastVote == 0 {
		votes, withheld = 0, fmt.Sprintf(" (votes %d)", s.Self.QDeviceVotes)
	}
	fmt.Fprintf(w, id+" %10d%s %s%s\n", 0, votes, column(""), s.deviceName(), withheld)
}

// deviceName is the name under which the external vote is registered.
func (s *Snapshot) deviceName() string {
	if s.Self.QDeviceName == "" {
		return "Qdevice"
	}
	return s.Self.QDeviceName
}

// deviceState says how the external vote is on a node: alive or not, its vote cast or
// not, whether it lets its master win.
func deviceState(f votequorum.Flags) string {
	if f&votequorum.FlagQDeviceRegistered == 0 {
		return "NR"
	}
	state := [...]string{"NA", "NV", "NMW"}
	for i, flag := range [...]votequorum.Flags{votequorum.FlagQDeviceAlive, votequorum.FlagQDeviceCastVote, votequorum.FlagQDeviceMasterWins} {
		if f&flag != 0 {
			state[i] = state[i][1:]
		}
	}
	return strings.Join(state[:], ",")
}

// Configuration is what pvecm tells of corosync.conf. Empty fields are absent there.
type Configuration struct {
	Name      string
	Version   string
	Transport string
	SecAuth   string
}

// Write writes the block that "pvecm status" begins with, and an empty line.
func (c Configuration) Write(w io.Writer) {
	or := func(value, absent string) string {
		if value == "" {
			return absent
		}
		return value
	}
	heading(w, "Cluster information")
	field(w, "Name:", or(c.Name, "UNKNOWN"))
	field(w, "Config Version:", or(c.Version, "-1"))
	field(w, "Transport:", or(c.Transport, "knet"))
	field(w, "Secure auth:", or(c.SecAuth, "off"))
	fmt.Fprintln(w)
}
