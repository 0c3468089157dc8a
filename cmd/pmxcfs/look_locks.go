package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/cmd/internal/exit"
	"pmxcfs/status/inspect"
)

func locksCommand() *cli.Command {
	return &cli.Command{
		Name:  "locks",
		Usage: "show the cluster-wide locks, or break one",
		Description: "A lock that has not been renewed for 2 minutes has expired: the next process that wants it may take it.\n" +
			"Status 0: done; 1: the daemon does not answer, or wrong usage.",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return cli.Exit(fmt.Sprintf("locks: unknown command %q (there is: break NAME)", c.Args().First()), exit.Failure)
			}
			h, err := host(c)
			if err != nil {
				return err
			}
			locks, err := h.Locks(c.Context)
			if err != nil {
				return cli.Exit(err.Error(), exit.Failure)
			}
			if c.Bool("json") {
				return writeJSON(c.App.Writer, &inspect.Locks{Locks: locks})
			}
			if len(locks) == 0 {
				fmt.Fprintln(c.App.Writer, "no lock is held")
			}
			diagnosis.NewPainter(c.App.Writer).Locks(locks, time.Now(), 0)
			return nil
		},
		Subcommands: []*cli.Command{{
			Name: "break", ArgsUsage: "NAME",
			Usage: "break a lock",
			Description: "What holds a lock relies on being alone: break it only when you know that its holder does nothing any more.\n" +
				"An expired lock is broken by agreement of the nodes, as when another process wants it; one that has not expired is removed.\n" +
				"Status 0: broken; 1: it was not.",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "yes", Usage: "do it; without this option, only print the consequences"},
				&cli.BoolFlag{Name: "force", Usage: "also if the lock has not expired"},
			},
			Action: func(c *cli.Context) error {
				if c.NArg() != 1 {
					return cli.Exit("locks break: the argument is the lock's NAME (options come before it)", exit.Failure)
				}
				h, err := host(c)
				if err != nil {
					return err
				}
				ctx, stop := interruptible(c)
				defer stop()
				lock, err := h.Lock(ctx, c.Args().First())
				if err != nil {
					return cli.Exit(err.Error(), exit.Failure)
				}
				p := diagnosis.NewPainter(c.App.Writer)
				p.LockWarning(lock, time.Now())
				if !c.Bool("yes") {
					return cli.Exit("nothing was done: give --yes to break it", exit.Failure)
				}
				if !lock.Expired && !c.Bool("force") {
					return cli.Exit("nothing was done: the lock has not expired; give --force, too, to break it all the same", exit.Failure)
				}
				if err := h.BreakLock(ctx, lock); err != nil {
					return cli.Exit(err.Error(), exit.Failure)
				}
				fmt.Fprintf(c.App.Writer, "the lock %q is broken\n", lock.Name)
				return nil
			},
		}},
	}
}
