// Package conf reads corosync.conf, as far as a node's daemon has to understand
// it: which version a copy has, and whether it describes a cluster at all. It parses
// by corosync's rules. A file that breaks them is an error and never counts as one
// that says less: only Version still finds its line, as the stock daemon does.
package conf
