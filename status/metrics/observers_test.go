package metrics

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestEachTransactionCountsOnceAndAtOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := newDatabaseObserver(reg)
	for n := range uint64(200) {
		families := gathered(t, reg)
		for name, each := range map[string]float64{
			"database_transaction_rows": 2, "database_transaction_bytes": 700, "database_transaction_duration_seconds": 0.001,
		} {
			h := families["pmxcfs_"+name].Metric[0].Histogram
			if sum := each * float64(n); h.GetSampleCount() != n || h.GetSampleSum()-sum > 1e-9 || sum-h.GetSampleSum() > 1e-9 {
				t.Fatalf("after %d: %s has %d, in all %v", n, name, h.GetSampleCount(), h.GetSampleSum())
			}
		}
		o.Committed(2, 700, time.Millisecond)
	}
}
