package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/group"
	"pmxcfs/dfsm/wire"
	"pmxcfs/fuse"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/status/health"
)

// family is a metric's description and type.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// value gives one sample, its labels' values in their order.
func (f family) value(to chan<- prometheus.Metric, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

func (f family) flag(to chan<- prometheus.Metric, v bool, labels ...string) {
	n := 0.0
	if v {
		n = 1
	}
	f.value(to, n, labels...)
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc(namespace+"_"+name, help, labels, nil), prometheus.GaugeValue}
}

func total(name, help string, labels ...string) family {
	return family{prometheus.NewDesc(namespace+"_"+name, help, labels, nil), prometheus.CounterValue}
}

// collector reads the sources.
type collector struct {
	from  Sources
	now   func() time.Time
	parts []part
}

// part gives the metrics of one source.
type part func(to chan<- prometheus.Metric)

func newCollector(s Sources) *collector {
	c := &collector{from: s, now: time.Now}
	c.parts = append(c.parts, c.node(), c.tree(), c.database())
	if s.FUSE != nil {
		c.parts = append(c.parts, c.fuse())
	}
	if s.RRD != nil {
		c.parts = append(c.parts, c.rrd())
	}
	if s.Log != nil {
		c.parts = append(c.parts, c.clusterLog())
	}
	if s.History != nil {
		c.parts = append(c.parts, c.history())
	}
	if s.IPC != nil {
		c.parts = append(c.parts, c.ipc())
	}
	if s.Cluster != nil {
		c.parts = append(c.parts, c.cluster())
	}
	if len(s.Groups) > 0 {
		c.parts = append(c.parts, c.groups())
	}
	if s.Corosync != nil {
		c.parts = append(c.parts, c.corosync())
	}
	if s.Peers != nil {
		c.parts = append(c.parts, c.peers())
	}
	return c
}

// Describe implements prometheus.Collector. It names nothing: some families show only while
// there is something to tell, and a scrape checks them all.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	for _, p := range c.parts {
		p(to)
	}
}

var reasonCodes = [...]health.Code{
	health.Starting, health.Stopping, health.NotMounted, health.DatabaseFailed, health.NotConnected,
	health.NotQuorate, health.NotSynced, health.StatusNotSynced, health.OutOfGroup,
}

func (c *collector) node() part {
	clustered := gauge("cluster_mode", "1 if the node is part of a cluster, 0 in local mode.")
	mounted := gauge("mounted", "1 if the file system is mounted and served.")
	quorate := gauge("quorate", "1 if the node has quorum; always 1 in local mode.")
	writable := gauge("writable", "1 if changes are taken.")
	ready := gauge("ready", "1 if the node is ready: mounted, and in a cluster quorate and synced.")
	reason := gauge("not_ready", "1 for each reason why the node is not ready.", "reason")
	version := gauge("database_version", "Version of the database: one more with each change.")
	failing := gauge("database_failing", "1 while the last transaction has failed.")
	return func(to chan<- prometheus.Metric) {
		n := c.from.Node()
		clustered.flag(to, n.Cluster)
		mounted.flag(to, n.Mounted)
		quorate.flag(to, !n.Cluster || n.Quorate)
		writable.flag(to, n.Writable())
		reasons := n.Reasons()
		ready.flag(to, len(reasons) == 0)
		for _, code := range reasonCodes {
			is := false
			for _, r := range reasons {
				is = is || r.Code == code
			}
			reason.flag(to, is, string(code))
		}
		version.value(to, float64(n.Version))
		failing.flag(to, n.Database != nil)
	}
}

func (c *collector) tree() part {
	entries := gauge("tree_entries", "Files and directories in the tree.")
	maxEntries := gauge("tree_entries_limit", "How many files and directories there may be.")
	bytes := gauge("tree_bytes", "Bytes of content in all files.")
	maxBytes := gauge("tree_bytes_limit", "How many bytes of content there may be.")
	guests := gauge("guests", "Guests in the cluster's VM list.")
	locks := gauge("locks", "Cluster-wide locks that are held.")
	expired := gauge("locks_expired", "Locks that have not been renewed for two minutes, by this node's clock.")
	oldest := gauge("lock_oldest_age_seconds", "How long this node has seen the oldest lock unchanged; 0 means none.")
	return func(to chan<- prometheus.Metric) {
		now := c.now()
		f := c.from.Tree.Stats(now)
		entries.value(to, float64(f.Entries))
		maxEntries.value(to, memdb.MaxEntries)
		bytes.value(to, float64(f.Bytes))
		maxBytes.value(to, memdb.MaxTreeBytes)
		guests.value(to, float64(f.Guests))
		locks.value(to, float64(f.Locks))
		expired.value(to, float64(f.ExpiredLocks))
		age := 0.0
		if !f.OldestLock.IsZero() {
			age = max(0, now.Sub(f.OldestLock).Seconds())
		}
		oldest.value(to, age)
	}
}

