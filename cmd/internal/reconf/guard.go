package reconf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/cmd/internal/quorumtool"
	"pmxcfs/corosync/cfg"
	"pmxcfs/corosync/conf"
)

const (
	pledgeFile = "/var/lib/pve-cluster/config-guard.json"
	guardLog   = "/run/pvecm-config-guard.log"
	guardLock  = "/run/pvecm-config-guard.lock" // of the pledge, while it is replaced or ended
	unitName   = "pvecm-config-guard.service"
	unitFile   = "/etc/systemd/system/" + unitName
	// historyDir holds the texts that were in force before, by their version, and the word
	// that a change is good.
	historyDir    = host.Mount + "/priv/corosync.conf.d"
	confirmedFile = historyDir + "/confirmed"

	guardPoll = 250 * time.Millisecond
	// lostLimit is how long a node may have no quorum after a change before it goes back:
	// long enough for a new membership, and far from what high availability takes for a
	// dead node (60 s).
	lostLimit = 15 * time.Second
	// restoreLimit is how long a guard tries.
	restoreLimit = 10 * time.Minute
)

// unit runs the guard. It is enabled, since the pledge holds beyond a power cut.
const unit = `[Unit]
Description=Takes a change of corosync.conf back unless it is confirmed
Documentation=man:pvecm(1)
After=pve-cluster.service corosync.service
ConditionPathExists=` + pledgeFile + `

[Service]
Type=exec
ExecStart=/usr/bin/pvecm config-guard wait

[Install]
WantedBy=multi-user.target
`

// Pledge is what a node keeps while a change is on trial.
type Pledge struct {
	ID       string    `json:"id"`
	Version  uint64    `json:"config_version"` // of the new text
	Old      string    `json:"old"`            // the text to go back to
	Deadline time.Time `json:"deadline"`       // by this host's clock
	// Limit is the time until the deadline, for the node that is asked to keep it.
	Limit time.Duration `json:"limit,omitempty"`
}

// back is the old text with a version.
func (p *Pledge) back(version uint64) ([]byte, error) { return withVersion([]byte(p.Old), version) }

// withVersion gives a configuration a version.
func withVersion(text []byte, version uint64) ([]byte, error) {
	f, err := conf.Read(text)
	if err != nil {
		return nil, err
	}
	if err := f.Set(f.Section("totem"), "config_version", strconv.FormatUint(version, 10)); err != nil {
		return nil, err
	}
	return f.Text(), nil
}

// readPledge returns the pledge of this host; nil means there is none.
func readPledge(h *host.Host) (*Pledge, error) {
	text, err := h.ReadFile(pledgeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var p Pledge
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("%s: %w", h.Path(pledgeFile), err)
	}
	return &p, nil
}

func (p *Pledge) write(h *host.Host) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return h.WriteFile(pledgeFile, append(text, '\n'), 0o600)
}

// Arm has this host keep a pledge, and starts its guard.
func Arm(ctx context.Context, h *host.Host, p *Pledge) error {
	return exclusively(ctx, h, func() error { return arm(ctx, h, p) })
}

func arm(ctx context.Context, h *host.Host, p *Pledge) error {
	if there, err := readPledge(h); err != nil {
		return err
	} else if there != nil && h.Time().Before(there.Deadline) && !there.confirmed(h) {
		return plan.Fail(plan.Refused, "on-trial", "wait until it is over", "another change of corosync.conf is on trial here until %s", there.Deadline.Format(time.TimeOnly))
	}
	if _, err := p.back(p.Version); err != nil {
		return err
	}
	p.Deadline, p.Limit = h.Time().Add(p.Limit), 0
	if err := p.write(h); err != nil {
		return err
	}
	if h.Exists("/run/systemd/system") {
		if err := h.WriteFile(unitFile, []byte(unit), 0o644); err != nil {
			return err
		}
		for _, args := range [][]string{{"daemon-reload"}, {"enable", "--quiet", unitName}, {"restart", unitName}} {
			if _, err := h.Output(ctx, append([]string{"systemctl"}, args...)...); err != nil {
				return err
			}
		}
		return nil
	}
	return detach(h)
}

