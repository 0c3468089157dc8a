package dcdb

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/memdb"
)

// hangingDisk makes a store whose next transactions last until the disk comes
// back, and a change of it that waits.
func hangingDisk(t *testing.T) (l *Local, back func()) {
	l, db := newLocal(t)
	resume := make(chan struct{})
	db.before = func([]memdb.Change) error { <-resume; return nil }
	go func() { _, _ = l.Do(nil, &memdb.Op{Kind: memdb.OpMkdir, Path: "d"}) }()
	synctest.Wait()
	return l, func() { close(resume) }
}

func TestPingOfAStoreWaitsForTheDiskAndWaitsSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, back := hangingDisk(t)
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := l.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while the disk hangs: %v", err)
		}
		if w := l.Waits(); w.Disk < time.Minute || w.Disk > 2*time.Minute {
			t.Errorf("it says that it waits for %+v, want a minute for the disk", w)
		}
		back()
		if err := l.Ping(context.Background()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if w := l.Waits(); w != (Waits{}) {
			t.Errorf("afterwards it says that it waits: %+v", w)
		}
	})
}

func TestAFailedTransactionIsProgress(t *testing.T) {
	l, db := newLocal(t)
	db.before = func([]memdb.Change) error { return syscall.ENOSPC }
	if _, _, err := l.Write(nil, &memdb.Op{Kind: memdb.OpCreate, Path: "f"}, false); err != nil {
		t.Fatal(err)
	}
	if err := l.Ping(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestPingOfAStoreThatIsStuckIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLocal(t)
		l.c.mu.Lock()
		l.c.running = true // as a defect might leave it
		l.c.mu.Unlock()
		answered := make(chan error, 1)
		go func() { answered <- l.Ping(context.Background()) }()
		time.Sleep(time.Minute)
		select {
		case err := <-answered:
			t.Errorf("it is answered: %v", err)
		default:
		}
		if w := l.Waits(); w != (Waits{}) {
			t.Errorf("it says that it waits: %+v", w)
		}
		l.c.mu.Lock()
		l.c.running = false
		l.c.next.lead <- struct{}{}
		l.c.mu.Unlock()
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}