func (c *collector) database() part {
	transactions := total("database_transactions_total", "Transactions, by how they ended.", "result")
	rows := total("database_rows_total", "Rows written or deleted, without the version row.")
	content := total("database_content_bytes_total", "Bytes of content in the rows written.")
	syncs := total("database_syncs_total", "Syncs of the write-ahead log, by how they ended.", "result")
	file := gauge("database_file_bytes", "Size of the database file.")
	log := gauge("database_wal_bytes", "Size of the write-ahead log.")
	return func(to chan<- prometheus.Metric) {
		s := c.from.Database.Stats()
		transactions.value(to, float64(s.Transactions.Load()), "committed")
		transactions.value(to, float64(s.Failed.Load()), "failed")
		rows.value(to, float64(s.Rows.Load()))
		content.value(to, float64(s.Bytes.Load()))
		failed := s.FailedSyncs.Load()
		syncs.value(to, float64(s.Syncs.Load()-failed), "done")
		syncs.value(to, float64(failed), "failed")
		if f, l, err := c.from.Database.Sizes(); err == nil {
			file.value(to, float64(f))
			log.value(to, float64(l))
		}
	}
}

func (c *collector) fuse() part {
	requests := total("fuse_requests_total", "Requests of the kernel's that were answered, by operation.", "operation")
	took := total("fuse_request_duration_seconds", "Time to answer a request of the kernel's, by its operation; of those that are answered from memory one in 16 is timed (among them the setattr by which open empties a file and, without a cluster, writes: it is close that waits).", "operation")
	inFlight := gauge("fuse_requests_in_flight", "Requests of the kernel's that are being served.")
	oldest := gauge("fuse_oldest_request_age_seconds", "How long the oldest of them has been that are timed; 0 means none.")
	invalidations := total("fuse_invalidations_total", "Invalidations of the kernel's caches, by kind and by the kernel's answer.", "kind", "result")
	pending := gauge("fuse_invalidations_pending", "Invalidations that wait to be sent to the kernel.")
	return func(to chan<- prometheus.Metric) {
		s := c.from.FUSE()
		for op, n := range s.Requests {
			requests.value(to, float64(n), fuse.Operation(op).String())
			took.histogram(to, s.Took[op], fuse.Operation(op).String())
		}
		inFlight.value(to, float64(s.InFlight))
		oldest.value(to, s.Oldest.Seconds())
		for i, n := range s.Invalidations {
			kind := fuse.Invalidation(i).String()
			invalidations.value(to, float64(n.Done), kind, "done")
			invalidations.value(to, float64(n.Unknown), kind, "unknown")
			invalidations.value(to, float64(n.Refused), kind, "refused")
		}
		pending.value(to, float64(s.Pending))
	}
}

func (c *collector) rrd() part {
	samples := total("rrd_samples_total", "RRD samples by result: handed to rrdcached, written to a file, failed, or dropped because the queue was full.", "result")
	created := total("rrd_files_created_total", "RRD files made.")
	queued := gauge("rrd_queued_samples", "RRD samples that wait to be written.")
	return func(to chan<- prometheus.Metric) {
		s := c.from.RRD()
		samples.value(to, float64(s.Cached), "cached")
		samples.value(to, float64(s.Direct), "written")
		samples.value(to, float64(s.Failed), "failed")
		samples.value(to, float64(s.Dropped), "dropped")
		created.value(to, float64(s.Created))
		queued.value(to, float64(s.Queued))
	}
}

func (c *collector) clusterLog() part {
	entries := total("clusterlog_entries_total", "Entries of the cluster log, by where they were made.", "origin")
	repeated := total("clusterlog_repeated_entries_total", "Entries of other nodes that were known already.")
	return func(to chan<- prometheus.Metric) {
		n := c.from.Log()
		entries.value(to, float64(n.Own), "local")
		entries.value(to, float64(n.Foreign), "remote")
		repeated.value(to, float64(n.Repeated))
	}
}

