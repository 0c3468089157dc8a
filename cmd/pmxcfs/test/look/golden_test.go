package look

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
)

var update = flag.Bool("update", false, "write the frozen outputs anew")

// look runs a command on a node's host, and returns what it writes and its status.
func look(n *labtest.Node, args ...string) (out string, status int) {
	n.T.Helper()
	var b bytes.Buffer
	p, err := n.Host.Start(lab.Spec{Args: append([]string{labtest.Program()}, args...), Stdout: &b, Stderr: &b})
	n.Must(err)
	err = p.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		status = e.ExitCode()
	} else {
		n.Must(err)
	}
	return b.String(), status
}

// volatile is what differs from run to run, and what stands for it.
var volatile = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`last changed TIME by node ?\d+`), "last changed TIME by NODE"},
	{regexp.MustCompile(`\bpid \d+`), "pid N"},
	{regexp.MustCompile(`\[\d+\]`), "[N]"},
	{regexp.MustCompile(`\b\d+ (s|min) ago`), "AGO"},
	{regexp.MustCompile(`\b(in|for) \d+ (s|min)\b`), "$1 TIME"},
	{regexp.MustCompile(`\b\d+ s  +in`), "TIME in"},
	{regexp.MustCompile(`version \d+, last changed`), "version V, last changed"},
	{regexp.MustCompile(`sound: version \d+`), "sound: version V"},
	{regexp.MustCompile(`\d+(\.\d)? (B|KiB|MiB|GiB)\b`), "SIZE"},
	{regexp.MustCompile(`\b\d+ entries`), "N entries"},
	{regexp.MustCompile(`\b(synced|start|start-sync) +\d+\b`), "$1 V"},
	{regexp.MustCompile(`\b\d+ changes? since TIME; SIZE(; \d+ gaps?)?`), "N changes since TIME; SIZE"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "DIGEST"},
	{regexp.MustCompile(`/\d+/`), "/N/"},
	{regexp.MustCompile(` +`), " "}, // columns are as wide as their content
	{regexp.MustCompile(`(?m) +$`), ""},
}

func normalised(out string) string {
	for _, v := range volatile {
		out = v.what.ReplaceAllString(out, v.by)
	}
	return out
}

// clock is what doctor says of the machine's clock, which may be synchronised or not.
var clock = regexp.MustCompile(`(?m)^\w+ clock .*\n( → .*\n)?`)

// withoutClock leaves out of doctor's findings what is said of the clock, and the verdict at
// their end, which must be that of the worst finding. It returns the status that belongs to it.
func withoutClock(n *labtest.Node, out string) (findings string, status int) {
	n.T.Helper()
	findings, verdict, _ := strings.Cut(out, "\n\n")
	want := "fine"
	for line := range strings.Lines(findings) {
		switch {
		case strings.HasPrefix(line, "error "):
			want, status = "broken", 3
		case strings.HasPrefix(line, "warning ") && status == 0:
			want, status = "degraded", 2
		}
	}
	if strings.TrimSpace(verdict) != want {
		n.T.Errorf("the verdict is %q, want %q, on\n%s", verdict, want, findings)
	}
	return clock.ReplaceAllString(findings+"\n", ""), status
}

// want waits until a command ends with a status and writes what is frozen under a
// name, but for what is volatile.
func want(n *labtest.Node, name string, status int, args ...string) {
	n.T.Helper()
	wantJudged(n, name, func(out string) (string, int) { return out, status }, args...)
}

// wantDoctor is want for doctor, whose status is that of its verdict.
func wantDoctor(n *labtest.Node, name string) {
	n.T.Helper()
	wantJudged(n, name, func(out string) (string, int) { return withoutClock(n, out) }, "doctor")
}

// wantJudged is want for a command of whose output judge gives what is frozen, and the status that
// belongs to it.
func wantJudged(n *labtest.Node, name string, judge func(out string) (frozen string, status int), args ...string) {
	n.T.Helper()
	path := filepath.Join("testdata", name+".txt")
	before := "" // with -update
	n.Eventually(fmt.Sprintf("%v is as in %s", args, path), func() error {
		out, got := look(n, args...)
		out, status := judge(normalised(withoutRecent(out)))
		if *update {
			if got != status {
				return fmt.Errorf("status %d, want %d; it writes\n%s", got, status, out)
			}
			// Whatever is only passing must not be frozen.
			if out != before {
				before = out
				time.Sleep(2 * time.Second)
				return errors.New("it may still change")
			}
			return os.WriteFile(path, []byte(out), 0o644)
		}
		frozen, err := os.ReadFile(path)
		n.Must(err)
		if got != status || out != string(frozen) {
			return fmt.Errorf("status %d, want %d; it writes\n%s\nfrozen is\n%s", got, status, out, frozen)
		}
		return nil
	})
}

// withoutRecent leaves out the list of recent warnings: which connection fails first
// is not always the same.
func withoutRecent(out string) string {
	before, list, ok := strings.Cut(out, "\nRecent warnings and errors of the daemon\n")
	if !ok {
		return out
	}
	_, after, more := strings.Cut(list, "\n\n")
	if more {
		after = "\n" + after
	}
	return before + after
}

// document runs a command with --json and takes what it writes apart.
func document[D any](n *labtest.Node, args ...string) (d D, status int) {
	n.T.Helper()
	out, status := look(n, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		n.T.Fatalf("%s: %v: %v: %s", n, args, err, out)
	}
	return d, status
}

// only ends the test unless the output holds all texts.
func only(t testing.TB, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("there is no %q in\n%s", text, out)
		}
	}
}
