package diagnosis

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

// lockDaemon answers for a daemon with one lock, as its documents say.
type lockDaemon struct {
	mu      sync.Mutex // guards what follows
	quorate bool
	lock    inspect.Lock
	looks   int                                // at the locks
	looked  func(n int, l *inspect.Lock) error // changes the lock before the nth look; an error: it is gone
}

func (d *lockDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var document any = &inspect.Status{Mode: inspect.ModeCluster, Cluster: &inspect.Cluster{Quorate: d.quorate}}
	if r.URL.Path == inspect.PathLocks {
		d.looks++
		locks := &inspect.Locks{Locks: []inspect.Lock{}}
		if d.looked == nil || d.looked(d.looks, &d.lock) == nil {
			locks.Locks = append(locks.Locks, d.lock)
		}
		document = locks
	} else {
		document.(*inspect.Status).Daemon.MountPoint = d.lock.Holder // where the test has put it
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(document)
}

var errGone = errors.New("gone")

// TestBreakLock has a lock change at the worst moments.
func TestBreakLock(t *testing.T) {
	renew := func(at int) func(int, *inspect.Lock) error {
		return func(n int, l *inspect.Lock) error {
			if n == at {
				l.Version, l.Expired = l.Version+1, false
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name    string
		daemon  *lockDaemon
		want    string // of the error; empty: it is broken
		removed bool
	}{
		{"a living one", &lockDaemon{quorate: true}, "", true},
		{"an expired one", &lockDaemon{quorate: true, lock: inspect.Lock{Expired: true}, looked: func(n int, _ *inspect.Lock) error {
			if n == 3 {
				return errGone
			}
			return nil
		}}, "", false},
		{"without quorum", &lockDaemon{}, "no quorum", false},
		{"expired, without quorum", &lockDaemon{lock: inspect.Lock{Expired: true}}, "no quorum", false},
		{"renewed before", &lockDaemon{quorate: true, lock: inspect.Lock{Expired: true}, looked: renew(1)}, "left alone", false},
		{"renewed meanwhile", &lockDaemon{quorate: true, lock: inspect.Lock{Expired: true}, looked: renew(3)}, "left alone", false},
		{"gone before", &lockDaemon{quorate: true, looked: func(int, *inspect.Lock) error { return errGone }}, "no lock", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mount, d := t.TempDir(), tt.daemon
			d.lock.Name, d.lock.Version, d.lock.Holder = "a", 7, mount
			dir := filepath.Join(mount, memdb.LockDir, "a")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: d, ReadHeaderTimeout: time.Second}
			done := make(chan struct{})
			go func() { defer close(done); server.Serve(l) }()
			defer func() { server.Close(); <-done }()
			seen := d.lock
			err = (&Host{Socket: socket, MountPoint: "/nowhere"}).BreakLock(t.Context(), &seen)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			st, err := os.Stat(dir)
			if gone := errors.Is(err, fs.ErrNotExist); gone != tt.removed {
				t.Errorf("removed: %v, want %v", gone, tt.removed)
			}
			if broken := err == nil && st.ModTime().Unix() == 0; broken != (strings.HasPrefix(tt.name, "an expired") || tt.name == "renewed meanwhile") {
				t.Errorf("its time is set to zero: %v", broken)
			}
		})
	}
}
