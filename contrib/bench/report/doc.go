// Package report turns measurements into what is read: medians over the rounds,
// ratios, the goals and whether they are met, as tables and as JSON.
package report
