package qb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"pmxcfs/corosync/qb"
	"pmxcfs/corosync/qb/qbclient"
)

func TestPingNeedsTheServiceAndNoClient(t *testing.T) {
	entered, proceed := make(chan struct{}), make(chan struct{})
	s := serve(t, func(cfg *qb.Config) {
		accept := cfg.Accept
		cfg.Accept = func(p qb.Peer) (qb.Handler, error) {
			close(entered)
			<-proceed
			return accept(p)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Ping(ctx); err != nil {
		t.Errorf("idle: %v", err)
	}
	dialed := make(chan error, 1)
	go func() {
		c, err := qbclient.Dial(s.name)
		if err == nil {
			c.Close()
		}
		dialed <- err
	}()
	<-entered
	for range 3 {
		if err := s.Ping(ctx); err != nil {
			t.Errorf("while a client is being let in: %v", err)
		}
	}
	close(proceed)
	if err := <-dialed; err != nil {
		t.Error(err)
	}
	s.Stop()
	if err := s.Ping(ctx); !errors.Is(err, qb.ErrEnded) {
		t.Errorf("stopped: %v", err)
	}
}
