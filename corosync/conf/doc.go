// Package conf reads, checks, changes and prints corosync.conf.
//
// There are two readers, for two readers' questions. [Parse] and [Version] tell
// a node's daemon which version a copy has, and whether it describes a cluster at
// all. Parse follows corosync's rules. A file that breaks them is an error and never
// counts as one that says less: only Version still finds its line, as the stock
// daemon does. [Read] gives the cluster manager the whole file, by the rules of
// Proxmox VE's own tools, which split the text at white space.
//
// A change ([File.Change], [File.AddNode], …) edits the text, so that comments
// and order stay; what is in the order that [File.Print] gives stays in it. It
// raises config_version and never adds a problem that the file didn't have.
package conf
