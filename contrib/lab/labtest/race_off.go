//go:build !race

package labtest

// RaceDetector says whether the tests, and so the daemon too, are built with it.
const RaceDetector = false
