//go:build !race

package dcdb

const raceEnabled = false
