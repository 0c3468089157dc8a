package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"pmxcfs/internal/tally"
)

// began is when the histograms began to count.
var began = time.Now()

// withBuckets is a native histogram that has classic buckets, too.
type withBuckets struct {
	prometheus.Metric
	classic []*dto.Bucket
}

func (h withBuckets) Write(out *dto.Metric) error {
	err := h.Metric.Write(out)
	if err == nil {
		out.Histogram.Bucket = h.classic
	}
	return err
}

// histogram gives a histogram, its labels' values in their order.
func (f family) histogram(to chan<- prometheus.Metric, s tally.Snapshot, labels ...string) {
	native := s.Native()
	if native == nil {
		buckets := make(map[float64]uint64)
		for _, b := range s.Classic() {
			buckets[b.Upper] = b.Count
		}
		to <- prometheus.MustNewConstHistogram(f.desc, s.Count(), s.Sum(), buckets, labels...)
		return
	}
	h := withBuckets{Metric: prometheus.MustNewConstNativeHistogram(
		f.desc, s.Count(), s.Sum(), native.Counts, nil, native.Zero, native.Schema, native.Threshold, began, labels...)}
	for _, b := range s.Classic() {
		h.classic = append(h.classic, &dto.Bucket{UpperBound: new(b.Upper), CumulativeCount: new(b.Count)})
	}
	to <- h
}

// histograms are all of one family. It is a prometheus.Collector.
type histograms struct {
	family
	mu   sync.Mutex
	list []labelled
}

type labelled struct {
	*tally.Histogram
	labels []string
}

// newHistograms makes a family of which there is no histogram yet.
func newHistograms(reg prometheus.Registerer, name, help string, labels ...string) *histograms {
	h := &histograms{family: total(name, help, labels...)}
	reg.MustRegister(h)
	return h
}

// times makes the family's histogram of how long something takes.
func (h *histograms) times(labels ...string) *tally.Histogram { return h.add(tally.Times, labels...) }

func (h *histograms) add(s *tally.Scale, labels ...string) *tally.Histogram {
	made := tally.New(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, labelled{made, labels})
	return made
}

// Describe implements prometheus.Collector.
func (h *histograms) Describe(to chan<- *prometheus.Desc) { to <- h.desc }

// Collect implements prometheus.Collector.
func (h *histograms) Collect(to chan<- prometheus.Metric) {
	h.mu.Lock()
	list := h.list
	h.mu.Unlock()
	for _, x := range list {
		h.histogram(to, x.Snapshot(), x.labels...)
	}
}
