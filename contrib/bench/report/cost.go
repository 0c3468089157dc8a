package report

import (
	"math"
	"math/rand/v2"
	"slices"

	"pmxcfs/contrib/bench/load"
)

// CostOps are the operations for which the cost of metrics is measured.
var CostOps = []string{"create", "overwrite", "read", "delete"}

// Cost is what metrics cost: an operation whose subject are two daemons, and whose floor two without
// metrics. A round's ratio is that of the two kinds' rates, each the geometric mean of two.
type Cost struct {
	Op
	Error   float64 `json:"error"`   // of the ratio: half of what 95 % of all runs differ by, as the starts tell
	Control float64 `json:"control"` // the ratio of the two without
}

// CostStart are the results of four daemons: of each kind two, a result for each round.
type CostStart struct{ With, Without [2][]*load.Result }

// CompareCost makes a Cost of all starts, of which there must be one, with a round.
func CompareCost(name string, starts []CostStart) Cost {
	var with, without [2][]*load.Result
	ratios := make([][]float64, len(starts))
	for n, s := range starts {
		for i := range s.With[0] {
			rate := func(of [2][]*load.Result) float64 { return of[0][i].PerSecond() * of[1][i].PerSecond() }
			ratios[n] = append(ratios[n], math.Sqrt(rate(s.With)/rate(s.Without)))
		}
		for i := range 2 {
			with[i], without[i] = append(with[i], s.With[i]...), append(without[i], s.Without[i]...)
		}
	}
	return Cost{
		Op:      opOf(name, 1, slices.Concat(with[:]...), slices.Concat(without[:]...), slices.Concat(ratios...)),
		Error:   uncertain(ratios),
		Control: Compare(name, 1, without[1], without[0]).Ratio,
	}
}

// uncertain returns how far the median may be off, had from what it would be with others of
// the starts: their rounds have much in common.
func uncertain(starts [][]float64) float64 {
	const samples = 1000
	random := rand.New(rand.NewPCG(1, 2)) // the same result from the same rounds
	medians := make([]float64, samples)
	for i := range medians {
		var some []float64
		for range starts {
			some = append(some, starts[random.IntN(len(starts))]...)
		}
		medians[i] = median(some)
	}
	slices.Sort(medians)
	return (medians[samples*975/1000] - medians[samples*25/1000]) / 2
}
