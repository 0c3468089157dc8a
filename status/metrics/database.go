package metrics

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pmxcfs/fuse/tally"
)

// DatabaseObserver observes the database file.
type DatabaseObserver struct {
	transactions         transactions
	synced, checkpointed *tally.Histogram
}

func newDatabaseObserver(reg prometheus.Registerer) *DatabaseObserver {
	duration := func(name, help string) *tally.Histogram { return newHistograms(reg, name, help).times() }
	o := &DatabaseObserver{
		synced:       duration("database_sync_duration_seconds", "Time to bring the write-ahead log to the disk for an fsync."),
		checkpointed: duration("database_checkpoint_duration_seconds", "Time to copy the write-ahead log into the database file."),
	}
	o.transactions.init()
	reg.MustRegister(&o.transactions)
	return o
}

// Committed implements sqlite.Observer.
func (o *DatabaseObserver) Committed(rows, bytes int, took time.Duration) {
	o.transactions.observe(transaction{rows, bytes, took})
}

// Synced implements sqlite.Observer.
func (o *DatabaseObserver) Synced(took time.Duration) { o.synced.Took(took) }

// Checkpointed implements sqlite.Observer.
func (o *DatabaseObserver) Checkpointed(took time.Duration) { o.checkpointed.Took(took) }

// transactions counts transactions by their size and by how long they took. It is a
// prometheus.Collector.
//
// Everybody who writes waits for this, and three histograms are some ten cache lines, which are cold by
// then. So the last transactions are only noted, and put into the histograms when a block of them is
// full. Only one goroutine at a time may observe; it never waits for those that collect.
type transactions struct {
	state atomic.Uint64 // how many were observed, times two; 1 more: a block is being put into the histograms
	block [blockSize]noted

	rows, bytes, took       tally.Histogram
	ofRows, ofBytes, ofTook family
}

const blockSize = 64

type transaction struct {
	rows, bytes int
	took        time.Duration
}

// observe tells of the transaction.
func (x transaction) observe(rows, bytes, took interface{ Observe(int64) }) {
	rows.Observe(int64(x.rows))
	bytes.Observe(int64(x.bytes))
	took.Observe(int64(x.took))
}

// noted is a transaction that is in no histogram yet.
type noted struct {
	rows, bytes atomic.Uint32 // there are fewer than 4 GiB in a database
	took        atomic.Int64
}

func (n *noted) get() transaction {
	return transaction{int(n.rows.Load()), int(n.bytes.Load()), time.Duration(n.took.Load())}
}

func (t *transactions) init() {
	t.rows = tally.Make(tally.Sizes(1, 2, 5, 10, 20, 50, 100, 1000, 10000, 100000))
	t.bytes = tally.Make(tally.Sizes(0, 256, 1024, 4096, 16384, 65536, 262144, 1<<20, 4<<20, 16<<20, 64<<20))
	t.took = tally.Make(tally.Times)
	t.ofRows = total("database_transaction_rows", "Rows written or deleted by a transaction.")
	t.ofBytes = total("database_transaction_bytes", "Bytes of content written by a transaction.")
	t.ofTook = total("database_transaction_duration_seconds", "Time to carry out a transaction that succeeded.")
}

func (t *transactions) observe(x transaction) {
	n := t.state.Load() / 2
	to := &t.block[n%blockSize]
	to.rows.Store(uint32(x.rows))
	to.bytes.Store(uint32(x.bytes))
	to.took.Store(int64(x.took))
	if n++; n%blockSize == 0 {
		t.state.Add(1)
		for i := range t.block {
			t.block[i].get().observe(&t.rows, &t.bytes, &t.took)
		}
	}
	t.state.Store(2 * n)
}

// snapshot returns what has been observed. It tries again if a block was full meanwhile.
func (t *transactions) snapshot() (rows, bytes, took tally.Snapshot) {
	for {
		before := t.state.Load()
		if before%2 == 0 {
			rows, bytes, took = t.rows.Snapshot(), t.bytes.Snapshot(), t.took.Snapshot()
			for i := range before / 2 % blockSize {
				t.block[i].get().observe(&rows, &bytes, &took)
			}
			if after := t.state.Load(); after%2 == 0 && after/2/blockSize == before/2/blockSize {
				return rows, bytes, took
			}
		}
		runtime.Gosched()
	}
}

// Describe implements prometheus.Collector.
func (t *transactions) Describe(to chan<- *prometheus.Desc) {
	for _, f := range []family{t.ofRows, t.ofBytes, t.ofTook} {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (t *transactions) Collect(to chan<- prometheus.Metric) {
	rows, bytes, took := t.snapshot()
	t.ofRows.histogram(to, rows)
	t.ofBytes.histogram(to, bytes)
	t.ofTook.histogram(to, took)
}
