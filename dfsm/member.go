package dfsm

import (
	"cmp"
	"strconv"
)

// Member is a process in the group: corosync's node id and the process id.
type Member struct {
	NodeID uint32
	PID    uint32
}

// String formats the member as the log does: "1/4711".
func (m Member) String() string {
	return strconv.FormatUint(uint64(m.NodeID), 10) + "/" + strconv.FormatUint(uint64(m.PID), 10)
}

// Compare orders members by node id, then pid: the order of the member table
// and of the states handed to the application.
func (m Member) Compare(o Member) int {
	return cmp.Or(cmp.Compare(m.NodeID, o.NodeID), cmp.Compare(m.PID, o.PID))
}

// Mode says where the machine stands (the DFSM protocol, "Modes").
type Mode uint8

const (
	// ModeStart: not yet a member.
	ModeStart Mode = iota
	// ModeStartSync: membership changed, states are being exchanged.
	ModeStartSync
	// ModeUpdate: this node is behind and collects updates.
	ModeUpdate
	// ModeSynced: normal messages are applied as they are delivered.
	ModeSynced
	// ModeLeave: out of step; leave the group and come back by Restart.
	ModeLeave
	// ModeVersionError: a peer speaks a newer protocol. Final.
	ModeVersionError
	// ModeError: the application cannot go on. Final.
	ModeError
)

var modeNames = [...]string{"start", "start-sync", "update", "synced", "leave", "version-error", "error"}

// String names the mode as the protocol's description does.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "mode-" + strconv.Itoa(int(m))
}

// Failed reports whether the machine ignores all events but Restart.
func (m Mode) Failed() bool { return m >= ModeLeave }

// Final reports whether not even a Restart helps: until the daemon's own
// restart the node must stay out of the group.
func (m Mode) Final() bool { return m >= ModeVersionError }
