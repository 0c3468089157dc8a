package event

import "log/slog"

// Event is something that happens. Its value is its name, for programs: it is part of
// the interface, and doesn't change.
type Event string

// The daemon.
const (
	DaemonUp       Event = "daemon-up"       // the file system is mounted and everything is started
	DaemonStopping Event = "daemon-stopping" // asked to, or unmounted from outside
	DaemonFailed   Event = "daemon-failed"   // it can't start, or can't go on
	Stuck          Event = "stuck"           // a part of the daemon stands still
	Unstuck        Event = "unstuck"         // it moves again
	HeldUp         Event = "held-up"         // a part waits for the disk or corosync for long
	MountEnded     Event = "mount-ended"     // a killed daemon could not end until its mount was ended
	ServiceTaken   Event = "service-taken"   // another process holds the name under which Proxmox's tools find the daemon
	ServiceUp      Event = "service-up"      // the daemon has got the name
)

// The cluster.
const (
	QuorumGained       Event = "quorum-gained"
	QuorumLost         Event = "quorum-lost"
	CorosyncAway       Event = "corosync-away"       // no connection to its quorum service
	ForeignCorosync    Event = "foreign-corosync"    // the corosync that runs is not this cluster's
	LeftGroup          Event = "left-group"          // out of step; the node joins again
	OutOfGroup         Event = "out-of-group"        // out of step for good, until a restart
	Behind             Event = "behind"              // others have newer data
	SplitLost          Event = "split-lost"          // both sides of a split changed the tree, and this node's changes have lost
	SyncDone           Event = "sync-done"           // this node has what the group has
	VerificationFailed Event = "verification-failed" // this node's data differ from the group's
	NotDelivered       Event = "not-delivered"       // a change was given up after its time
	MessagesDropped    Event = "messages-dropped"    // values, samples or log lines never reached the others
)

// The database and the tree.
const (
	DatabaseFailed    Event = "database-failed"     // a transaction failed
	DiskFull          Event = "disk-full"           // one failed for want of room
	DatabaseRecovered Event = "database-recovered"  // it can be written again
	CheckpointFailed  Event = "checkpoint-failed"   // the write-ahead log can't be brought into the file
	Exposed           Event = "database-exposed"    // a file of it had a mode or owner that let others read it
	BegunAnew         Event = "database-begun-anew" // an empty one, where there was one before
	Meddled           Event = "database-meddled"    // another program has written to it, or removed its log
	Duplicate         Event = "duplicate-vmid"      // two guest configurations claim one VMID
	LockExpired       Event = "lock-expired"        // a lock is to be broken: nobody has renewed it in time
	LockBroken        Event = "lock-broken"         // it is gone
)

// The history of the tree.
const (
	HistoryFailed    Event = "history-failed"    // changes can't be recorded
	HistoryRecovered Event = "history-recovered" // they are again
	HistoryDamaged   Event = "history-damaged"   // its file was set aside, and a new one begun
	HistoryGap       Event = "history-gap"       // some changes are missing in it
)

// The host's corosync.conf.
const (
	ConfWritten Event = "corosync-conf-written"
	ConfIgnored Event = "corosync-conf-ignored" // newer, an example, or of no use
	ConfRefused Event = "corosync-conf-refused" // corosync would not accept it, and keeps the one it has
	ConfFailed  Event = "corosync-conf-failed"  // it can't be read or written, or corosync can't reload it
)

// All returns every event.
func All() []Event {
	return []Event{
		DaemonUp, DaemonStopping, DaemonFailed, Stuck, Unstuck, HeldUp, MountEnded, ServiceTaken, ServiceUp,
		QuorumGained, QuorumLost, CorosyncAway, ForeignCorosync, LeftGroup, OutOfGroup, Behind, SplitLost, SyncDone, VerificationFailed, NotDelivered, MessagesDropped,
		DatabaseFailed, DiskFull, DatabaseRecovered, CheckpointFailed, Exposed, BegunAnew, Meddled, Duplicate, LockExpired, LockBroken,
		HistoryFailed, HistoryRecovered, HistoryDamaged, HistoryGap,
		ConfWritten, ConfIgnored, ConfRefused, ConfFailed,
	}
}

// Levels that syslog has and slog has no name for.
const (
	LevelNotice   = slog.LevelInfo + 2  // normal, and worth knowing
	LevelCritical = slog.LevelError + 4 // the node can't do its job
)

// Key is the key of the attribute that Attr and Fields return.
const Key = "event"

// Occurrence is the value of that attribute.
type Occurrence struct {
	Event  Event // empty means the line is about no event
	Fields []slog.Attr
}

// Attr is an attribute that says that a line is about e. Fields, pairs of keys and
// values or slog.Attrs as in slog's calls, are for programs: they don't stand in the
// text, which usually says the same in words.
func (e Event) Attr(fields ...any) slog.Attr {
	return slog.Any(Key, Occurrence{Event: e, Fields: slog.Group("", fields...).Value.Group()})
}

// Fields is Attr for a line that is about no event.
func Fields(fields ...any) slog.Attr { return Event("").Attr(fields...) }

// LogValue shows an occurrence to handlers that know nothing of it.
func (o Occurrence) LogValue() slog.Value {
	if o.Event == "" {
		return slog.GroupValue(o.Fields...)
	}
	return slog.GroupValue(append([]slog.Attr{slog.String("name", string(o.Event))}, o.Fields...)...)
}
