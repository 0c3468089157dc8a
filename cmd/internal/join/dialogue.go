package join

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/plan"
)

// The dialogue: one JSON object a line, a question and an answer in turn. The cluster's
// side holds the lock for corosync.conf from the last check to the entry, and takes the entry
// back if the connection ends before it is confirmed and the node isn't online.
const (
	opHello   = "hello"
	opCheck   = "check"
	opEnter   = "enter"
	opConfirm = "confirm" // the node is a member: it gets its votes
	opAbort   = "abort"   // the node isn't going to be one
	opPing    = "ping"    // the node is still there
)

// dialogueVersion is raised when the dialogue changes.
const dialogueVersion = 1

// maxLine is the longest line of the dialogue, in bytes.
const maxLine = 4 << 20

// question is what the joining node says.
type question struct {
	Op      string   `json:"op"`
	Version int      `json:"version,omitempty"` // of the dialogue, with hello
	Request *Request `json:"request,omitempty"`
	// Hold: the lock stays taken after a check, since the entry follows at once.
	Hold bool `json:"hold,omitempty"`
}

// response is what the cluster's node says.
type response struct {
	Version  int             `json:"version,omitempty"`
	Facts    *Facts          `json:"facts,omitempty"`
	Problems []plan.Problem  `json:"problems,omitempty"`
	Answer   *cluster.Answer `json:"answer,omitempty"`
	Error    string          `json:"error,omitempty"`
	Code     plan.Code       `json:"code,omitempty"`
}

// err is the failure that a response tells of.
func (r response) err() error {
	if r.Error == "" {
		return nil
	}
	e := &plan.Error{Code: r.Code, Problems: r.Problems}
	if e.Code == 0 {
		e.Code = plan.Failed
	}
	if len(e.Problems) == 0 {
		e.Cause = errors.New(r.Error)
	}
	return e
}

// lines reads and writes the dialogue.
type lines struct {
	in  *bufio.Scanner
	out io.Writer
}

func newLines(in io.Reader, out io.Writer) *lines {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	return &lines{in: s, out: out}
}

func (l *lines) write(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = l.out.Write(append(text, '\n'))
	return err
}

// read reads the next line. io.EOF: the other side is gone.
func (l *lines) read(into any) error {
	if !l.in.Scan() {
		if err := l.in.Err(); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
		return io.EOF
	}
	return parseLine(l.in.Bytes(), into)
}

// parseLine reads a line of the dialogue.
func parseLine(line []byte, into any) error {
	if err := json.Unmarshal(line, into); err != nil {
		return fmt.Errorf("the other side doesn't speak the dialogue of joining: %w", err)
	}
	if q, ok := into.(*question); ok && q.Request != nil {
		return q.Request.valid()
	}
	return nil
}

// lockIdle is how long the cluster's side keeps its lock between the check and the
// entry, which comes at once.
const lockIdle = 30 * time.Second

const (
	// pingEvery is the time between two signs of life of a node that has entered, and
	// aliveLimit how long the cluster's side waits for one: a connection that is cut
	// doesn't end by itself.
	pingEvery  = 3 * time.Second
	aliveLimit = 20 * time.Second
	// idle is how long it waits before.
	idle = 10 * time.Minute
)
