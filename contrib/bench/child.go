package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"pmxcfs/contrib/bench/server"
)

// self is this program.
const self = "/proc/self/exe"

// measure has a process of its own carry out a job, and reads its result.
func measure(ctx context.Context, part string, job, result any) error {
	in, err := json.Marshal(job)
	if err != nil {
		return err
	}
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, self, part)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaint
	// No signals to threads that wait for a FUSE request.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", part, err, strings.TrimSpace(complaint.String()))
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		return fmt.Errorf("%s: %w", part, err)
	}
	return nil
}

// Places below a daemon's root.
const (
	mountPoint = "etc/pve"
	database   = "var/lib/pve-cluster/config.db"
)

// startDaemon starts the daemon with everything below root.
func (c *config) startDaemon(root string, more ...string) (*server.Server, time.Duration, error) {
	for _, d := range []string{mountPoint, filepath.Dir(database)} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, 0, err
		}
	}
	return server.Start("the daemon", filepath.Join(root, mountPoint), c.daemon,
		append([]string{"-f", "-l", "--root", root, "--node-name", "node1"}, more...)...)
}

// startFloor starts the bare file system, whose .version is as long as the
// daemon's.
func (c *config) startFloor(dir string, version []byte) (*server.Server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s, _, err := server.Start("the bare file system", dir, self, partFS, dir, string(version))
	return s, err
}
