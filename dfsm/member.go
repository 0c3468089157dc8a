package dfsm

import (
	"strconv"

	"pmxcfs/corosync"
)

// Member is a process in the group.
type Member = corosync.Member

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
