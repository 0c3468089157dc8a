package diagnosis

import "fmt"

// Severity says how bad a finding is.
type Severity string

// The severities, from none to worst. Errors are what keeps a node from doing its
// work, warnings what will, or what another node suffers from.
const (
	OK      Severity = "ok"
	Info    Severity = "info"
	Warning Severity = "warning"
	Failure Severity = "error"
)

// Finding is something that was found, good or bad.
type Finding struct {
	Check    string   `json:"check"` // what was looked at
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy,omitempty"`
}

// findings collects them.
type findings struct {
	check string
	list  []Finding
}

func (f *findings) add(s Severity, remedy, format string, args ...any) {
	f.list = append(f.list, Finding{f.check, s, fmt.Sprintf(format, args...), remedy})
}

// Exit statuses of the commands that judge.
const (
	ExitFine      = 0 // nothing that needs attention
	ExitUnknown   = 1 // it could not be found out, or the command was used wrongly
	ExitAttention = 2 // there are warnings
	ExitBroken    = 3 // there are errors
)

// Exit is the exit status for findings.
func Exit(list []Finding) int {
	status := ExitFine
	for _, f := range list {
		switch f.Severity {
		case Failure:
			return ExitBroken
		case Warning:
			status = ExitAttention
		}
	}
	return status
}
