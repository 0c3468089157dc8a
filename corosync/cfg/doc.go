// Package cfg binds libcfg: telling corosync to read its configuration again,
// and asking for the state of its links. It has no events here: a Conn is opened
// for a call or a few, and closed.
package cfg
