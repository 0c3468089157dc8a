package status

import (
	"sync"

	"pmxcfs/status/clusterlog"
)

// logbook adds to the cluster log. Its lock is held over adding an entry and the
// Post that tells of it: receivers drop an entry that is older than the newest of
// its node, so entries must leave in their order.
type logbook struct {
	mu  sync.Mutex
	log *clusterlog.Log
}

// Log adds a message to the cluster log, stamped with this node's name and the
// time, and tells the other nodes; if this node is not in the group now, they learn
// of it with the next synchronisation.
func (s *Store) Log(m clusterlog.Message) {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.post(subtypeLog, s.journal.log.Add(m))
}

// ClusterLog returns the content of .clusterlog: the newest entries, at most max
// (0 means clusterlog.DefaultEntries), of all users or, if user is not empty, of one.
// The caller owns it.
func (s *Store) ClusterLog(max int, user string) []byte { return s.journal.log.Dump(max, user) }

// LogStats returns how many entries the cluster log has taken in.
func (s *Store) LogStats() clusterlog.Stats { return s.journal.log.Stats() }
