package task

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pmxcfs/cmd/internal/host"
)

func newHost(t *testing.T, logs bool) *host.Host {
	t.Helper()
	h := &host.Host{Root: t.TempDir(), Name: "node1", Stdout: io.Discard, Stderr: io.Discard, Now: func() time.Time { return time.Unix(0x6553F10B, 0) }}
	if logs {
		if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestATaskIsLoggedAndListed(t *testing.T) {
	for name, c := range map[string]struct {
		work   func(h *host.Host) error
		status string
	}{
		"done":     {func(*host.Host) error { return nil }, "OK"},
		"warnings": {func(h *host.Host) error { h.Warnf("one"); h.Warnf("two"); return nil }, "WARNINGS: 2"},
		"failed":   {func(h *host.Host) error { h.Warnf("one"); return errors.New("it\ncan't be") }, "it can't be"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, true)
			if err := os.WriteFile(h.Path(dir+"/active"), []byte("UPID:node1:0:0:0:other::root@pam: 0\n"), 0o640); err != nil {
				t.Fatal(err)
			}
			var upid string
			err := Run(h, "clusterjoin", "", func() error {
				h.Sayf("at work")
				text, err := h.ReadFile(dir + "/active")
				lines := strings.Split(string(text), "\n")
				if err != nil || len(lines) != 3 || !strings.HasSuffix(lines[1], " 0") {
					t.Errorf("active: %q, %v", text, err)
					return err
				}
				upid = strings.TrimSuffix(lines[1], " 0")
				return c.work(h)
			})
			if c.status == "it can't be" == (err == nil) {
				t.Errorf("the work's error became %v", err)
			}
			if !regexp.MustCompile(fmt.Sprintf(`^UPID:node1:%08X:[0-9A-F]{8}:6553F10B:clusterjoin::root@pam:$`, os.Getpid())).MatchString(upid) {
				t.Errorf("it is %q", upid)
			}
			log, err := h.ReadFile(dir + "/B/" + upid)
			end := "TASK " + c.status
			if name == "failed" {
				end = "TASK ERROR: " + c.status
			}
			if err != nil || !strings.HasPrefix(string(log), "at work\n") || !strings.HasSuffix(string(log), "\n"+end+"\n") {
				t.Errorf("the log is %q, %v", log, err)
			}
			if text, _ := h.ReadFile(dir + "/active"); string(text) != "UPID:node1:0:0:0:other::root@pam: 0\n"+upid+" 1 6553F10B "+c.status+"\n" {
				t.Errorf("active: %q", text)
			}
			if text, _ := h.ReadFile(dir + "/index"); string(text) != upid+" 6553F10B "+c.status+"\n" {
				t.Errorf("index: %q", text)
			}
			if info, err := os.Stat(h.Path(dir + "/B/" + upid)); err != nil || info.Mode() != 0o640 {
				t.Errorf("the log's mode: %v, %v", info, err)
			}
		})
	}
}

func TestAHostWithoutTaskLogsGetsNone(t *testing.T) {
	h := newHost(t, false)
	done := false
	if err := Run(h, "clustercreate", "lab", func() error { done = true; return nil }); err != nil || !done {
		t.Errorf("done: %v, %v", done, err)
	}
	if left, _ := filepath.Glob(h.Root + "/*"); len(left) > 0 {
		t.Errorf("made: %v", left)
	}
}

func TestALogThatCantBeWrittenStopsNothing(t *testing.T) {
	h := newHost(t, true)
	if err := os.WriteFile(h.Path(dir+"/B"), nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	var said strings.Builder
	h.Stderr = &said
	done := false
	if err := Run(h, "clustercreate", "lab", func() error { done = true; return nil }); err != nil || !done || !strings.Contains(said.String(), "the task's log") {
		t.Errorf("done: %v, %v, %s", done, err, &said)
	}
}
