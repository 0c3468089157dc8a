package group

import (
	"context"
	"log/slog"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/internal/event"
)

// log writes a line of the machine's.
func (g *Group) log(l dfsm.Log) {
	if l.Event == "" && len(l.Fields) == 0 {
		g.cfg.Logger.Log(context.Background(), l.Level, l.Text)
		return
	}
	fields := l.Fields
	if l.Event == event.SyncDone && !g.syncSince.IsZero() {
		fields = append(fields, slog.Duration("took", time.Since(g.syncSince)))
	}
	g.cfg.Logger.LogAttrs(context.Background(), l.Level, l.Text, l.Event.Attr(fields...))
}
