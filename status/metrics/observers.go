package metrics

import (
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pmxcfs/dfsm/group"
	"pmxcfs/fuse"
	"pmxcfs/internal/tally"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status/ipc"
)

var (
	_ fuse.Observer        = (*FUSEObserver)(nil)
	_ ipc.Observer         = (*IPCObserver)(nil)
	_ sqlite.Observer      = (*DatabaseObserver)(nil)
	_ dcdb.LatencyObserver = (*LatencyObserver)(nil)
	_ dcdb.Observer        = (*ChangeCounter)(nil)
)

// errorCounter counts errors by operation and errno. A series begins to exist with its first
// error: there are many that never happen.
type errorCounter struct{ *prometheus.CounterVec }

func (e errorCounter) count(operation string, errno syscall.Errno) {
	e.WithLabelValues(operation, errnoName(errno)).Inc()
}

// FUSEObserver counts the kernel's requests that failed, and the changes. All requests the
// mount counts by itself.
type FUSEObserver struct {
	errors  errorCounter
	changes *failureCounter
}

func newFUSEObserver(reg prometheus.Registerer) *FUSEObserver {
	return &FUSEObserver{
		errors:  errorCounter{counter(reg, "fuse_request_errors_total", "Requests of the kernel's that were answered with an error, by operation and errno.", "operation", "errno")},
		changes: newFailureCounter(reg),
	}
}

// Failed implements fuse.Observer.
func (o *FUSEObserver) Failed(op fuse.Operation, errno syscall.Errno) {
	o.errors.count(op.String(), errno)
}

// ChangeFailed implements fuse.Observer.
func (o *FUSEObserver) ChangeFailed(err error, quorate bool) { o.changes.count(err, quorate) }

// IPCObserver observes the requests of Proxmox's tools.
type IPCObserver struct {
	took   [len(ipc.Stats{})]*tally.Histogram
	errors errorCounter
}

func newIPCObserver(reg prometheus.Registerer) *IPCObserver {
	took := newHistograms(reg, "ipc_request_duration_seconds", "Time to make the answer to a request of the IPC service, by its operation; of those that are answered at once one in 16 is timed.", "operation")
	o := &IPCObserver{errors: errorCounter{counter(reg, "ipc_request_errors_total", "Requests of the IPC service that were answered with an error, by operation and errno.", "operation", "errno")}}
	for op, name := range ipcOperations {
		o.took[op] = took.times(name)
	}
	return o
}

// ipcOperations are the requests' names.
var ipcOperations = map[int32]string{
	0:                     "unknown",
	ipc.OpVersion:         "version",
	ipc.OpClusterInfo:     "cluster_info",
	ipc.OpGuestList:       "guest_list",
	ipc.OpSetStatus:       "set_status",
	ipc.OpGetStatus:       "get_status",
	ipc.OpGetConfig:       "get_config",
	ipc.OpLog:             "log",
	ipc.OpGetLog:          "get_log",
	ipc.OpRRDDump:         "rrd_dump",
	ipc.OpGuestProperty:   "guest_property",
	ipc.OpVerifyToken:     "verify_token",
	ipc.OpGuestProperties: "guest_properties",
}

// Took implements ipc.Observer.
func (o *IPCObserver) Took(op int32, took time.Duration) { o.took[op].Took(took) }

// Failed implements ipc.Observer.
func (o *IPCObserver) Failed(op int32, errno syscall.Errno) { o.errors.count(ipcOperations[op], errno) }

// DatabaseObserver observes the database file.
type DatabaseObserver struct {
	rows, bytes, took, synced, checkpointed *tally.Histogram
}

func newDatabaseObserver(reg prometheus.Registerer) *DatabaseObserver {
	duration := func(name, help string) *tally.Histogram { return newHistograms(reg, name, help).times() }
	size := func(name, help string, bounds ...int64) *tally.Histogram {
		return newHistograms(reg, name, help).add(tally.Sizes(bounds...))
	}
	return &DatabaseObserver{
		rows:         size("database_transaction_rows", "Rows written or deleted by a transaction.", 1, 2, 5, 10, 20, 50, 100, 1000, 10000, 100000),
		bytes:        size("database_transaction_bytes", "Bytes of content written by a transaction.", 0, 256, 1024, 4096, 16384, 65536, 262144, 1<<20, 4<<20, 16<<20, 64<<20),
		took:         duration("database_transaction_duration_seconds", "Time to carry out a transaction that succeeded."),
		synced:       duration("database_sync_duration_seconds", "Time to bring the write-ahead log to the disk for an fsync."),
		checkpointed: duration("database_checkpoint_duration_seconds", "Time to copy the write-ahead log into the database file."),
	}
}

// Committed implements sqlite.Observer.
func (o *DatabaseObserver) Committed(rows, bytes int, took time.Duration) {
	o.rows.Observe(int64(rows))
	o.bytes.Observe(int64(bytes))
	o.took.Took(took)
}

// Synced implements sqlite.Observer.
func (o *DatabaseObserver) Synced(took time.Duration) { o.synced.Took(took) }

// Checkpointed implements sqlite.Observer.
func (o *DatabaseObserver) Checkpointed(took time.Duration) { o.checkpointed.Took(took) }

// LatencyObserver observes changes on their way through the cluster.
type LatencyObserver struct {
	delivered, stored [kinds]*tally.Histogram
}

const kinds = int(memdb.OpMTime) + 1

func newLatencyObserver(reg prometheus.Registerer) *LatencyObserver {
	delivered := newHistograms(reg, "change_delivery_duration_seconds", "Time from a call on this node until its change came back from the group, by operation.", "operation")
	stored := newHistograms(reg, "change_commit_duration_seconds", "Time from a change's delivery until it was in the database file, by operation; of all nodes' changes.", "operation")
	o := &LatencyObserver{}
	for k := memdb.OpWrite; k <= memdb.OpMTime; k++ {
		o.delivered[k], o.stored[k] = delivered.times(k.String()), stored.times(k.String())
	}
	return o
}

// Delivered implements dcdb.LatencyObserver.
func (o *LatencyObserver) Delivered(kind memdb.Kind, took time.Duration) {
	if kind >= memdb.OpWrite && kind <= memdb.OpMTime {
		o.delivered[kind].Took(took)
	}
}

// Stored implements dcdb.LatencyObserver.
func (o *LatencyObserver) Stored(kind memdb.Kind, took time.Duration) {
	if kind >= memdb.OpWrite && kind <= memdb.OpMTime {
		o.stored[kind].Took(took)
	}
}

// SyncObserver observes synchronisations.
type SyncObserver struct{ took *histograms }

func newSyncObserver(reg prometheus.Registerer) *SyncObserver {
	return &SyncObserver{newHistograms(reg, "group_sync_duration_seconds", "Time from a membership change until this node was in step again, by group and reason.", "group", "reason")}
}

// Of returns a function for group.Config.Synced and dcdb.ClusterConfig.Synced. It must be called
// once for each group.
func (o *SyncObserver) Of(g GroupName) func(group.SyncReason, time.Duration) {
	var by [group.SyncReasons]*tally.Histogram
	for r := range group.SyncReason(group.SyncReasons) {
		by[r] = o.took.times(string(g), r.String())
	}
	return func(r group.SyncReason, took time.Duration) { by[r].Took(took) }
}
