package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"pmxcfs/cmd/internal/datacenter"
	"pmxcfs/cmd/internal/exit"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/keys"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/cmd/internal/tunnel"
)

// updateCerts makes what is missing, in a process of its own that can be left alone if
// the mount hangs.
func updateCerts(ctx context.Context, c *call) error {
	h := c.env.host
	silent := c.isSet("silent")
	if c.env.getenv(keys.ChildEnv) != "" {
		if err := h.Mounted(); err != nil {
			return err
		}
		if silent {
			h.Stdout = io.Discard
		}
		return keys.Update(ctx, h, keys.Options{Force: c.isSet("force"), Silent: silent, Unmerge: c.isSet("unmerge-known-hosts")})
	}
	if c.isSet("wait") {
		// Nothing is begun yet: a signal just ends it, which a service's stop takes for success.
		signal.Reset(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		if err := awaitWritable(ctx, h, writablePoll); err != nil {
			return err
		}
	}
	args := []string{"updatecerts"}
	for _, o := range c.command.options {
		if c.isSet(o.name) && o.name != "wait" {
			args = append(args, "--"+o.name)
		}
	}
	err := keys.RunLimited(h, args, keys.RunLimit)
	if err == nil || !silent {
		return err
	}
	// A service that is about to start shall not fail for it.
	if text := err.Error(); text != "" {
		h.Warnf("%s", text)
	}
	return nil
}

// writablePoll is the time between two looks.
const writablePoll = time.Second

// awaitWritable waits until the cluster file system is mounted and has quorum.
func awaitWritable(ctx context.Context, h *host.Host, poll time.Duration) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for h.Mounted() != nil || !h.Quorate() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for quorum: %w", ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// check looks for what is wrong with keys and certificates.
func check(ctx context.Context, c *call) error {
	found, err := keys.Check(ctx, c.env.host, c.isSet("fix"))
	if err != nil {
		return err
	}
	open := 0
	for _, f := range found {
		if !f.Fixed {
			open++
		}
	}
	if c.json() {
		if found == nil {
			found = []keys.Finding{}
		}
		if err := c.writeJSON(found); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			fmt.Fprintln(c.env.stdout, f)
		}
		if len(found) == 0 {
			fmt.Fprintln(c.env.stdout, "everything is as it should be")
		}
	}
	if open > 0 {
		return exit.Status(plan.Refused)
	}
	return nil
}

// mtunnel is the far end of a migration.
func mtunnel(ctx context.Context, c *call) error {
	return tunnel.Serve(ctx, c.env.host, tunnel.Options{
		Address: c.isSet("get_migration_ip"), Network: c.text("migration_network"),
		Run: c.isSet("run-command"), Command: c.rest,
	})
}

// nextID prints a free guest id.
func nextID(_ context.Context, c *call) error {
	text, err := c.env.host.ReadFile(host.Mount + "/datacenter.cfg")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	guests, err := c.env.host.Guests()
	if err != nil {
		return err
	}
	ids := datacenter.Parse(text).NextID
	ids.Lower, ids.Upper = c.number("lower", ids.Lower), c.number("upper", ids.Upper)
	id, err := ids.Free(func(id int) bool { _, used := guests[strconv.Itoa(id)]; return used })
	if err != nil {
		return plan.Errorf(plan.Refused, "%w", err)
	}
	_, err = fmt.Fprintln(c.env.stdout, id)
	return err
}
