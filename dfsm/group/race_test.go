//go:build race

package group

// raced says that the race detector is on: it makes everything many times
// slower.
const raced = true
