// Package tally counts what happens very often. Its users are told apart by goroutine, so that each
// can have cache lines of its own, and its histograms cost two additions an observation: metrics are
// not to slow down what they measure.
package tally
