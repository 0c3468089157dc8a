//go:build !race

package e2e

// raceDetector says whether the tests, and so the daemon too, are built with it.
const raceDetector = false
