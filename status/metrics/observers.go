package metrics

import (
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pmxcfs/dfsm/group"
	"pmxcfs/fuse"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status/ipc"
)

var (
	_ fuse.Observer   = (*FUSEObserver)(nil)
	_ ipc.Observer    = (*IPCObserver)(nil)
	_ sqlite.Observer = (*DatabaseObserver)(nil)
	_ dcdb.Timings    = (*TimingsObserver)(nil)
	_ dcdb.Observer   = (*ChangeCounter)(nil)
)

// errorCounters count errors by errno. A counter begins to exist with its first error:
// there are many that never happen.
type errorCounters struct {
	vec       *prometheus.CounterVec
	operation string
	by        [maxErrno]atomic.Pointer[prometheus.Counter]
}

// maxErrno bounds the errno values that are told apart.
const maxErrno = 160

func (e *errorCounters) count(errno syscall.Errno) {
	if errno >= maxErrno {
		errno = 0 // which is "other"
	}
	c := e.by[errno].Load()
	if c == nil {
		made := e.vec.WithLabelValues(e.operation, errnoName(errno))
		c = &made
		e.by[errno].Store(c)
	}
	(*c).Inc()
}

// FUSEObserver observes the kernel's requests.
type FUSEObserver struct {
	batch  *batch
	took   [fuse.Operations]prometheus.Observer
	errors [fuse.Operations]errorCounters
}

func newFUSEObserver(reg prometheus.Registerer, b *batch) *FUSEObserver {
	took := histogram(reg, "fuse_request_duration_seconds", "Time to answer a request of the kernel's, by its operation; of those that are answered from memory one in 16 is timed.", durations[:], "operation")
	errors := counter(reg, "fuse_request_errors_total", "Requests of the kernel's that were answered with an error, by operation and errno.", "operation", "errno")
	o := &FUSEObserver{batch: b}
	for op := range fuse.Operation(fuse.Operations) {
		o.took[op] = took.WithLabelValues(op.String())
		o.errors[op].vec, o.errors[op].operation = errors, op.String()
	}
	return o
}

// Took implements fuse.Observer.
func (o *FUSEObserver) Took(op fuse.Operation, took time.Duration) {
	o.batch.took(o.took[op], took)
}

// Failed implements fuse.Observer.
func (o *FUSEObserver) Failed(op fuse.Operation, errno syscall.Errno) { o.errors[op].count(errno) }

// IPCObserver observes the requests of Proxmox's tools.
type IPCObserver struct {
	batch  *batch
	took   [len(ipc.Counts{})]prometheus.Observer
	errors [len(ipc.Counts{})]errorCounters
}

func newIPCObserver(reg prometheus.Registerer, b *batch) *IPCObserver {
	took := histogram(reg, "ipc_request_duration_seconds", "Time to make the answer to a request of the IPC service, by its operation; of those that are answered at once one in 16 is timed.", durations[:], "operation")
	errors := counter(reg, "ipc_request_errors_total", "Requests of the IPC service that were answered with an error, by operation and errno.", "operation", "errno")
	o := &IPCObserver{batch: b}
	for op, name := range ipcOperations {
		o.took[op] = took.WithLabelValues(name)
		o.errors[op].vec, o.errors[op].operation = errors, name
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
func (o *IPCObserver) Took(op int32, took time.Duration) { o.batch.took(o.took[op], took) }

// Failed implements ipc.Observer.
func (o *IPCObserver) Failed(op int32, errno syscall.Errno) { o.errors[op].count(errno) }

// DatabaseObserver observes the database file.
type DatabaseObserver struct {
	batch                                   *batch
	rows, bytes, took, synced, checkpointed prometheus.Observer
}

func newDatabaseObserver(reg prometheus.Registerer, b *batch) *DatabaseObserver {
	duration := func(name, help string) prometheus.Observer {
		return histogram(reg, name, help, durations[:]).WithLabelValues()
	}
	return &DatabaseObserver{
		batch:        b,
		rows:         sizes(reg, "database_transaction_rows", "Rows written or deleted by a transaction.", 1, 2, 5, 10, 20, 50, 100, 1000, 10000, 100000),
		bytes:        sizes(reg, "database_transaction_bytes", "Bytes of content written by a transaction.", 0, 256, 1024, 4096, 16384, 65536, 262144, 1<<20, 4<<20, 16<<20, 64<<20),
		took:         duration("database_transaction_duration_seconds", "Time to carry out a transaction that succeeded."),
		synced:       duration("database_sync_duration_seconds", "Time to bring the write-ahead log to the disk for an fsync."),
		checkpointed: duration("database_checkpoint_duration_seconds", "Time to copy the write-ahead log into the database file."),
	}
}

// Committed implements sqlite.Observer.
func (o *DatabaseObserver) Committed(rows, bytes int, took time.Duration) {
	o.batch.observe(observation{o.rows, float64(rows)}, observation{o.bytes, float64(bytes)}, observation{o.took, took.Seconds()})
}

// Synced implements sqlite.Observer.
func (o *DatabaseObserver) Synced(took time.Duration) { o.synced.Observe(took.Seconds()) }

// Checkpointed implements sqlite.Observer.
func (o *DatabaseObserver) Checkpointed(took time.Duration) { o.checkpointed.Observe(took.Seconds()) }

// TimingsObserver observes changes on their way through the cluster.
type TimingsObserver struct {
	batch             *batch
	delivered, stored [kinds]prometheus.Observer
}

const kinds = int(memdb.OpMTime) + 1

func newTimingsObserver(reg prometheus.Registerer, b *batch) *TimingsObserver {
	delivered := histogram(reg, "change_delivery_duration_seconds", "Time from a call on this node until its change came back from the group, by operation.", durations[:], "operation")
	stored := histogram(reg, "change_commit_duration_seconds", "Time from a change's delivery until it was in the database file, by operation; of all nodes' changes.", durations[:], "operation")
	o := &TimingsObserver{batch: b}
	for k := memdb.OpWrite; k <= memdb.OpMTime; k++ {
		o.delivered[k], o.stored[k] = delivered.WithLabelValues(k.String()), stored.WithLabelValues(k.String())
	}
	return o
}

// Delivered implements dcdb.Timings.
func (o *TimingsObserver) Delivered(kind memdb.Kind, took time.Duration) {
	if kind >= memdb.OpWrite && kind <= memdb.OpMTime {
		o.batch.took(o.delivered[kind], took)
	}
}

// Stored implements dcdb.Timings.
func (o *TimingsObserver) Stored(kind memdb.Kind, took time.Duration) {
	if kind >= memdb.OpWrite && kind <= memdb.OpMTime {
		o.batch.took(o.stored[kind], took)
	}
}

// SyncObserver observes synchronisations.
type SyncObserver struct{ took *prometheus.HistogramVec }

func newSyncObserver(reg prometheus.Registerer) *SyncObserver {
	return &SyncObserver{histogram(reg, "group_sync_duration_seconds", "Time from a membership change until this node was in step again, by group and by what began it.", durations[:], "group", "reason")}
}

// Of returns a function for group.Config.Synced and dcdb.ClusterConfig.Synced.
func (o *SyncObserver) Of(g GroupName) func(group.SyncReason, time.Duration) {
	var by [group.SyncReasons]prometheus.Observer
	for r := range group.SyncReason(group.SyncReasons) {
		by[r] = o.took.WithLabelValues(string(g), r.String())
	}
	return func(r group.SyncReason, took time.Duration) { by[r].Observe(took.Seconds()) }
}
