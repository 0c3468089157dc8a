package diagnosis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"pmxcfs/fuse"
	"pmxcfs/status/inspect"
)

// Host is where to look, and how to ask what the program that looks knows better.
type Host struct {
	MountPoint                              string // of a daemon that answers: what it says, as Database
	Database, LockFile, RunDir, PidFile     string
	CorosyncConf, RRDDir, RRDSocket, Socket string

	Version string // of this program
	Group   string // that may read all but private files
	// Discreet leaves out what must not leave the host: names below priv.
	Discreet bool
	// WithLogs has a report take the texts of logs in, of which nobody knows what is in
	// them.
	WithLogs bool
	// NodeName and Address find out what a daemon would call this node, and what
	// its name resolves to.
	NodeName func() (string, error)
	Address  func(name string) (string, error)
	// Corosync asks corosync; it may hang.
	Corosync func() (*Corosync, error)
	// ReadDatabase reads a database's file.
	ReadDatabase func(path string) (*Offline, error)
	// SystemRoot is the directory below which the files of Proxmox VE are; empty: /.
	SystemRoot string
	// Units asks the service manager; nil: there is none to ask.
	Units func(names []string) ([]Unit, error)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

func (h *Host) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

// Corosync is what corosync says.
type Corosync struct {
	Error  string         `json:"error,omitempty"` // why it says nothing; the rest is empty then
	Name   string         `json:"cluster_name"`
	Config uint64         `json:"config_version"` // it runs with
	Self   uint32         `json:"self"`           // this node's id
	Quorum *Quorum        `json:"quorum,omitempty"`
	Nodes  []CorosyncNode `json:"nodes"`
}

// Quorum is what its quorum service says.
type Quorum struct {
	Quorate  bool   `json:"quorate"`
	Votes    int    `json:"votes"`    // that are there
	Expected int    `json:"expected"` // if all are there
	Needed   int    `json:"needed"`
	TwoNode  bool   `json:"two_node"`
	WaitAll  bool   `json:"wait_for_all"`
	Device   string `json:"quorum_device,omitempty"`
}

// CorosyncNode is a node of its nodelist.
type CorosyncNode struct {
	ID      uint32 `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Votes   int    `json:"votes"`
	State   string `json:"state"` // "member", "dead", "leaving" or "unknown"
}

// Offline is what can be seen of a database without its daemon.
type Offline struct {
	Missing  bool      `json:"missing"` // there is none
	Version  uint64    `json:"version"`
	Changed  time.Time `json:"changed"`
	Entries  int       `json:"entries"`
	Cluster  bool      `json:"cluster"` // it has a corosync.conf
	Conf     uint64    `json:"corosync_conf_version"`
	Problems []string  `json:"problems,omitempty"` // that keep the daemon from starting
	Odd      []string  `json:"odd,omitempty"`      // that don't
	Error    string    `json:"error,omitempty"`    // why it can't be read; the rest is empty then
}

// askTime is how long anything may take that can hang.
const askTime = 3 * time.Second

var errHangs = errors.New("no answer in time")

// within runs a function that may hang.
func within[T any](d time.Duration, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-t.C:
		var none T
		return none, fmt.Errorf("%w (%v)", errHangs, d)
	}
}

// abandonAfter is how long a function may take that is to end.
const abandonAfter = time.Second

// Abandonable runs a function that may hang and returns its error; or that of ctx, a
// moment after that is done. What the function does then is nobody's affair: the process
// is about to end.
func Abandonable(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(abandonAfter):
		return ctx.Err()
	}
}

// Daemon is the daemon as it is seen from outside.
type Daemon struct {
	Answers bool   `json:"answers"`
	Error   string `json:"error,omitempty"` // why it does not
	PID     int    `json:"pid"`             // that it tells, or else the pid file; 0: none
	Running bool   `json:"running"`         // it answers, or a process of that id is there
	Locked  bool   `json:"locked"`          // somebody holds the lock file
}

// daemon looks for a daemon's traces.
func (h *Host) daemon() (d Daemon) {
	if b, err := os.ReadFile(h.PidFile); err == nil {
		d.PID, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	d.Running = d.PID > 0 && isDaemon(d.PID)
	d.Locked = locked(h.LockFile)
	return d
}

// isDaemon tells whether a process is there and could be one: its program has the
// name, or it was called by that.
func isDaemon(pid int) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	exe, _ := os.Readlink(filepath.Join(dir, "exe"))
	called, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	name, _, _ := strings.Cut(string(called), "\x00")
	return strings.Contains(filepath.Base(exe), "pmxcfs") || strings.Contains(filepath.Base(name), "pmxcfs")
}

// locked tells whether somebody holds a lock on a file. A shared lock that is held
// for a moment is in nobody's way: who wants it tries again.
func locked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Mount is what is at the mount point.
type Mount struct {
	Path    string `json:"path"`
	Mounts  int    `json:"mounts"` // FUSE mounts, one above the other
	Answers bool   `json:"answers"`
	Error   string `json:"error,omitempty"`
}

func (h *Host) mount() Mount {
	m := Mount{Path: h.MountPoint}
	dir, err := fuse.Resolve(h.MountPoint)
	mounts := 0
	if err == nil {
		mounts, err = fuseMounts(dir)
	}
	m.Mounts = mounts
	if err == nil {
		_, err = within(askTime, func() (struct{}, error) {
			_, err := os.Lstat(filepath.Join(h.MountPoint, ".version"))
			if mounts == 0 && errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return struct{}{}, err
		})
	}
	m.Answers = err == nil && mounts > 0
	if err != nil {
		m.Error = err.Error()
	}
	return m
}

// fuseMounts counts the FUSE mounts on a directory, given without symbolic links, and asks nothing of them.
func fuseMounts(dir string) (n int, err error) {
	list, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Mountpoint != dir || !strings.HasPrefix(m.FSType, "fuse"), false
	})
	return len(list), err
}

// ask asks the daemon for something.
func ask[D any](ctx context.Context, h *Host, what func(*inspect.Client, context.Context) (*D, error)) (*D, error) {
	if h.Socket == "" {
		return nil, fmt.Errorf("%w: it has no socket (option --socket)", inspect.ErrNoAnswer)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return what(inspect.NewClient(h.Socket), ctx)
}
