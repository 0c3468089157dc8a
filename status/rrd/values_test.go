package rrd

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeClock is a clock that a test moves.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newFakeClock() *fakeClock { return &fakeClock{now: testNow} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func mustSet(t *testing.T, v *Values, key, text string) {
	t.Helper()
	if err := v.Set(key, text); err != nil {
		t.Fatal(err)
	}
}

func TestDumpIsALineForEachKey(t *testing.T) {
	v := NewValues(newFakeClock().Now)
	mustSet(t, v, "pve-vm-9.0/100", "1:2")
	mustSet(t, v, recordedKey, "old")
	mustSet(t, v, recordedKey, recordedValue)
	want := recordedKey + ":" + recordedValue + "\npve-vm-9.0/100:1:2\n"
	if got := string(v.Dump()); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := string(v.DumpNUL()); got != want+"\x00" {
		t.Errorf("%q, want a NUL at its end", got)
	}
}

func TestEmptyDump(t *testing.T) {
	v := NewValues(newFakeClock().Now)
	if d, n := v.Dump(), v.DumpNUL(); len(d) != 0 || string(n) != "\x00" {
		t.Errorf("%q, %q", d, n)
	}
}

func TestDumpIsAtMostTwoSecondsOld(t *testing.T) {
	clock := newFakeClock()
	v := NewValues(clock.Now)
	mustSet(t, v, "a", "1")
	first := string(v.Dump())
	mustSet(t, v, "a", "2")
	clock.advance(2*time.Second - 1)
	if got := string(v.Dump()); got != first {
		t.Errorf("%q made anew within 2 s", got)
	}
	clock.advance(1)
	if got := string(v.Dump()); got != "a:2\n" {
		t.Errorf("%q after 2 s", got)
	}
}

func TestDumpIsMadeAnewWhenTheClockGoesBack(t *testing.T) {
	clock := newFakeClock()
	v := NewValues(clock.Now)
	v.Dump()
	clock.advance(-time.Minute)
	mustSet(t, v, "a", "1")
	if got := string(v.Dump()); got != "a:1\n" {
		t.Errorf("%q", got)
	}
}

func TestKeysNotHeardOfForFiveMinutesAreForgotten(t *testing.T) {
	clock := newFakeClock()
	v := NewValues(clock.Now)
	mustSet(t, v, "gone", "1")
	mustSet(t, v, "stays", "1")
	clock.advance(4 * time.Minute)
	mustSet(t, v, "stays", "2")
	clock.advance(time.Minute)
	if got := string(v.Dump()); got != "gone:1\nstays:2\n" {
		t.Errorf("after 5 minutes: %q", got)
	}
	clock.advance(2 * time.Second)
	if got := string(v.Dump()); got != "stays:2\n" {
		t.Errorf("after more than 5 minutes: %q", got)
	}
	if len(v.kept) != 1 || v.bytes != len("stays2") {
		t.Errorf("%d keys, %d bytes kept", len(v.kept), v.bytes)
	}
}

func TestTextOfAValue(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  string
		ok    bool
	}{
		{"1:2\x00", "1:2", true},
		{"1:2\x00rest\x00", "1:2", true},
		{"na\xffme:1\x00", "na\xffme:1", true},
		{strings.Repeat("1", 4094) + "\x00", strings.Repeat("1", 4094), true},
		{strings.Repeat("1", 4095) + "\x00", "", false},
		{"", "", false},
		{"\x00", "", false},
		{"1:2", "", false},
		{"1:2\nother-key:3\x00", "", false},
	} {
		got, err := Text([]byte(tt.value))
		if got != tt.want || (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrValue) {
			t.Errorf("%.20q: %.20q, %v", tt.value, got, err)
		}
	}
}

func TestKeysThatWouldBreakTheDumpAreRefused(t *testing.T) {
	v := NewValues(newFakeClock().Now)
	for _, key := range []string{"", "a\nb", "a\x00", strings.Repeat("k", 256)} {
		if err := v.Set(key, "1"); !errors.Is(err, ErrKey) {
			t.Errorf("%.20q: %v", key, err)
		}
	}
	if got := v.Dump(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestPeersCannotMakeTheValuesGrowWithoutBound(t *testing.T) {
	clock := newFakeClock()
	v := NewValues(clock.Now)
	big := strings.Repeat("x", 4000)
	i := 0
	for ; i < 2*maxKept; i++ {
		if err := v.Set(fmt.Sprintf("key%d", i), big); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
	}
	if v.bytes > maxKeptBytes || v.bytes < maxKeptBytes-5000 {
		t.Errorf("full with %d bytes", v.bytes)
	}
	// Known keys go on, and room is made when the others are forgotten.
	mustSet(t, v, "key0", "1")
	clock.advance(keptFor + dumpAge)
	mustSet(t, v, "key0", "2")
	for i = range maxKept - 1 {
		mustSet(t, v, fmt.Sprintf("small%d", i), "1")
	}
	if err := v.Set("one more", "1"); !errors.Is(err, ErrFull) {
		t.Errorf("key %d: %v, want ErrFull", maxKept+1, err)
	}
}
