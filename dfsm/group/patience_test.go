package group

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFirstJoinMayTakeAWhile has no transport to connect to for longer than the
// group's patience, and looks at what is logged before and after that.
func TestFirstJoinMayTakeAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 30 * time.Second
		var log bytes.Buffer
		g, err := New(Config{App: nothing{}, Patience: patience, Backoff: 2 * time.Second,
			Connect: func() (Transport, error) { return nil, errors.New("away") },
			Logger:  slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); g.Run(ctx) }()
		time.Sleep(patience - time.Second)
		synctest.Wait()
		if log.Len() > 0 {
			t.Errorf("within its patience it says:\n%s", &log)
		}
		if s := g.Status(); s.LastError == nil {
			t.Error("its status does not tell why it is not connected")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "cannot connect"); n != 1 {
			t.Errorf("afterwards it says %d times:\n%s", n, &log)
		}
		cancel()
		<-done
	})
}
