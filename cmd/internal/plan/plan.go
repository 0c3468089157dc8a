// Package plan holds what pvecm finds out before it changes anything: problems, each
// with what to do about it, and the exit statuses that scripts rely on.
package plan

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Code is an exit status.
type Code int

const (
	Done       Code = 0 // or there was nothing to do
	Failed     Code = 1 // failed, and undone
	NotQuorate Code = 2
	Parameters Code = 3
	Refused    Code = 4 // by a check, before anything was changed
	Trust      Code = 5 // login, password, certificate or host key
	Timeout    Code = 6
	NotUndone  Code = 7 // failed, and something of it stays
)

// Problem is a reason not to go on.
type Problem struct {
	Kind   string `json:"kind"` // a word, which --force=KIND names
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // what to do about it
	// Warning: it stops nothing.
	Warning bool `json:"warning,omitempty"`
	Code    Code `json:"-"` // 0 counts as Refused
	// Hard: force doesn't help.
	Hard bool `json:"-"`
}

func (p Problem) String() string {
	if p.Remedy == "" {
		return p.Text
	}
	return p.Text + " (" + p.Remedy + ")"
}

// Report collects problems and what will be done. The zero value is ready for use.
type Report struct {
	Problems []Problem `json:"problems"`
	Steps    []string  `json:"steps"`
}

// Add adds a problem.
func (r *Report) Add(p Problem) { r.Problems = append(r.Problems, p) }

// Stop adds a problem that force doesn't help against.
func (r *Report) Stop(kind, remedy, format string, args ...any) {
	r.Add(Problem{Kind: kind, Text: fmt.Sprintf(format, args...), Remedy: remedy, Hard: true})
}

// Refuse adds a problem.
func (r *Report) Refuse(kind, remedy, format string, args ...any) {
	r.Add(Problem{Kind: kind, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Warn adds a warning.
func (r *Report) Warn(kind, remedy, format string, args ...any) {
	r.Add(Problem{Kind: kind, Text: fmt.Sprintf(format, args...), Remedy: remedy, Warning: true})
}

// Step adds something that will be done.
func (r *Report) Step(format string, args ...any) {
	r.Steps = append(r.Steps, fmt.Sprintf(format, args...))
}

// Force makes warnings of the problems of some kinds. "all" means every kind.
func (r *Report) Force(kinds ...string) {
	for i, p := range r.Problems {
		if !p.Hard && (slices.Contains(kinds, p.Kind) || slices.Contains(kinds, "all")) {
			r.Problems[i].Warning = true
		}
	}
}

// Warnings are the problems that stop nothing.
func (r *Report) Warnings() (list []Problem) {
	for _, p := range r.Problems {
		if p.Warning {
			list = append(list, p)
		}
	}
	return list
}

// WriteWarnings writes them a line each.
func (r *Report) WriteWarnings(w io.Writer) {
	for _, p := range r.Warnings() {
		fmt.Fprintf(w, "warning: %s\n", p)
	}
}

// Err returns all problems as one *Error; nil: there are none.
func (r *Report) Err() error {
	e := &Error{}
	for _, p := range r.Problems {
		if p.Warning {
			continue
		}
		e.Problems = append(e.Problems, p)
		if p.Code != 0 && (e.Code == 0 || e.Code == p.Code) {
			e.Code = p.Code
		}
	}
	if len(e.Problems) == 0 {
		return nil
	}
	if e.Code == 0 {
		e.Code = Refused
	}
	return e
}

// Error is a failure with an exit status.
type Error struct {
	Code     Code
	Problems []Problem
	Cause    error
}

func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if e.Cause != nil {
		lines = append(lines, e.Cause.Error())
	}
	return strings.Join(lines, "\n")
}

func (e *Error) Unwrap() error { return e.Cause }

// Kinds are the kinds of an error's problems.
func Kinds(err error) (list []string) {
	var e *Error
	if errors.As(err, &e) {
		for _, p := range e.Problems {
			list = append(list, p.Kind)
		}
	}
	return list
}

// Errorf is an error with an exit status.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Cause: fmt.Errorf(format, args...)}
}

// Fail is one problem as an error.
func Fail(code Code, kind, remedy, format string, args ...any) error {
	return &Error{Code: code, Problems: []Problem{{Kind: kind, Text: fmt.Sprintf(format, args...), Remedy: remedy, Code: code}}}
}

// CodeOf returns the exit status of an error: Failed if it carries none.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return Done
	case errors.As(err, &e) && e.Code != 0:
		return e.Code
	}
	return Failed
}
