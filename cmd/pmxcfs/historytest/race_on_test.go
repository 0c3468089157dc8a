//go:build race

package historytest

// raceDetector says whether the tests, and so the daemon too, are built with it.
const raceDetector = true
