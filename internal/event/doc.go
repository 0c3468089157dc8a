// Package event names what happens in the daemon that an administrator may want to be
// told of, whatever words the log has for it.
//
// A package that logs such a thing adds the event's attribute to the line, and knows
// nothing of where the line goes:
//
//	log.Warn("node lost quorum", event.QuorumLost.Attr())
//
// The command's log handler turns the event into the journal's MESSAGE_ID, which is
// what alerts and the message catalog go by, and the fields given along into fields of
// the journal's entry that don't stand in the text. The package stands at the bottom of
// the layers, so that all others may use it, and has nothing but names in it, and what to
// do about the bad ones (Remedy).
package event
