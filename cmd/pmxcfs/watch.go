package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/cmd/internal/exit"
	"pmxcfs/cmd/internal/record"
	"pmxcfs/memdb/history"
)

func watchCommand() *cli.Command {
	return &cli.Command{
		Name: "watch", ArgsUsage: "[PATH...]", Usage: "show changes as they are stored here, or run a command for each",
		Description: "Only those of a PATH, or below it, if one is given; until ^C. If the daemon ends, it waits for the next one, and goes on where it was: nothing is lost that the history still holds, and a line says what is missing.\n" +
			"With --exec, a shell runs CMD for each change set, with the paths as arguments ($@), and PMXCFS_VERSION, PMXCFS_NODE, PMXCFS_TIME (seconds since 1970) and PMXCFS_KIND in its environment; for a gap, with no path and PMXCFS_KIND=gap. The next one waits for it. If it fails, watch ends.\n" +
			"Status 0: ended by ^C; 1: the daemon does not answer, or records no history; or the status of CMD.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "write an object of JSON per line, for programs"},
			&cli.StringFlag{Name: "since", Usage: "begin with what came after `VERSION` of the tree"},
			&cli.StringFlag{Name: "exec", Usage: "run `CMD` for each change set"},
		},
		Action: watch,
	}
}

func watch(c *cli.Context) error {
	h, err := host(c)
	if err != nil {
		return err
	}
	since := history.Now
	if text := c.String("since"); text != "" {
		if since, err = strconv.ParseUint(text, 10, 63); err != nil {
			return cli.Exit(fmt.Sprintf("watch: --since: %q is no version of the tree", text), exit.Failure)
		}
	}
	var only []string
	for _, path := range c.Args().Slice() {
		only = append(only, record.Path(h.MountPoint, path))
	}
	ctx, stop := interruptible(c)
	defer stop()
	x := &recorded{c: c, h: h, color: diagnosis.NewPainter(c.App.Writer).Color}
	err = record.NewDaemon(h.Socket).Watch(ctx, since,
		func(err error) { fmt.Fprintf(c.App.ErrWriter, "%s: %v; waiting for it\n", c.App.Name, err) },
		func(e *history.Event) error {
			e.Changes = slices.DeleteFunc(e.Changes, func(h history.Change) bool {
				return len(only) > 0 && !slices.ContainsFunc(only, func(o string) bool {
					return o == "" || h.Path == o || strings.HasPrefix(h.Path, o+"/")
				})
			})
			if e.Gap == nil && len(e.Changes) == 0 {
				return nil
			}
			if command := c.String("exec"); command != "" {
				return runFor(ctx, c, command, e)
			}
			return x.event(e)
		})
	return onlyFailed(c, err)
}

// event writes an event, for people or for programs.
func (x *recorded) event(e *history.Event) error {
	if x.c.Bool("json") {
		b, err := json.Marshal(e)
		if err == nil {
			_, err = x.out().Write(append(b, '\n'))
		}
		return err
	}
	if e.Gap != nil {
		_, err := fmt.Fprintln(x.out(), x.gap(e.Gap))
		return err
	}
	for i := range e.Changes {
		if _, err := fmt.Fprintln(x.out(), x.line(&e.Changes[i])); err != nil {
			return err
		}
	}
	return nil
}

// argumentBytes is how much a program is given as arguments at most; the kernel takes more.
const argumentBytes = 64 << 10

// runFor runs a command for an event: more than once if the paths are too many for one time.
func runFor(ctx context.Context, c *cli.Context, command string, e *history.Event) error {
	env := append(os.Environ(), "PMXCFS_KIND=gap")
	var paths []string
	if e.Gap != nil {
		env = append(env, fmt.Sprintf("PMXCFS_VERSION=%d", e.Gap.Version), fmt.Sprintf("PMXCFS_TIME=%d", e.Gap.Time.Unix()), "PMXCFS_NODE=")
	} else {
		h := &e.Changes[0]
		env = append(os.Environ(), "PMXCFS_KIND="+h.Kind.String(), fmt.Sprintf("PMXCFS_VERSION=%d", h.Tree), fmt.Sprintf("PMXCFS_TIME=%d", h.Time.Unix()), "PMXCFS_NODE="+h.Node)
		for i := range e.Changes {
			paths = append(paths, e.Changes[i].Path)
		}
	}
	for first := true; first || len(paths) > 0; first = false {
		n, size := 0, 0
		for n < len(paths) && (n == 0 || size+len(paths[n]) < argumentBytes) {
			size += len(paths[n]) + 9
			n++
		}
		cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", command, "pmxcfs-watch"}, paths[:n]...)...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, c.App.Writer, c.App.ErrWriter
		cmd.Cancel = func() error { return nil } // ^C has reached it, too; it may end in order
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var ended *exec.ExitError
			if errors.As(err, &ended) && ended.ExitCode() > 0 {
				fmt.Fprintf(c.App.ErrWriter, "%s: watch: the command has failed: %v\n", c.App.Name, err)
				return exit.Status(ended.ExitCode())
			}
			return fmt.Errorf("running the command: %w", err)
		}
		paths = paths[n:]
	}
	return nil
}

// sortedPaths returns the paths of both.
func sortedPaths(a, b map[string]history.Change) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
