//go:build race

package e2e

// raceDetector says whether the tests, and so the daemons of newRaced, are built with it.
const raceDetector = true
