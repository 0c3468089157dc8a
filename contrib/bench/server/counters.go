package server

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Counters is what a process has used since it began.
type Counters struct {
	CPU time.Duration `json:"cpu"` // of all its threads, user and system

	// Written is the bytes of pages that the process has made dirty, or written
	// past the page cache (write_bytes of proc_pid_io(5)): what goes to the
	// disk, whole pages.
	Written int64 `json:"written"`

	// Writes counts write system calls. A FUSE server makes one for each
	// request that it answers; if it writes to no file meanwhile, these are the
	// requests.
	Writes int64 `json:"writes"`

	// Switches counts how often a thread has stopped to wait, of the threads that there
	// are now.
	Switches int64 `json:"switches"`
}

// Sub returns what was used between o and c.
func (c Counters) Sub(o Counters) Counters {
	return Counters{c.CPU - o.CPU, c.Written - o.Written, c.Writes - o.Writes, c.Switches - o.Switches}
}

// Add adds o to c.
func (c *Counters) Add(o Counters) {
	c.CPU += o.CPU
	c.Written += o.Written
	c.Writes += o.Writes
	c.Switches += o.Switches
}

// ReadCounters reads a process's counters.
func ReadCounters(pid int) (Counters, error) {
	var c Counters
	// clock_getcpuclockid(3): the kernel's number for the clock of a process,
	// in nanoseconds where /proc/PID/stat counts ticks.
	const cpuclockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &ts); err != nil {
		return c, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	c.CPU = time.Duration(ts.Nano())
	fields, err := numbers(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return c, err
	}
	c.Written, c.Writes = fields["write_bytes"], fields["syscw"]
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return c, err
	}
	for _, t := range threads {
		if fields, err := numbers(t); err == nil { // otherwise it has ended
			c.Switches += fields["voluntary_ctxt_switches"]
		}
	}
	return c, nil
}

// Memory is what a process occupies, in bytes.
type Memory struct {
	Resident  int64 `json:"resident"`  // VmRSS: RAM mapped by it, shared or not
	Peak      int64 `json:"peak"`      // VmHWM: the most that Resident ever was
	Share     int64 `json:"share"`     // Pss: shared pages counted in part
	Anonymous int64 `json:"anonymous"` // not backed by a file: heap and stacks
}

// ReadMemory reads what a process occupies now.
func ReadMemory(pid int) (Memory, error) {
	status, err := numbers(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	maps, err := numbers(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Memory{}, err
	}
	const kB = 1024
	return Memory{
		Resident: status["VmRSS"] * kB, Peak: status["VmHWM"] * kB,
		Share: maps["Pss"] * kB, Anonymous: maps["Anonymous"] * kB,
	}, nil
}

// numbers reads a file of lines "name: number …".
func numbers(path string) (map[string]int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := make(map[string]int64)
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		words := strings.Fields(rest)
		if !ok || len(words) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
			fields[name] = n
		}
	}
	return fields, nil
}
