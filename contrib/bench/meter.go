package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuMeter finds out how much of the machine others have used.
type cpuMeter struct {
	began time.Time
	own   time.Duration
	busy  time.Duration
	all   time.Duration
}

func startCPUMeter() *cpuMeter {
	m := &cpuMeter{began: time.Now(), own: ownCPU()}
	m.busy, m.all = machineCPU()
	return m
}

// stop returns the seconds since the start and the share of all CPUs that
// others have used, from 0 to 1.
func (m *cpuMeter) stop() (seconds, others float64) {
	busy, all := machineCPU()
	rest := busy - m.busy - (ownCPU() - m.own)
	return time.Since(m.began).Seconds(), max(0, float64(rest)/float64(max(all-m.all, 1)))
}

// ownCPU is the CPU time of this process and its children that have ended.
func ownCPU() time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// machineCPU returns the time that all CPUs have been busy, and the time that
// they have been at all, by the first line of proc_stat(5).
func machineCPU() (busy, all time.Duration) {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	const tick = 10 * time.Millisecond
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseInt(field, 10, 64)
		// user, nice, system, idle, iowait, irq, softirq, steal, and guest time
		// that is part of user time.
		if err != nil || i > 8 {
			continue
		}
		all += time.Duration(n) * tick
		if i != 4 && i != 5 {
			busy += time.Duration(n) * tick
		}
	}
	return busy, all
}
