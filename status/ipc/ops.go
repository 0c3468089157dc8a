package ipc

// DefaultName is the service's name that Proxmox's clients connect to.
const DefaultName = "pve2"

// The requests' ids (the specification's table of the service).
const (
	OpVersion         int32 = 1
	OpClusterInfo     int32 = 2
	OpGuestList       int32 = 3
	OpSetStatus       int32 = 4
	OpGetStatus       int32 = 5
	OpGetConfig       int32 = 6
	OpLog             int32 = 7
	OpGetLog          int32 = 8
	OpRRDDump         int32 = 10
	OpGuestProperty   int32 = 11
	OpVerifyToken     int32 = 12
	OpGuestProperties int32 = 13
)

// brief reports whether an op is answered from memory in microseconds. The others put text
// together.
func brief(op int32) bool {
	switch op {
	case OpLog, OpGetLog, OpRRDDump, OpGuestProperty, OpGuestProperties:
		return false
	}
	return true
}

// knownOp returns op, or 0 if there is none of that number.
func knownOp(op int32) int32 {
	if op >= OpVersion && op <= OpGuestProperties && op != 9 {
		return op
	}
	return 0
}

// Access is what a client may do.
type Access uint8

const (
	// Refused clients don't get a connection.
	Refused Access = iota
	// ReadOnly clients change nothing and don't see private files.
	ReadOnly
	// Full access is root's.
	Full
)

// Authorize decides by a client's real user and group id. Root is uid 0 with
// gid 0; whoever is in the group www-data, root included, may only read.
func Authorize(uid, gid, wwwData uint32) Access {
	switch {
	case gid == wwwData:
		return ReadOnly
	case uid == 0 && gid == 0:
		return Full
	}
	return Refused
}