func (c *collector) history() part {
	entries := gauge("history_changes", "Changes in the history.")
	bytes := gauge("history_bytes", "Bytes that the history takes on the disk, without its log.")
	limit := gauge("history_bytes_limit", "How many bytes it may take.")
	oldest := gauge("history_oldest_timestamp_seconds", "When the oldest change in the history was made; 0 means none.")
	gaps := gauge("history_gaps", "Gaps in the history.")
	lost := total("history_lost_changes_total", "Changes that could not be recorded since the start of the daemon.")
	lag := gauge("history_lag_seconds", "How long the oldest change has waited that is not in the file yet; 0 means none.")
	failing := gauge("history_failing", "1 while changes can't be recorded.")
	return func(to chan<- prometheus.Metric) {
		s := c.from.History()
		entries.value(to, float64(s.Changes))
		bytes.value(to, float64(s.Bytes))
		limit.value(to, float64(s.Limit))
		at := 0.0
		if !s.Oldest.IsZero() {
			at = float64(s.Oldest.UnixMilli()) / 1000
		}
		oldest.value(to, at)
		gaps.value(to, float64(s.Gaps))
		lost.value(to, float64(s.Lost))
		lag.value(to, s.Lag)
		failing.flag(to, s.Error != "")
	}
}

func (c *collector) ipc() part {
	clients := gauge("ipc_clients", "Clients connected to the IPC service, by access.", "access")
	requests := total("ipc_requests_total", "Requests of the IPC service that were answered, by operation.", "operation")
	return func(to chan<- prometheus.Metric) {
		full, readOnly := c.from.IPC.Clients()
		clients.value(to, float64(full), "full")
		clients.value(to, float64(readOnly), "read_only")
		counts := c.from.IPC.Requests()
		for op, name := range ipcOperations {
			requests.value(to, float64(counts[op]), name)
		}
	}
}

func (c *collector) cluster() part {
	refused := total("changes_refused_total", "Delivered changes, of all nodes, that the tree did not allow.")
	entries := total("sync_entries_total", "Entries of the tree sent to nodes that were behind, or received while behind, by the synchronisation's reason.", "direction", "reason")
	bytes := total("sync_bytes_total", "Bytes of the messages with these entries.", "direction", "reason")
	caughtUp := total("sync_catch_ups_total", "Times that this node was brought up to date by another one.")
	return func(to chan<- prometheus.Metric) {
		s := c.from.Cluster
		refused.value(to, float64(s.Refused.Load()))
		for direction, by := range map[string]*[group.SyncReasons]dcdb.Volume{"sent": &s.Sent, "received": &s.Received} {
			for r := range by {
				reason := group.SyncReason(r).String()
				entries.value(to, float64(by[r].Entries.Load()), direction, reason)
				bytes.value(to, float64(by[r].Bytes.Load()), direction, reason)
			}
		}
		caughtUp.value(to, float64(s.Syncs.Load()))
	}
}

// messageTypes are the protocol's, and one more for what is beyond them.
var messageTypes = [...]string{"normal", "sync_start", "state", "update", "update_complete", "verify_request", "verify", "unknown"}

const _ = uint(len(messageTypes) - int(wire.Verify) - 2) // there is a name for each

var modes = [...]dfsm.Mode{dfsm.ModeStart, dfsm.ModeStartSync, dfsm.ModeUpdate, dfsm.ModeSynced, dfsm.ModeLeave, dfsm.ModeVersionError, dfsm.ModeError}

