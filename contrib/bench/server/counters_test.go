package server

import (
	"os"
	"testing"
	"time"
)

func TestCountersSeeCPUTimeAndWrites(t *testing.T) {
	before, err := ReadCounters(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const writes = 100
	for range writes {
		if _, err := f.WriteString("x"); err != nil {
			t.Fatal(err)
		}
	}
	for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
	}
	after, err := ReadCounters(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	used := after.Sub(before)
	if used.Writes < writes {
		t.Errorf("%d write calls counted of %d", used.Writes, writes)
	}
	if used.CPU <= 0 {
		t.Errorf("CPU time %v after a busy loop", used.CPU)
	}
}

func TestMemoryOfThisProcessIsPlausible(t *testing.T) {
	m, err := ReadMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if m.Anonymous <= 0 || m.Resident < m.Anonymous/2 || m.Peak < m.Resident/2 || m.Share <= 0 {
		t.Errorf("%+v", m)
	}
}

func TestCountersOfNoProcessAreAnError(t *testing.T) {
	if _, err := ReadCounters(1 << 22); err == nil {
		t.Error("no error")
	}
	if _, err := ReadMemory(1 << 22); err == nil {
		t.Error("no error")
	}
}
