package vmlab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

var aptGet = []string{"apt-get", "-q", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=60"}

// Install installs package files and what they depend on, as apt-get install
// with args does; it returns apt's output. Packages of the distribution are
// downloaded over the machine's network, unless the cache has them; installing
// happens in the host's own.
func (h *Host) Install(ctx context.Context, debs []string, args ...string) ([]byte, error) {
	install := []string{"install"}
	for _, deb := range debs {
		content, err := os.ReadFile(deb)
		if err != nil {
			return nil, fmt.Errorf("vmlab: %w", err)
		}
		name := filepath.Join("/var/cache/vmlab", filepath.Base(deb))
		if err := h.WriteFile(name, content, 0o644); err != nil {
			return nil, err
		}
		install = append(install, name)
	}
	return h.Apt(ctx, append(install, args...)...)
}

// Package lists and downloaded packages are every host's of a release; apt's own locks there
// are each host's (see start). What counts is in two locks of the cache's: whoever uses the
// lists and packages has the one of apt.lock, shared, and has it alone while they are replaced
// or removed; and the gate is for whoever downloads, or asks for the other lock, so that one
// who wants that alone gets it. Installing, which takes longest, needs no gate.
type aptLock struct{ gate, use *os.File }

func (h *Host) lockApt(ctx context.Context) (*aptLock, error) {
	dir := filepath.Join(h.lab.cache.dir, h.suite)
	gate, err := flock(ctx, filepath.Join(dir, "apt.gate"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	use, err := flock(ctx, filepath.Join(dir, "apt.lock"), unix.LOCK_SH)
	if err != nil {
		gate.Close()
		return nil, err
	}
	return &aptLock{gate, use}, nil
}

// alone waits until nobody else uses the lists and packages; shared lets others again. Both
// need the gate.
func (l *aptLock) alone(ctx context.Context) error {
	err := poll(ctx, func() (bool, error) {
		err := unix.Flock(int(l.use.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("vmlab: %s: %w", l.use.Name(), err)
	}
	return nil
}

func (l *aptLock) shared() error {
	if err := unix.Flock(int(l.use.Fd()), unix.LOCK_SH); err != nil {
		return fmt.Errorf("vmlab: %s: %w", l.use.Name(), err)
	}
	return nil
}

// open lets go of the gate.
func (l *aptLock) open() { _ = l.gate.Close() }

// HoldApt keeps lists and packages of the release as they are until the lock is closed:
// whoever runs apt by other ways than Apt needs that, since they are every host's.
func (h *Host) HoldApt(ctx context.Context) (io.Closer, error) {
	lock, err := h.lockApt(ctx)
	if err != nil {
		return nil, err
	}
	lock.open()
	return lock.use, nil
}

// Apt runs any apt-get command, downloading first what it needs. It returns apt's output.
func (h *Host) Apt(ctx context.Context, args ...string) ([]byte, error) {
	lock, err := h.lockApt(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.use.Close()
	defer lock.open()
	if slices.Contains(args, "update") || slices.Contains(args, "autoclean") {
		if err := lock.alone(ctx); err != nil {
			return nil, err
		}
	}
	if len(args) > 0 && slices.Contains([]string{"install", "satisfy", "upgrade", "dist-upgrade"}, args[0]) {
		if err := h.download(ctx, lock, args); err != nil {
			return nil, err
		}
		lock.open()
	}
	return h.Exec(ctx, append(slices.Clone(aptGet), args...)...)
}

// download fetches what an apt-get command needs.
func (h *Host) download(ctx context.Context, lock *aptLock, args []string) error {
	download := append(append(slices.Clone(aptGet), "--download-only"), args...)
	outside := []string(nil) // not the host's network
	if _, err := h.exec(ctx, outside, download); err == nil {
		return nil
	}
	// Lists that are missing, or name what the mirror has no more; if new ones
	// don't help, damaged ones.
	if err := lock.alone(ctx); err != nil {
		return err
	}
	if err := h.update(ctx, download); err != nil {
		_, err := h.Exec(ctx, "find", "/var/lib/apt/lists", "/var/cache/apt/archives", "-type", "f", "!", "-name", "lock", "-delete")
		if err != nil {
			return err
		}
		if err := h.update(ctx, download); err != nil {
			return err
		}
	}
	return lock.shared()
}

// update fetches the package lists and tries a download.
func (h *Host) update(ctx context.Context, download []string) error {
	for _, step := range [][]string{{"apt-get", "-q", "update"}, {"apt-get", "-q", "autoclean"}, download} {
		if _, err := h.exec(ctx, nil, step); err != nil {
			return err
		}
	}
	return nil
}