// detach starts the guard as a process of its own.
func detach(h *host.Host) error {
	log, err := os.OpenFile(h.Path(guardLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, "config-guard", "wait")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// Due has this host's guard go back at once, unless the change has been confirmed.
func Due(h *host.Host, id string) error {
	p, err := readPledge(h)
	if err != nil || p == nil || p.ID != id {
		return err
	}
	p.Deadline = h.Time()
	return p.write(h)
}

// exclusively does something while no other process of this host replaces or ends a pledge.
func exclusively(ctx context.Context, h *host.Host, do func() error) error {
	lock, err := os.OpenFile(h.Path(guardLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := host.FlockFile(ctx, lock); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return do()
}

// forget ends a pledge, unless another one has taken its place.
func (p *Pledge) forget(ctx context.Context, h *host.Host) error {
	return exclusively(ctx, h, func() error {
		there, err := readPledge(h)
		if err != nil || there == nil || there.ID != p.ID {
			return err
		}
		return forget(ctx, h)
	})
}

func forget(ctx context.Context, h *host.Host) error {
	err := os.Remove(h.Path(pledgeFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if h.Exists(unitFile) {
		_, e := h.Output(ctx, "systemctl", "disable", "--quiet", unitName)
		err = errors.Join(err, e, os.Remove(h.Path(unitFile)))
	}
	return err
}

// guard waits for what becomes of a change.
type guard struct {
	h *host.Host
	p *Pledge

	// The following are for tests.
	reload func() error
	loaded func() (uint64, error) // the version that corosync has
	active func(ctx context.Context) bool
	poll   time.Duration
	lost   time.Duration
}

// Wait is the guard: it returns when the change is confirmed or taken back.
func Wait(ctx context.Context, h *host.Host) error {
	p, err := readPledge(h)
	if err != nil || p == nil {
		return err
	}
	g := &guard{h: h, p: p, reload: reloadCorosync, loaded: loadedVersion, poll: guardPoll, lost: lostLimit, active: func(ctx context.Context) bool {
		return h.Do(ctx, host.Command{Args: []string{"systemctl", "is-active", "--quiet", "corosync"}}) == nil
	}}
	return g.run(ctx)
}

func reloadCorosync() error {
	c, err := cfg.Open()
	if err != nil {
		return err
	}
	return errors.Join(c.ReloadConfig(), c.Close())
}

func loadedVersion() (uint64, error) {
	s, err := quorumtool.Read()
	if err != nil {
		return 0, err
	}
	return s.Version, nil
}

func (g *guard) run(ctx context.Context) error {
	h := g.h
	good := h.Time()
	for {
		p, err := readPledge(h)
		if err != nil || p == nil || p.ID != g.p.ID {
			return err // it is over, or another one's guard sees to it
		}
		g.p = p
		now := h.Time()
		tree := g.treeVersion()
		switch behind := h.Quorate() && tree > p.Version; {
		case g.confirmed(), behind && (g.hasLoaded(tree) || !now.Before(p.Deadline)):
			return g.p.forget(ctx, h)
		case behind: // the others have gone back, and corosync here hasn't heard of it yet
			if err := pause(ctx, lookEvery); err != nil {
				return err
			}
			continue
		}
		if h.Quorate() || !g.changed() {
			good = now
		}
		if !now.Before(p.Deadline) || now.Sub(good) > g.lost {
			break
		}
		if err := pause(ctx, g.poll); err != nil {
			return err // the pledge stays
		}
	}
	if !g.changed() {
		return g.p.forget(ctx, h)
	}
	h.Sayf("%s: version %d of corosync.conf is not confirmed: going back to the text before it", h.Time().Format(time.DateTime), g.p.Version)
	if err := g.restore(ctx); err != nil {
		return err
	}
	h.Sayf("%s: done", h.Time().Format(time.DateTime))
	return g.p.forget(ctx, h)
}

func (g *guard) confirmed() bool { return g.p.confirmed(g.h) }

// confirmed tells whether the change has been found good. Its guard may not have noticed yet.
func (p *Pledge) confirmed(h *host.Host) bool {
	text, err := h.ReadFile(confirmedFile)
	return err == nil && strings.TrimSpace(string(text)) == p.ID
}

// treeVersion is that of the tree's corosync.conf; 0 means it can't be told.
func (g *guard) treeVersion() uint64 { return versionOf(g.h, host.ClusterConf) }

// changed tells whether this host has got the change, or a later one.
func (g *guard) changed() bool {
	return max(g.treeVersion(), versionOf(g.h, host.CorosyncConf)) >= g.p.Version
}

func versionOf(h *host.Host, path string) uint64 {
	text, err := h.ReadFile(path)
	if err != nil {
		return 0
	}
	v, err := conf.Version(text)
	if err != nil {
		return 0
	}
	return v
}

// restore goes back. With quorum that is a change of the tree, which one node makes.
// Without, the host's own file has the old text first. It has the version of the change
// then: nodes of a version lower than another's end themselves, so this node must not come
// back with one that is higher than that of nodes which have kept the change. If corosync
// ends itself, the others have gone back already, with the next version.
func (g *guard) restore(ctx context.Context) error {
	h, p := g.h, g.p
	ctx, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	var wrote, began time.Time
	restarted := false
	for {
		if g.confirmed() {
			return nil
		}
		if h.Quorate() {
			if tree := g.treeVersion(); tree > p.Version {
				if wrote.IsZero() || g.hasLoaded(tree) {
					return nil
				}
			} else if err := g.restoreTree(ctx); err != nil {
				h.Warnf("the tree's corosync.conf: %v", err)
			}
		} else {
			now := h.Time()
			running := g.active(ctx)
			switch {
			case wrote.IsZero():
				if err := g.restoreHost(ctx, p.Version, running); err != nil {
					h.Warnf("this host's corosync.conf: %v", err)
				}
				wrote, began = now, now
			case !running && now.Sub(began) > 3*time.Second:
				if err := g.restoreHost(ctx, p.Version+1, false); err != nil {
					h.Warnf("this host's corosync.conf: %v", err)
				}
				began = now
			case !restarted && now.Sub(wrote) > g.lost:
				restarted = true
				if err := h.Run(ctx, "systemctl", "restart", "corosync"); err != nil {
					h.Warnf("%v", err)
				}
				began = now
			}
		}
		if err := pause(ctx, 2*g.poll); err != nil {
			return fmt.Errorf("version %d of corosync.conf could not be taken back: %w", p.Version, err)
		}
	}
}

// hasLoaded tells whether corosync has loaded a version. If this host was cut off when the
// others did, its own corosync has what this guard gave it: then it is told to load what the
// daemon has put in the file's place meanwhile.
func (g *guard) hasLoaded(version uint64) bool {
	loaded, err := g.loaded()
	if err == nil && loaded >= version {
		return true
	}
	if err == nil && versionOf(g.h, host.CorosyncConf) >= version {
		err = g.reload()
	}
	if err != nil {
		g.h.Warnf("corosync: %v", err)
	}
	return false
}

func (g *guard) restoreTree(ctx context.Context) error {
	return cluster.Locked(ctx, g.h, func(context.Context) error {
		if g.confirmed() || g.treeVersion() != g.p.Version {
			return nil
		}
		text, err := g.p.back(g.p.Version + 1)
		if err != nil {
			return err
		}
		f, err := conf.Read(text)
		if err != nil {
			return err
		}
		return cluster.Activate(g.h, f)
	})
}

func (g *guard) restoreHost(ctx context.Context, version uint64, running bool) error {
	text, err := g.p.back(version)
	if err != nil {
		return err
	}
	if err := g.h.WriteFile(host.CorosyncConf, text, 0o644); err != nil {
		return err
	}
	if running && g.reload() == nil {
		return nil
	}
	return g.h.Run(ctx, "systemctl", "restart", "corosync")
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Saved are the versions whose texts are kept, the newest first.
func Saved(h *host.Host) ([]uint64, error) {
	entries, err := os.ReadDir(h.Path(historyDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			list = append(list, n)
		}
	}
	sortDown(list)
	return list, nil
}

// SavedText is the text of a version.
func SavedText(h *host.Host, version uint64) ([]byte, error) {
	return h.ReadFile(filepath.Join(historyDir, strconv.FormatUint(version, 10)))
}
