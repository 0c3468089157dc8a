// Package logging is where log records go: the journal's native protocol (or the
// syslog), stderr, a file, and the list of recent problems.
//
// Attributes become journal fields, events of package event become MESSAGE_IDs, and lines
// that are alike are counted instead of written (limit.go). A journal that does not read
// delays a caller by at most 200 ms and costs lines, which are counted.
package logging