func (c *collector) groups() part {
	connected := gauge("group_connected", "1 while there is a connection to corosync for the group.", "group")
	mode := gauge("group_mode", "1 for the mode that the group's state machine is in.", "group", "mode")
	members := gauge("group_members", "Members of the group as this node sees it: those that have joined, and those of them that are synced.", "group", "state")
	views := total("group_views_total", "Membership changes: each begins an epoch.", "group")
	syncs := total("group_syncs_total", "Synchronisations after which this node was in step, by reason.", "group", "reason")
	connects := total("group_connects_total", "Connections made to corosync.", "group")
	joins := total("group_joins_total", "Times that the group was joined.", "group")
	leaves := total("group_leaves_total", "Times that the group was left because this node was out of step or failed.", "group")
	messages := total("group_messages_total", "Messages of the group, by type and direction; sent messages are received, too.", "group", "type", "direction")
	bytes := total("group_message_bytes_total", "Bytes in these messages.", "group", "type", "direction")
	batches := total("group_batches_total", "Times that messages were taken together from corosync.", "group")
	waiting := gauge("group_waiting_calls", "Calls on this node that wait for their message to be delivered and applied.", "group")
	unsent := gauge("group_unsent_messages", "Messages that wait for room in the group's queues.", "group")
	queued := gauge("group_queued_messages", "Delivered messages that wait for the end of a synchronisation.", "group")
	queuedBytes := gauge("group_queued_bytes", "Bytes in these messages.", "group")
	retries := total("group_send_retries_total", "Times that a message found the group's queues full.", "group")
	dropped := total("group_dropped_messages_total", "Messages without a waiter that were dropped because the group accepted none for long.", "group")
	droppedBytes := total("group_dropped_bytes_total", "Bytes in these messages.", "group")
	replaced := total("group_replaced_messages_total", "Messages with a value that were not sent because a newer one had come.", "group")
	verified := total("group_verifications_total", "Comparisons of this node's data with the others', by result.", "group", "result")
	lastVerified := gauge("group_last_verification_timestamp_seconds", "When the last comparison ended; 0 means none since the daemon's start.", "group")
	return func(to chan<- prometheus.Metric) {
		for name, status := range c.from.Groups {
			s, g := status(), string(name)
			connected.flag(to, s.Connected, g)
			for _, m := range modes {
				mode.flag(to, s.Mode == m, g, strings.ReplaceAll(m.String(), "-", "_"))
			}
			members.value(to, float64(len(s.Members)), g, "joined")
			members.value(to, float64(s.Synced), g, "synced")
			views.value(to, float64(s.Views), g)
			for r, n := range s.Syncs {
				syncs.value(to, float64(n), g, group.SyncReason(r).String())
			}
			connects.value(to, float64(s.Connects), g)
			joins.value(to, float64(s.Joins), g)
			leaves.value(to, float64(s.Leaves), g)
			for direction, t := range map[string]*group.Traffic{"sent": &s.Sent, "received": &s.Delivered} {
				for i, kind := range messageTypes {
					messages.value(to, float64(t.Messages[i]), g, kind, direction)
					bytes.value(to, float64(t.Bytes[i]), g, kind, direction)
				}
			}
			batches.value(to, float64(s.Batches), g)
			waiting.value(to, float64(s.Waiting), g)
			unsent.value(to, float64(s.Unsent), g)
			queued.value(to, float64(s.Queued), g)
			queuedBytes.value(to, float64(s.QueuedBytes), g)
			retries.value(to, float64(s.Retries), g)
			dropped.value(to, float64(s.Dropped), g)
			droppedBytes.value(to, float64(s.DroppedBytes), g)
			replaced.value(to, float64(s.Replaced), g)
			verified.value(to, float64(s.Verified), g, "equal")
			verified.value(to, float64(s.Mismatches), g, "different")
			at := 0.0
			if !s.LastVerified.IsZero() {
				at = float64(s.LastVerified.UnixMilli()) / 1000
			}
			lastVerified.value(to, at, g)
		}
	}
}

func (c *collector) corosync() part {
	version := gauge("corosync_config_version", "Version of corosync.conf: in the tree, in the host's copy, and of the running corosync; 0 means none.", "copy")
	refused := gauge("corosync_config_refused", "Whether the tree's corosync.conf is kept from corosync, which would not accept it.")
	nodes := gauge("cluster_nodes", "Nodes in corosync's configuration; 0 means unknown.")
	return func(to chan<- prometheus.Metric) {
		s := c.from.Corosync()
		version.value(to, float64(s.TreeVersion), "tree")
		version.value(to, float64(s.HostVersion), "host")
		version.value(to, float64(s.RunningVersion), "running")
		value := 0.0
		if s.Refused {
			value = 1
		}
		refused.value(to, value)
		nodes.value(to, float64(s.Nodes))
	}
}

func (c *collector) peers() part {
	version := gauge("peer_database_version", "Version of another node's database, by its last report.", "node")
	age := gauge("peer_database_version_age_seconds", "Age of the other node's last report.", "node")
	return func(to chan<- prometheus.Metric) {
		seen := make(map[string]int)
		for i, p := range c.from.Peers() {
			if i == maxNodes {
				break
			}
			name := label(p.Node)
			seen[name]++
			if n := seen[name]; n > 1 { // two series must not be the same
				name = fmt.Sprintf("%s (%d)", name, n)
			}
			version.value(to, float64(p.Version), name)
			age.value(to, p.Age.Seconds(), name)
		}
	}
}

// diskWrites reads what this process has had written to disks.
type diskWrites struct{}

var written = total("disk_written_bytes_total", "Bytes that this process has had written to disks, by the kernel's account (write_bytes of /proc/PID/io).")

// Describe implements prometheus.Collector.
func (diskWrites) Describe(to chan<- *prometheus.Desc) { to <- written.desc }

// Collect implements prometheus.Collector. A kernel that does not account for I/O has
// no such file.
func (diskWrites) Collect(to chan<- prometheus.Metric) {
	b, err := os.ReadFile("/proc/self/io")
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			if v, err := strconv.ParseUint(strings.TrimSpace(n), 10, 64); err == nil {
				written.value(to, float64(v))
			}
		}
	}
}
