// Package tally has counters and histograms for hot paths. Each serving goroutine gets cache
// lines of its own, and a histogram's observation costs two additions: metrics must not slow
// down the code that they measure.
package tally
