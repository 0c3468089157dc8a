package qb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"pmxcfs/corosync/qb"
)

func TestPingIsAnsweredByTheLoopAndNobodyElse(t *testing.T) {
	entered, proceed := make(chan struct{}), make(chan struct{})
	s := serve(t, func(cfg *qb.Config) {
		accept := cfg.Accept
		cfg.Accept = func(p qb.Peer) (qb.Handler, error) {
			close(entered)
			<-proceed
			return accept(p)
		}
	})
	if err := s.Ping(context.Background()); err != nil {
		t.Errorf("an idle loop: %v", err)
	}
	dialed := make(chan error, 1)
	go func() {
		c, err := qb.Dial(s.name)
		if err == nil {
			c.Close()
		}
		dialed <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a loop that does not turn: %v", err)
	}
	close(proceed)
	if err := <-dialed; err != nil {
		t.Error(err)
	}
	if err := s.Ping(context.Background()); err != nil {
		t.Errorf("a loop that turns again: %v", err)
	}
	s.Stop()
	if err := s.Ping(context.Background()); !errors.Is(err, qb.ErrEnded) {
		t.Errorf("a loop that has ended: %v", err)
	}
}
