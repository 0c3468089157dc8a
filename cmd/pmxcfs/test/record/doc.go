// Package record tests the history of the tree on real nodes: what was recorded against a model, with
// kills and partitions; restoring; following; the mirror in contrib/git-mirror.
package record
