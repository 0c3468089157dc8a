package follow

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"pmxcfs/corosync/votequorum"
	"pmxcfs/internal/event"
)

// quorumConn is what following the quorum needs of a votequorum.Conn.
type quorumConn interface {
	TrackStart() error
	Next(into []votequorum.Event, timeout time.Duration) ([]votequorum.Event, error)
	Wake()
	Close() error
}

// quorumWatch follows whether this node's part of the cluster has quorum. The
// answer is no until corosync says yes, and as soon as the connection is lost.
type quorumWatch struct {
	connect func() (quorumConn, error)
	report  func(quorate bool) // at each change
	log     *slog.Logger

	quorate bool // as reported
	trouble trouble
}

// StartQuorum reports changes from a goroutine of its own: report must not
// wait for the watch's end. A corosync that check does not let through has no quorum.
func StartQuorum(log *slog.Logger, check func() error, report func(quorate bool)) *Worker {
	w := &quorumWatch{
		connect: Guarded(check, func() (quorumConn, error) { return votequorum.Open() }),
		report:  report,
		log:     log,
		trouble: trouble{log: log, what: "no connection to corosync's quorum service", event: event.CorosyncAway, from: time.Now().Add(Patience)},
	}
	return Start("quorum", w.run)
}

func (w *quorumWatch) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return // stopping is no loss of quorum
		}
		w.set(false)
		w.trouble.tell(err)
		pause(ctx, retryDelay(err))
	}
}

// follow connects and reports until ctx is done or the connection is lost.
func (w *quorumWatch) follow(ctx context.Context) error {
	c, err := w.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, c.Wake)()
	if err := c.TrackStart(); err != nil {
		return err
	}
	w.trouble.over()
	var events []votequorum.Event
	for ctx.Err() == nil {
		if events, err = c.Next(events[:0], votequorum.Forever); err != nil {
			return err
		}
		for i := range events {
			if q := events[i].Quorum; q != nil {
				w.set(q.Quorate)
			}
		}
	}
	return nil
}

func (w *quorumWatch) set(quorate bool) {
	if quorate == w.quorate {
		return
	}
	w.quorate = quorate
	if quorate {
		w.log.Log(context.Background(), event.LevelNotice, "node has quorum", event.QuorumGained.Attr())
	} else {
		w.log.Warn("node lost quorum", event.QuorumLost.Attr())
	}
	w.report(quorate)
}

// trouble logs what keeps a connection away once, not at each attempt.
type trouble struct {
	log  *slog.Logger
	what string
	// from is when it is trouble that there was no connection yet.
	from time.Time
	// event is what it means to programs; empty means nothing.
	event event.Event
	once  event.Once
}

func (t *trouble) tell(err error) {
	switch {
	case errors.Is(err, ErrForeign): // the Gate has told
	case err != nil && time.Now().Before(t.from):
		t.log.Debug(t.what, "error", err)
	case t.once.New(err):
		t.log.Warn(t.what, "error", err, t.event.Attr())
	}
}

// over ends it: from now on it is trouble at once.
func (t *trouble) over() {
	t.once.Over()
	t.from = time.Time{}
}
