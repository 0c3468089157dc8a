// Package metricstest reads what a daemon gives to Prometheus, for tests, and holds the
// list of what it should be: each metric's name, type and labels. The list is part of
// the daemon's interface: dashboards and alerts rest on it.
package metricstest

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

//go:embed golden.txt
var golden string

// Golden is the list: a line "name type label,label" for each metric, sorted.
func Golden() []string { return strings.Split(strings.TrimSpace(golden), "\n") }

// Families are metrics by their names.
type Families map[string]*dto.MetricFamily

// Read parses the text form.
func Read(r io.Reader) (Families, error) {
	p := expfmt.NewTextParser(model.UTF8Validation)
	return p.TextToMetricFamilies(r)
}

// List returns the lines that Golden should have for the daemon's own metrics in f.
func (f Families) List() []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if !strings.HasPrefix(name, "pmxcfs_") {
			continue
		}
		labels := map[string]bool{}
		for _, m := range f[name].Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = true
			}
		}
		kind := strings.ToLower(f[name].GetType().String())
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s", name, kind, strings.Join(slices.Sorted(maps.Keys(labels)), ","))))
	}
	return list
}

// Value returns the value of a counter or gauge, or the count of a histogram, with
// these labels ("name=value"); several that fit are added up.
func (f Families) Value(name string, labels ...string) (sum float64, ok bool) {
	family := f[name]
	if family == nil {
		return 0, false
	}
	for _, m := range family.Metric {
		have := make(map[string]bool, len(m.Label))
		for _, l := range m.Label {
			have[l.GetName()+"="+l.GetValue()] = true
		}
		if slices.ContainsFunc(labels, func(l string) bool { return !have[l] }) {
			continue
		}
		ok = true
		switch {
		case m.Counter != nil:
			sum += m.Counter.GetValue()
		case m.Gauge != nil:
			sum += m.Gauge.GetValue()
		case m.Histogram != nil:
			sum += float64(m.Histogram.GetSampleCount())
		}
	}
	return sum, ok
}
