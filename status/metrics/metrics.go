package metrics

import (
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "pmxcfs"

// Config is what Metrics are made of.
type Config struct {
	Version string       // of the software
	Log     *slog.Logger // gets what keeps a scrape from succeeding; nil: nowhere
}

// Metrics are a daemon's. The observers may be used at once; Watch adds what is read
// at each scrape.
type Metrics struct {
	reg   *prometheus.Registry
	batch *batch
	log   *slog.Logger

	FUSE     *FUSEObserver
	IPC      *IPCObserver
	Database *DatabaseObserver
	Timings  *TimingsObserver
	Changes  *ChangeCounter
	Failures *FailureCounter
	Syncs    *SyncObserver
}

// New returns metrics of which nothing has been observed.
func New(cfg Config) *Metrics {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Metrics{reg: prometheus.NewRegistry(), batch: new(batch), log: cfg.Log}
	m.FUSE = newFUSEObserver(m.reg, m.batch)
	m.IPC = newIPCObserver(m.reg, m.batch)
	m.Database = newDatabaseObserver(m.reg, m.batch)
	m.Timings = newTimingsObserver(m.reg, m.batch)
	m.Changes = newChangeCounter(m.reg)
	m.Failures = newFailureCounter(m.reg)
	m.Syncs = newSyncObserver(m.reg)
	m.reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		diskWrites{},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "pmxcfs_build_info", Help: "Always 1; the labels tell the version of the daemon and of Go.",
			ConstLabels: prometheus.Labels{"version": cfg.Version, "goversion": runtime.Version()},
		}, func() float64 { return 1 }),
	)
	return m
}

// Watch adds what the sources tell. It must be called once.
func (m *Metrics) Watch(s Sources) { m.reg.MustRegister(newCollector(s)) }

// Handler answers scrapes, in Prometheus' text form, OpenMetrics, or protocol buffers with
// native histograms, as the scraper asks for.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(gatherer{m.batch, m.reg}, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn),
		// What can be told is told.
		ErrorHandling:       promhttp.ContinueOnError,
		EnableOpenMetrics:   true,
		DisableCompression:  true, // costs more than the scrape
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

// durations are the classic buckets, in seconds: from a request that is answered from
// memory to one that is given up.
var durations = [...]float64{
	.00002, .00005, .0001, .0002, .0005, .001, .002, .005, .01, .05, .1, .5, 1, 5, 10,
}

// histogram makes a family of histograms, classic and native.
func histogram(reg prometheus.Registerer, name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor:     1.2,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, labels)
	reg.MustRegister(h)
	return h
}

// sizes makes a classic histogram alone, which is half as much work for each change.
func sizes(reg prometheus.Registerer, name, help string, buckets ...float64) prometheus.Observer {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
	reg.MustRegister(h)
	return h
}

func counter(reg prometheus.Registerer, name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	reg.MustRegister(c)
	return c
}
