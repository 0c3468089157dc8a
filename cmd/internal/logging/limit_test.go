package logging

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmxcfs/internal/event"
)

// limitedLog is a log behind a limiter.
type limitedLog struct {
	*slog.Logger
	limits *limits

	mu   sync.Mutex
	list []*record
}

func newLimitedLog() *limitedLog {
	l := &limitedLog{}
	h := newLimiter(newHandler(slog.LevelDebug, func(r *record) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.list = append(l.list, r)
	}))
	l.Logger, l.limits = slog.New(h).With(domainKey, "d"), h.shared
	return l
}

// take returns the lines since the last time, and how many they stand for.
func (l *limitedLog) take() (lines []string, all int) {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.list {
		lines = append(lines, r.text)
		all++
		for _, f := range r.fields {
			if f.Key == "suppressed" {
				all += int(f.Value.Int64())
			}
		}
	}
	l.list = nil
	return lines, all
}

func TestLinesThatAreAlikeAreCountedInsteadOfWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimitedLog()
		begin := time.Now()
		sent := 0
		for time.Since(begin) < 10*time.Minute-time.Second {
			l.Error("no room", "n", sent, event.DiskFull.Attr("path", "/x"))
			sent++
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * limitWindow)
		lines, all := l.take()
		if len(lines) > limitBurst+int(10*time.Minute/limitWindow) {
			t.Errorf("%d lines of %d", len(lines), sent)
		}
		if all != sent {
			t.Errorf("%d lines stand for %d of %d", len(lines), all, sent)
		}
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "no room (and ") || !strings.HasSuffix(last, " n="+strconv.Itoa(sent-1)) {
			t.Errorf("the last one is %q", last)
		}
		l.Error("no room", event.DiskFull.Attr())
		if lines, _ := l.take(); len(lines) != 1 {
			t.Errorf("when it was quiet for long, a line is held back: %q", lines)
		}
	})
}

func TestLinesThatDifferAreNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimitedLog()
		for i := range 15 {
			l.Info("a")
			l.Warn("a")
			l.Info("b", "n", i)
			l.With(domainKey, "e").Info("a")
			l.Info("c", event.ConfWritten.Attr())
			l.Info("c", event.ConfIgnored.Attr())
			l.Info(fmt.Sprintf("number %d", i))
		}
		if lines, _ := l.take(); len(lines) != 7*limitBurst {
			t.Errorf("%d lines, want %d of each of 7 kinds", len(lines), limitBurst)
		}
		for range 100 {
			l.Debug("debug")
		}
		if lines, _ := l.take(); len(lines) != 100 {
			t.Errorf("%d of 100 debug messages", len(lines))
		}
		l.limits.close()
	})
}

func TestLastWordAboutAStateIsTrue(t *testing.T) {
	for _, states := range [][]event.Event{
		{event.QuorumGained, event.QuorumLost},
		{event.DatabaseRecovered, event.DiskFull},
		{event.DatabaseRecovered, event.DatabaseFailed},
		{event.Unstuck, event.Stuck},
		{event.SyncDone, event.LeftGroup},
	} {
		for n := 2 * limitBurst; n < 2*limitBurst+4; n++ { // ends with the one or the other
			synctest.Test(t, func(t *testing.T) {
				l := newLimitedLog()
				for i := range n {
					e, level := states[i%2], slog.LevelInfo+slog.Level(4*(i%2))
					l.Log(context.Background(), level, string(e), e.Attr())
					time.Sleep(time.Second)
				}
				time.Sleep(3 * limitWindow)
				lines, all := l.take()
				if last, want := lines[len(lines)-1], string(states[(n-1)%2]); !strings.HasPrefix(last, want) {
					t.Errorf("after %d changes the last word is %q, not %s", n, last, want)
				}
				if all != n {
					t.Errorf("%d lines stand for %d of %d", len(lines), all, n)
				}
			})
		}
	}
}

func TestWhatIsHeldBackIsWrittenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimitedLog()
		for range 25 {
			l.Error("no room")
		}
		l.limits.close()
		l.Error("after the end")
		lines, all := l.take()
		if len(lines) != limitBurst+2 || all != 26 {
			t.Errorf("%d lines for %d", len(lines), all)
		}
	})
}

// kept returns how many kinds of lines are known.
func (l *limitedLog) kept() int {
	l.limits.mu.Lock()
	defer l.limits.mu.Unlock()
	return len(l.limits.kinds)
}

func TestKindsWithoutEndTakeNoMemoryWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimitedLog()
		word := func(i int) string { return strings.Map(func(c rune) rune { return c - '0' + 'a' }, strconv.Itoa(i)) }
		for i := range 10 * limitKinds {
			l.Info(word(i))
		}
		if k := l.kept(); k > limitKinds+1 {
			t.Errorf("%d kinds are kept", k)
		}
		if lines, _ := l.take(); len(lines) != limitKinds+limitBurst {
			t.Errorf("%d lines", len(lines))
		}
		time.Sleep(3 * limitWindow)
		l.Info("another one")
		if k := l.kept(); k > 2 {
			t.Errorf("%d kinds are kept after a while", k)
		}
		if lines, all := l.take(); all != 9*limitKinds-limitBurst+1 {
			t.Errorf("%d lines stand for %d", len(lines), all)
		}
		l.limits.close()
	})
}

func TestManyMayLogAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimitedLog()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 100 {
					l.LogAttrs(context.Background(), slog.LevelWarn, "alike")
					time.Sleep(time.Second)
				}
			})
		}
		wg.Wait()
		l.limits.close()
		if _, all := l.take(); all != 2000 {
			t.Errorf("the lines stand for %d of 2000", all)
		}
	})
}
