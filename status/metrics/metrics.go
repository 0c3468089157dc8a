package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "pmxcfs"

// Config is what Metrics are made of.
type Config struct {
	Version string       // of the software
	Log     *slog.Logger // gets what keeps a scrape from succeeding; nil means nowhere
}

// Metrics are a daemon's. The observers may be used at once; Watch adds what is read
// at each scrape.
type Metrics struct {
	reg *prometheus.Registry
	log *slog.Logger

	FUSE      *FUSEObserver
	IPC       *IPCObserver
	Database  *DatabaseObserver
	Latencies *LatencyObserver
	Changes   *ChangeCounter
	Syncs     *SyncObserver
}

// New returns metrics of which nothing has been observed.
func New(cfg Config) *Metrics {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Metrics{reg: prometheus.NewRegistry(), log: cfg.Log}
	m.FUSE = newFUSEObserver(m.reg)
	m.IPC = newIPCObserver(m.reg)
	m.Database = newDatabaseObserver(m.reg)
	m.Latencies = newLatencyObserver(m.reg)
	m.Changes = newChangeCounter(m.reg)
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
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{m.log},
		// A metric that can't be gathered does not keep the others back.
		ErrorHandling:       promhttp.ContinueOnError,
		EnableOpenMetrics:   true,
		DisableCompression:  true, // costs more than the scrape
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

// scrapeLog logs what goes wrong in a scrape. A scraper that hangs up is no fault of
// this node, and it fails every family that was still to come.
type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	level := slog.LevelWarn
	for _, a := range v {
		if err, ok := a.(error); ok && (errors.Is(err, context.Canceled) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
			level = slog.LevelDebug
		}
	}
	l.log.Log(context.Background(), level, strings.TrimSuffix(fmt.Sprintln(v...), "\n"))
}

func counter(reg prometheus.Registerer, name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	reg.MustRegister(c)
	return c
}
