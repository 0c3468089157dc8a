// Package event names the events that an administrator may want to be alerted on,
// independently of the log's wording.
//
// A package that logs an event adds its attribute to the line, and doesn't know where the
// line goes:
//
//	log.Warn("node lost quorum", event.QuorumLost.Attr())
//
// The log handler (cmd/internal/logging) turns the event into the journal's MESSAGE_ID, on
// which alerts and the message catalog are based, and its other attributes into fields of the
// journal's entry that are not part of the text. The package is at the bottom of the
// layers, so that all others may use it. It holds names only, and the remedies of the bad
// events (Remedy).
package event
