// Package task keeps the log of a command's work where Proxmox VE's web interface looks
// for tasks, on hosts that have it.
package task

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"pmxcfs/cmd/internal/host"
)

const (
	dir = "/var/log/pve/tasks"
	// lockWait is how long the lists' lock is waited for. A list that isn't kept is no
	// reason to fail, nor to wait for long.
	lockWait = 2 * time.Second
)

// Run does work as a task of a type, whose output goes to the task's log, too. On a host
// without such logs it just does it. What goes wrong with the log is a warning.
func Run(h *host.Host, kind, id string, work func() error) error {
	t, err := begin(h, kind, id)
	if err != nil {
		h.Warnf("the task's log: %v", err)
	}
	if t == nil {
		return work()
	}
	stdout, stderr := h.Stdout, h.Stderr
	h.Stdout, h.Stderr = io.MultiWriter(stdout, t), io.MultiWriter(stderr, t)
	err = work()
	h.Stdout, h.Stderr = stdout, stderr
	if e := t.end(err); e != nil {
		h.Warnf("the task's log: %v", e)
	}
	return err
}

// task is one under way.
type task struct {
	h    *host.Host
	upid string

	mu       sync.Mutex
	log      *os.File
	err      error // of writing to the log
	warnings int
	rest     []byte // of a line
}

// begin makes the log, and enters the task into the list of those that run. Nil means this
// host has no such logs.
func begin(h *host.Host, kind, id string) (*task, error) {
	if info, err := os.Stat(h.Path(dir)); err != nil || !info.IsDir() {
		return nil, nil
	}
	now := h.Time().Unix()
	t := &task{h: h, upid: fmt.Sprintf("UPID:%s:%08X:%08X:%08X:%s:%s:root@pam:", h.Name, os.Getpid(), started(), now, kind, id)}
	digit := fmt.Sprintf("%X", now&15)
	at := filepath.Join(h.Path(dir), digit)
	if err := os.Mkdir(at, 0o755); err == nil {
		own(at)
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(at, t.upid), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	own(f.Name())
	t.log = f
	return t, t.list(func(lines []string) []string { return append(lines, t.upid+" 0") })
}

// started is when this process was, in clock ticks since the machine's start.
func started() uint64 {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	// The program's name, the second field, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}

// Write writes to the log, and counts warnings.
func (t *task) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rest = append(t.rest, p...)
	for {
		line, rest, whole := bytes.Cut(t.rest, []byte("\n"))
		if !whole {
			break
		}
		if bytes.HasPrefix(line, []byte("warning: ")) {
			t.warnings++
		}
		t.rest = append([]byte(nil), rest...)
	}
	if _, err := t.log.Write(p); err != nil && t.err == nil {
		t.err = err
	}
	return len(p), nil // the work goes on
}

// end closes the log with the outcome, and enters it into the lists.
func (t *task) end(outcome error) error {
	status, line := "OK", "TASK OK"
	switch {
	case outcome != nil:
		status = strings.Join(strings.Fields(outcome.Error()), " ")
		line = "TASK ERROR: " + status
	case t.warnings > 0:
		status = fmt.Sprintf("WARNINGS: %d", t.warnings)
		line = "TASK " + status
	}
	_, err := fmt.Fprintln(t.log, line)
	err = errors.Join(t.err, err, t.log.Close())
	ended := fmt.Sprintf("%08X %s", t.h.Time().Unix(), status)
	return errors.Join(err, t.list(func(lines []string) []string {
		for i, l := range lines {
			if strings.HasPrefix(l, t.upid+" ") {
				lines[i] = t.upid + " 1 " + ended
			}
		}
		f, err := os.OpenFile(t.h.Path(dir+"/index"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err == nil {
			own(f.Name())
			fmt.Fprintf(f, "%s %s\n", t.upid, ended)
			f.Close()
		}
		return lines
	}))
}

// list changes the list of tasks under the lock that Proxmox's programs take for it.
func (t *task) list(change func(lines []string) []string) error {
	lock, err := os.OpenFile(t.h.Path(dir+"/.active.lock"), os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer lock.Close()
	own(lock.Name())
	if err := host.FlockWithin(lock, lockWait); err != nil {
		return err
	}
	path := dir + "/active"
	text, err := t.h.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lines := change(strings.FieldsFunc(string(text), func(c rune) bool { return c == '\n' }))
	err = t.h.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o640)
	own(t.h.Path(path))
	return err
}

// own gives a file to the group and user that Proxmox's web server runs as, if they exist.
func own(path string) {
	u, err := user.Lookup("www-data")
	if err != nil || os.Geteuid() != 0 {
		return
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err1 == nil && err2 == nil {
		_ = os.Chown(path, uid, gid)
	}
}
