package logging

import (
	"log/slog"
	"testing"

	"pmxcfs/internal/event"
)

func TestRememberedProblemsSayWhatToDo(t *testing.T) {
	var l Logs
	log := slog.New(newHandler(slog.LevelWarn, l.remember))
	log.Error("no room", event.DiskFull.Attr())
	log.Warn("odd")
	list := l.Recent.Problems()
	if len(list) != 2 || list[1].Level != "error" || list[1].Remedy == "" || list[1].Remedy != event.DiskFull.Remedy() || list[0].Level != "warning" || list[0].Remedy != "" {
		t.Errorf("%+v", list)
	}
}

// TestBadEventsHaveARemedy: what is normal has none.
func TestBadEventsHaveARemedy(t *testing.T) {
	normal := map[event.Event]bool{
		event.DaemonUp: true, event.DaemonStopping: true, event.Unstuck: true, event.QuorumGained: true, event.Behind: true, event.SyncDone: true,
		event.DatabaseRecovered: true, event.LockExpired: true, event.LockBroken: true, event.ServiceUp: true, event.ConfWritten: true, event.HistoryRecovered: true,
	}
	for _, e := range event.All() {
		if (e.Remedy() == "") != normal[e] {
			t.Errorf("%s: remedy %q", e, e.Remedy())
		}
	}
}
