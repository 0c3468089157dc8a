package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/daemon"
	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/cmd/internal/exit"
)

// lookCommands are the commands by which people look at a node. Each takes the
// Options that say where the daemon's files are.
func lookCommands() []*cli.Command {
	list := []*cli.Command{
		statusCommand(),
		logCommand(),
		locksCommand(),
		compareCommand(),
		doctorCommand(),
		reportCommand(),
	}
	for _, c := range withSubcommands(list) {
		c.Flags = append(c.Flags, hostFlags()...)
		c.HideHelpCommand = true
		c.UseShortOptionHandling = true
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return cli.Exit(fmt.Sprintf("%s: %v (pmxcfs %s --help shows what is possible)", c.Name, err, c.Name), exit.Failure)
		}
	}
	return list
}

// withSubcommands returns commands and those below them.
func withSubcommands(list []*cli.Command) []*cli.Command {
	var all []*cli.Command
	for _, c := range list {
		all = append(append(all, c), withSubcommands(c.Subcommands)...)
	}
	return all
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "write JSON, for programs"}
}

// hostFlags are the daemon's options about places, given again so that they can stand
// behind a command's name. The environment is the daemon's options' to read.
func hostFlags() []cli.Flag {
	const category = "Where the daemon's files are (as for the daemon, which see)"
	flags := []cli.Flag{&cli.StringFlag{Name: "root", Category: category, Usage: "every path is below `DIR` that no option of its own moves"}}
	for _, p := range places {
		flags = append(flags, &cli.StringFlag{Name: p.flag, Category: category, Usage: p.usage, DefaultText: p.path})
	}
	return append(flags,
		&cli.StringFlag{Name: "socket", Category: category, Usage: "the daemon's Unix socket", DefaultText: daemon.SocketName + " in the run directory"},
		&cli.StringFlag{Name: "node-name", Category: category, Usage: "this node's `NAME`", DefaultText: "the host's name up to the first dot"},
		&cli.StringFlag{Name: "node-address", Category: category, Usage: "this node's `IP` address", DefaultText: "what its name resolves to"},
		&cli.StringFlag{Name: "group", Category: category, Usage: "group that may read all but private files", DefaultText: "www-data"},
	)
}

// given returns the value of an option, and whether it was given: the innermost
// counts, behind the command's name, or else before it or in the environment.
func given(c *cli.Context, name string) (value string, ok bool) {
	for _, ctx := range c.Lineage() {
		if ctx.Command == nil && ctx.App == nil {
			continue
		}
		if value = ctx.String(name); ctx.IsSet(name) {
			return value, true
		}
	}
	return value, false // the outermost's default
}

// host says where to look.
func host(c *cli.Context) (*diagnosis.Host, error) {
	if os.Geteuid() != 0 { // who sees half takes what is well for broken
		return nil, cli.Exit("pmxcfs "+c.Command.Name+": only root sees how the daemon is", exit.Failure)
	}
	o, err := parseOptions(c)
	if err != nil {
		return nil, cli.Exit(err.Error(), exit.Failure)
	}
	return &diagnosis.Host{
		MountPoint: o.MountPoint, Database: o.Database, LockFile: o.LockFile, RunDir: o.RunDir, PidFile: o.PidFile,
		CorosyncConf: o.CorosyncConf, RRDDir: o.RRDDir, RRDSocket: o.RRDSocket, Socket: o.Socket,
		Version: version, Group: o.Group,
		NodeName: func() (string, error) { return daemon.NodeName(*o) },
		Address: func(name string) (string, error) {
			ip, err := daemon.NodeAddress(*o, name)
			return ip.String(), err
		},
		Corosync:     diagnosis.AskCorosync,
		Units:        diagnosis.Units,
		ReadDatabase: diagnosis.ReadDatabase,
	}, nil
}

// noArguments objects to arguments.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Exit(fmt.Sprintf("%s takes no argument: %q (options come before arguments)", c.Command.Name, c.Args().First()), exit.Failure)
	}
	return nil
}

// writeJSON writes a document as JSON.
func writeJSON(out io.Writer, document any) error {
	b, err := json.MarshalIndent(document, "", "  ")
	if err == nil {
		_, err = out.Write(append(b, '\n'))
	}
	if err != nil {
		return cli.Exit(err.Error(), exit.Failure)
	}
	return nil
}

// interruptible returns a context that ends with ^C.
func interruptible(c *cli.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
}

// elapsed waits, and reports false if ctx is done first.
func elapsed(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// ended is the end of a command with a status other than 0.
func ended(status int) error {
	if status == diagnosis.ExitFine {
		return nil
	}
	return exit.Status(status)
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show the state of this node and its cluster",
		Description: "It also works while the daemon or corosync is down, and says so then.\n" +
			"Status 0: fine; 1: it could not be found out; 2: something needs attention; 3: the node does not do its work.",
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on showing it, until ^C"},
			&cli.DurationFlag{Name: "interval", Usage: "`TIME` between two looks with --watch", Value: 2 * time.Second},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Duration("interval") < 100*time.Millisecond {
				return cli.Exit("status: --interval must be at least 100ms", exit.Failure)
			}
			h, err := host(c)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			for {
				o := diagnosis.Look(ctx, h)
				if ctx.Err() == nil || !c.Bool("watch") {
					if err := showStatus(c, o); err != nil {
						return err
					}
				}
				if !c.Bool("watch") || !elapsed(ctx, c.Duration("interval")) {
					return ended(diagnosis.Exit(o.Findings))
				}
			}
		},
	}
}

// showStatus writes an overview, at once, so that watching does not flicker.
func showStatus(c *cli.Context, o *diagnosis.Overview) error {
	if c.Bool("json") {
		return writeJSON(c.App.Writer, o)
	}
	p := diagnosis.NewPainter(c.App.Writer)
	var text bytes.Buffer
	switch {
	case !c.Bool("watch"):
	case diagnosis.Terminal(p.Out):
		text.WriteString("\x1b[H\x1b[2J")
	default:
		fmt.Fprintf(&text, "== %s\n", o.Time.Format(time.RFC3339))
	}
	(&diagnosis.Painter{Out: &text, Color: p.Color}).Overview(o)
	if _, err := text.WriteTo(p.Out); err != nil && !errors.Is(err, syscall.EPIPE) {
		return cli.Exit(err.Error(), exit.Failure)
	}
	return nil
}
