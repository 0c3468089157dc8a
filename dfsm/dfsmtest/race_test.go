//go:build race

package dfsmtest

// raced says that the race detector is on: it makes everything several times
// slower, and there is only one goroutine here to watch.
const raced = true
