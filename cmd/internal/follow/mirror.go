package follow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/corosync/cfg"
	"pmxcfs/corosync/conf"
	"pmxcfs/internal/event"
)

// confChange says what is to be done about the host's copy of corosync.conf.
type confChange struct {
	write   bool
	reload  bool // tell corosync afterwards
	version uint64
	mistake error // in the tree's copy, because of which corosync will refuse it

	refused string // why the tree's copy is kept from corosync; empty means it isn't

	note string // why the host's copy stays as it is, for the log; empty means nothing to say
}

// confCopies are the two copies, and who changed the tree's.
type confCopies struct {
	tree   []byte
	host   []byte
	exists bool // the host has one
	own    bool // the change was this node's

	unguarded bool // the tree's is given to corosync also if that would refuse it
}

// judge decides by the versions of the copies. The example of Debian's corosync
// package counts as no copy: it belongs to no cluster.
func (c confCopies) judge() confChange {
	version, err := conf.Version(c.tree)
	if err != nil {
		return confChange{note: "corosync.conf in the tree is not usable: " + err.Error()}
	}
	d := confChange{write: true, version: version}
	if c.exists && !c.unguarded {
		d.refused = conf.Objection(c.tree, c.host)
	}
	_, d.mistake = conf.Parse(c.tree)
	if !c.exists || conf.Example(c.host) {
		return d
	}
	if _, err := conf.Parse(c.host); err == nil && d.mistake != nil {
		// A file that corosync can start with is not replaced by one that it can't.
		d.write = false
		return d
	}
	if bytes.Equal(c.tree, c.host) {
		return confChange{version: version}
	}
	switch host, err := conf.Version(c.host); {
	case err != nil:
		return confChange{version: version, note: "local corosync.conf is not usable: " + err.Error()}
	case host > version:
		return confChange{version: version, refused: d.refused, note: fmt.Sprintf("local corosync.conf is newer (version = %d, the tree's: %d)", host, version)}
	}
	if d.refused != "" {
		d.write = false
		return d
	}
	d.reload = c.own
	return d
}

// Mirror keeps the host's copy of corosync.conf like the tree's. One
// goroutine does it all; who reports a change doesn't wait.
type Mirror struct {
	path   string
	read   func() ([]byte, bool) // the tree's copy
	reload func() error
	settle time.Duration // between a new copy and the reload
	log    *slog.Logger

	Version atomic.Uint64 // of the tree's copy; 0 means none, or not looked at yet
	Refused atomic.Bool   // the tree's copy is kept from corosync

	// Unguarded gives corosync every copy, also one that it would refuse. It is set before
	// Run.
	Unguarded bool

	kick chan struct{} // capacity 1
	mu   sync.Mutex    // guards own
	own  bool
}

// confSettle gives all nodes time to have the new copy before corosync reads it.
const confSettle = time.Second

// NewMirror returns a mirror whose run does nothing before the first changed.
func NewMirror(path string, read func() ([]byte, bool), log *slog.Logger) *Mirror {
	return &Mirror{path: path, read: read, reload: reloadCorosync, settle: confSettle, log: log, kick: make(chan struct{}, 1)}
}

// changed has the copies compared; own tells that this node made a change. It
// doesn't block.
func (m *Mirror) Changed(own bool) {
	m.mu.Lock()
	m.own = m.own || own
	m.mu.Unlock()
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// run works until ctx is done.
func (m *Mirror) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.kick:
		}
		m.mu.Lock()
		own := m.own
		m.own = false
		m.mu.Unlock()
		if m.update(own) && pause(ctx, m.settle) {
			if err := m.reloadSoon(ctx); err != nil {
				m.log.Error("corosync could not reload its configuration", "error", err, event.ConfFailed.Attr("path", m.path))
			}
		}
	}
}

// reloadFor is how long a corosync that is busy, or away, is asked again to reload, every
// reloadRetry.
const (
	reloadFor   = 10 * time.Second
	reloadRetry = 500 * time.Millisecond
)

// reloadSoon has corosync reload: it refuses while its membership changes.
func (m *Mirror) reloadSoon(ctx context.Context) error {
	until := time.Now().Add(reloadFor)
	for {
		err := m.reload()
		busy := errors.Is(err, corosync.ErrTryAgain) || errors.Is(err, corosync.ErrConnectionLost)
		if !busy || time.Now().After(until) || !pause(ctx, reloadRetry) {
			return err
		}
	}
}

// update brings the host's copy up to date and tells whether corosync is to be
// told.
func (m *Mirror) update(own bool) (reload bool) {
	tree, ok := m.read()
	version, err := conf.Version(tree)
	if !ok || err != nil {
		version = 0
	}
	m.Version.Store(version)
	if !ok {
		return false
	}
	host, err := os.ReadFile(m.path)
	exists := !errors.Is(err, fs.ErrNotExist)
	if err != nil && exists {
		m.log.Error("reading the local corosync.conf", "error", err, event.ConfFailed.Attr("path", m.path))
		return false
	}
	d := confCopies{tree: tree, host: host, exists: exists, own: own, unguarded: m.Unguarded}.judge()
	m.refuse(d, tree)
	if d.mistake != nil && d.refused == "" {
		m.log.Error("corosync.conf in the tree can't be parsed, and corosync can't start with it",
			"error", d.mistake, "replaces_local", d.write, event.ConfFailed.Attr("path", m.path, "version", d.version))
	}
	if d.note != "" {
		m.log.Warn(d.note, "path", m.path, event.ConfIgnored.Attr("version", d.version))
	}
	if !d.write {
		return false
	}
	if err := replaceFile(m.path, tree); err != nil {
		m.log.Error("writing the local corosync.conf", "error", err, event.ConfFailed.Attr("path", m.path, "version", d.version))
		return false
	}
	m.log.Log(context.Background(), event.LevelNotice, fmt.Sprintf("wrote new corosync config '%s' (version = %d)", m.path, d.version),
		event.ConfWritten.Attr("path", m.path, "version", d.version))
	return d.reload
}

// refusedSuffix is that of the file beside the host's corosync.conf that holds what was
// kept from corosync.
const refusedSuffix = ".refused"

// refuse keeps a copy that corosync must not get beside the host's, and removes what is
// left of an earlier one.
func (m *Mirror) refuse(d confChange, tree []byte) {
	path := m.path + refusedSuffix
	m.Refused.Store(d.refused != "")
	if d.refused == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("removing a corosync.conf that was refused", "error", err)
		}
		return
	}
	if err := replaceFile(path, tree); err != nil {
		m.log.Warn("keeping a corosync.conf that is refused", "error", err)
	}
	if d.note == "" {
		m.log.Error("corosync.conf of the tree is not given to corosync, which goes on with what it has: "+d.refused,
			"kept", path, event.ConfRefused.Attr("path", m.path, "version", d.version, "error", d.refused))
	}
}

// replaceFile gives a file a new content, mode 0644, root's if this process is:
// after a crash of this process or the machine there is the old content or the
// new one.
func replaceFile(path string, content []byte) error {
	dir, base := filepath.Split(path)
	// One name, so that what a crash left is written over.
	tmp := filepath.Join(dir, "."+base+".pmxcfs-new")
	err := writeSynced(tmp, content)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSynced(path string, content []byte) error {
	// Not through whatever stands there.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && os.Geteuid() == 0 {
		err = f.Chown(0, 0)
	}
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// reloadCorosync has corosync read its configuration again, on all nodes.
func reloadCorosync() error {
	c, err := cfg.Open()
	if err != nil {
		return err
	}
	return errors.Join(c.ReloadConfig(), c.Close())
}
