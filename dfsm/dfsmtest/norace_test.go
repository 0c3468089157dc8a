//go:build !race

package dfsmtest

const raced = false
