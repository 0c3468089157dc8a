package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm/group/grouptest"
	"pmxcfs/internal/testutil"
)

// byKey has posts of one key replace each other.
func byKey(_ uint16, payload []byte) string { return string(payload[:4]) }

func TestPostsThatCannotBeSentAreBoundedAndDroppedAloud(t *testing.T) {
	for _, hangs := range []bool{false, true} { // or says "try again"
		synctest.Test(t, func(t *testing.T) {
			var log testutil.Log
			b := &grouptest.Bus{}
			n := startNode(t, b, 1, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			time.Sleep(time.Second)
			wantSynced(t, n, 1)
			resume := func() { b.Set(func(b *grouptest.Bus) { b.Full = false }) }
			if hangs {
				n.own.Lock() // as Run holds it in a call that does not return
				resume = n.own.Unlock
			} else {
				b.Set(func(b *grouptest.Bus) { b.Full = true })
			}
			const size, many = 10000, 5000
			for i := range many {
				n.Post(1, append(op(i%entries, i), make([]byte, size)...))
			}
			if hangs {
				if s := n.posts.bytes; s > maxPosted {
					t.Errorf("%d bytes are kept", s)
				}
			}
			s := n.Status()
			if kept := s.Unsent; kept > maxPosted/size+2*turn || kept < maxPosted/size-2*turn {
				t.Errorf("%d messages are kept", kept)
			}
			if s.Dropped+uint64(s.Unsent)+2*turn < many || s.DroppedBytes < s.Dropped*size {
				t.Errorf("%d messages with %d bytes are dropped, %d kept", s.Dropped, s.DroppedBytes, s.Unsent)
			}
			if strings.Count(log.String(), "the oldest of those without a waiter are dropped") != 1 {
				t.Error("the log does not say so, or too often")
			}
			resume()
			time.Sleep(time.Minute)
			synctest.Wait()
			if s := n.Status(); s.Unsent != 0 {
				t.Errorf("%d messages are not sent", s.Unsent)
			}
			if strings.Count(log.String(), fmt.Sprintf("dropped=%d types=\"%d of type 1\"", s.Dropped, s.Dropped)) != 1 {
				t.Errorf("the log does not say what was dropped: %s", log.String())
			}
		})
	}
}

func TestOfPostsWithOneKeyOnlyTheNewestIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		var nodes []*node
		for id := range corosync.NodeID(2) {
			nodes = append(nodes, startNode(t, b, id+1, func(c *Config) { c.Key = byKey }))
			time.Sleep(time.Second)
		}
		wantSynced(t, nodes[0], 2)
		b.Set(func(b *grouptest.Bus) { b.Full = true })
		const rounds = 300
		for i := range rounds {
			for key := range entries {
				nodes[0].Post(1, op(key, i))
			}
		}
		s := nodes[0].Status()
		if s.Dropped != 0 || s.Unsent > 2*entries+turn || s.Replaced < (rounds-4)*entries {
			t.Errorf("%d messages wait, %d were replaced, %d dropped", s.Unsent, s.Replaced, s.Dropped)
		}
		b.Set(func(b *grouptest.Bus) { b.Full = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		stopAll(nodes)
		wantAlike(t, nodes, -1)
		for key := range entries {
			if got := string(nodes[1].app.Disk.Entries[key].Value); got != fmt.Sprint(rounds-1) {
				t.Fatalf("key %d is %q", key, got)
			}
		}
	})
}

func TestSubmissionsThatWereGivenUpDoNotGatherWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &grouptest.Bus{}
		n := startNode(t, b, 1, nil)
		time.Sleep(time.Second)
		wantSynced(t, n, 1)
		b.Set(func(b *grouptest.Bus) { b.Full = true })
		payload := append(op(1, 1), make([]byte, 1<<20)...)
		refused := 0
		for range 2 * maxUnsent >> 20 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if err := n.Submit(ctx, 1, payload); errors.Is(err, ErrWithdrawn) {
				refused++
			} else if !errors.Is(err, ErrTimeout) {
				t.Fatal(err)
			}
			cancel()
		}
		if s := n.Status(); s.Unsent > maxUnsent>>20 || refused < maxUnsent>>20 {
			t.Errorf("%d messages are kept, %d refused", s.Unsent, refused)
		}
		b.Set(func(b *grouptest.Bus) { b.Full = false })
		time.Sleep(time.Minute)
		if err := n.Submit(context.Background(), 1, op(2, 2)); err != nil {
			t.Error(err)
		}
	})
}
