package group

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/dfsm/group/transport"
	"pmxcfs/internal/testutil"
)

// TestFirstJoinMayTakeAWhile has no transport to connect to for longer than the
// group's patience, and looks at what is logged before and after that.
func TestFirstJoinMayTakeAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 30 * time.Second
		var log testutil.Log
		g, err := New(Config{App: nothing{}, Patience: patience, Backoff: 2 * time.Second,
			Connect: func() (transport.Conn, error) { return nil, errors.New("away") },
			Logger:  slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); g.Run(ctx) }()
		time.Sleep(patience - time.Second)
		synctest.Wait()
		if said := log.String(); said != "" {
			t.Errorf("within its patience it says:\n%s", said)
		}
		if s := g.Status(); s.LastError == nil {
			t.Error("its status does not tell why it is not connected")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if said := log.String(); strings.Count(said, "cannot connect") != 1 {
			t.Errorf("afterwards it does not say once:\n%s", said)
		}
		cancel()
		<-done
	})
}
