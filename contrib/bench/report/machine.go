package report

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine says where and when a run took place, and what else went on there.
type Machine struct {
	Kernel string    `json:"kernel"`
	CPU    string    `json:"cpu"`
	CPUs   int       `json:"cpus"`
	Go     string    `json:"go"`
	Began  time.Time `json:"began"`
	Took   float64   `json:"took_seconds"`

	// Others is the share of all CPUs that was used by processes that are not
	// part of the benchmark, or taken away by the hypervisor.
	Others float64 `json:"used_by_others"`
	// Rounds is how often each measurement was made.
	Rounds int `json:"rounds"`
}

const (
	// leastRounds is how many a median is worth something of.
	leastRounds = 3
	// mostOthers is how much of the CPUs others may use.
	mostOthers = 0.10
)

// doubt tells why what was measured there does not say whether a goal is met; empty means it
// does.
func (m *Machine) doubt() string {
	switch {
	case m.Others > mostOthers:
		return fmt.Sprintf("others used %.0f %% of the CPUs, and may use %.0f %%", 100*m.Others, 100*mostOthers)
	case m.Rounds < leastRounds:
		return fmt.Sprintf("%s, and %d are needed", plural(m.Rounds, "round"), leastRounds)
	}
	return ""
}

// ThisMachine describes the machine.
func ThisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), Began: time.Now().UTC().Truncate(time.Second)}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}
