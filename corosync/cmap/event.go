package cmap

// Op says what happened to a key, or which happenings to track: CMAP_TRACK_….
type Op int32

// The bits of cmap.h.
const (
	OpDelete Op = 1
	OpModify Op = 2
	OpAdd    Op = 4
	OpAll       = OpDelete | OpModify | OpAdd
)

func (o Op) String() string {
	switch o {
	case OpDelete:
		return "delete"
	case OpModify:
		return "modify"
	case OpAdd:
		return "add"
	default:
		return "unknown"
	}
}

// TrackID names a Track of one connection.
type TrackID uint64

// Event is a change of a tracked key.
type Event struct {
	Track TrackID
	Op    Op
	Key   string
	New   Value // none after a delete
	Old   Value // none before an add
}

// Entry is a key with its value.
type Entry struct {
	Key   string
	Value Value
}
