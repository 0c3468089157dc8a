// Package logging delivers log records: to the journal by its native protocol (or to the
// syslog), to stderr, to a file, and to the list of recent problems.
//
// Attributes become journal fields, events of package event become MESSAGE_IDs, and
// repeated lines are counted instead of written (limit.go). A journal that does not read
// delays a caller by at most 200 ms; then lines are dropped and counted.
package logging
