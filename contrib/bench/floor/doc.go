// Package floor holds what the daemon is measured against: the least that each
// of its two halves costs by itself.
//
// [ServeFS] is a file system that does nothing but keep files in memory, as
// simply and fast as go-fuse's raw interface allows, with the mount options and
// cache rules of the daemon. It stores nothing, checks nothing, and knows of no
// guests, locks or other nodes.
//
// [RunSQLite] writes the rows that the daemon would write, in transactions of a
// given size, and does nothing else.
package floor
