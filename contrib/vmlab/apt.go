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

// HoldApt keeps other hosts of the release from using apt until the lock is closed: whoever
// runs it by other ways than Apt needs that, since the cache is everybody's.
func (h *Host) HoldApt(ctx context.Context) (io.Closer, error) {
	return flock(ctx, filepath.Join(h.lab.cache.dir, h.suite, "apt.lock"), unix.LOCK_EX)
}

// Apt runs any apt-get command, downloading first what it needs. One at a time
// does: lists and archives are the cache's. It returns apt's output.
func (h *Host) Apt(ctx context.Context, args ...string) ([]byte, error) {
	lock, err := h.HoldApt(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	command := append(append([]string(nil), aptGet...), args...)
	if len(args) == 0 || !slices.Contains([]string{"install", "satisfy", "upgrade", "dist-upgrade"}, args[0]) {
		return h.Exec(ctx, command...)
	}
	download := append(append([]string(nil), aptGet...), append([]string{"--download-only"}, args...)...)
	outside := []string(nil) // not the host's network
	if _, err := h.exec(ctx, outside, download); err != nil {
		// Lists that are missing, or name what the mirror has no more; if new ones
		// don't help, damaged ones.
		if err := h.update(ctx, download); err != nil {
			_, werr := h.Exec(ctx, "find", "/var/lib/apt/lists", "/var/cache/apt/archives", "-type", "f", "-delete")
			if werr != nil {
				return nil, werr
			}
			if err := h.update(ctx, download); err != nil {
				return nil, err
			}
		}
	}
	return h.Exec(ctx, command...)
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
