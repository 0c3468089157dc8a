package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/cmd/internal/exit"
)

// followInterval is the time between two looks at the log that is followed.
const followInterval = time.Second

func logCommand() *cli.Command {
	return &cli.Command{
		Name:  "log",
		Usage: "show the cluster log",
		Description: "All entries that the daemon has, the newest last; times are of the clock of the node that logged.\n" +
			"Status 0: done; 1: the daemon does not answer, or wrong usage.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on showing new entries, until ^C"},
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Usage: "show the newest `N` entries only", DefaultText: "all"},
			&cli.StringFlag{Name: "user", Usage: "of `USER` only (root@pam)"},
			&cli.StringFlag{Name: "node", Usage: "of node `NAME` only"},
			&cli.StringFlag{Name: "tag", Usage: "of program `TAG` only (pvedaemon)"},
			&cli.StringFlag{Name: "since", Usage: "not older than `TIME`: 2h, 3d, \"2026-01-31\", \"2026-01-31 15:04:05\""},
			&cli.StringFlag{Name: "priority", Aliases: []string{"p"}, Usage: "at least as bad as `PRIORITY`: emerg, alert, crit, err, warning, notice, info, debug, or 0 to 7"},
			&cli.StringFlag{Name: "grep", Usage: "whose text contains `TEXT` only"},
			&cli.BoolFlag{Name: "json", Usage: "write an object of JSON per line, for programs"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			filter := diagnosis.LogFilter{
				User: c.String("user"), Node: c.String("node"), Tag: c.String("tag"), Text: c.String("grep"), Newest: c.Int("lines"),
			}
			var err error
			if filter.Since, err = diagnosis.ParseSince(c.String("since"), time.Now()); err == nil {
				filter.Priority, err = diagnosis.ParsePriority(c.String("priority"))
			}
			if err == nil && filter.Newest < 0 {
				err = errors.New("--lines must not be negative")
			}
			if err != nil {
				return cli.Exit("log: "+err.Error(), exit.Failure)
			}
			h, err := host(c)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			return followLog(ctx, c, h, filter)
		},
	}
}

func followLog(ctx context.Context, c *cli.Context, h *diagnosis.Host, filter diagnosis.LogFilter) error {
	p := diagnosis.NewPainter(c.App.Writer)
	follow := c.Bool("follow")
	reader := diagnosis.LogReader{Filter: filter}
	lost := false
	for {
		list, err := reader.New(ctx, h)
		switch {
		case err == nil:
			lost = false
		case ctx.Err() != nil:
			return nil
		case !follow:
			return cli.Exit(err.Error(), exit.Failure)
		case !lost: // a restart of the daemon
			lost = true
			fmt.Fprintf(c.App.ErrWriter, "%s: %v; waiting for it\n", c.App.Name, err)
		}
		for i := range list {
			if c.Bool("json") {
				b, err := json.Marshal(&list[i])
				if err != nil {
					return cli.Exit(err.Error(), exit.Failure)
				}
				fmt.Fprintf(p.Out, "%s\n", b)
				continue
			}
			p.LogEntry(&list[i])
		}
		if !follow || !elapsed(ctx, followInterval) {
			return nil
		}
	}
}
