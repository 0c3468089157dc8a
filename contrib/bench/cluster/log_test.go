package cluster

import (
	"context"
	"testing"
	"time"
)

func TestLogTellsWhenTheDaemonHasCaughtUp(t *testing.T) {
	l := newLog()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	feed := func(text string) {
		for _, b := range []byte(text) {
			l.Write([]byte{b})
		}
	}
	feed("23:59:59.900 [dcdb] info: members: 1/4, 3/5\n23:59:59.950 [status] info: all data is up to date\n")
	if _, err := l.WaitSynced(over, 2); err == nil {
		t.Error("synced, but it was the other group that is")
	}
	feed("23:59:59.990 [dcdb] info: all data is up to date\n")
	if took, err := l.WaitSynced(over, 2); err != nil || took != 90*time.Millisecond {
		t.Errorf("%v, %v", took, err)
	}
	feed("00:00:00.000 [dcdb] info: members: 1/4, 2/1, 3/5\n")
	if _, err := l.WaitSynced(over, 3); err == nil {
		t.Error("synced although the view is new")
	}
	waited := make(chan time.Duration)
	go func() {
		took, err := l.WaitSynced(context.Background(), 3)
		if err != nil {
			t.Error(err)
		}
		waited <- took
	}()
	feed("00:00:00.400 [dcdb] info: all data is up to date\n")
	if took := <-waited; took != 500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}
