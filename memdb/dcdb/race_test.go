//go:build race

package dcdb

// raceEnabled says that the race detector makes everything slow.
const raceEnabled = true
