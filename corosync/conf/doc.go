// Package conf reads corosync.conf, as far as a node's daemon has to understand
// it: which version a copy has, and whether it describes a cluster at all. It
// follows corosync.conf(5) where the file is well formed and asks for no more
// than it needs where it is not: what corosync makes of a file is corosync's
// to say.
package conf
