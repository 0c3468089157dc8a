package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/cmd/internal/exit"
)

func reportCommand() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "gather the data for a bug report in one archive",
		ArgsUsage: "[FILE]",
		Description: "A compressed tar file with the output of status, doctor and compare, the cluster log, the journal, metrics, versions, a list of the tree, some configuration. " +
			"Secrets are left out: all that is private, keys, tokens, passwords. " +
			"Of logs it has only messages that are known to hold none: this daemon's events and known messages of known programs. " +
			"With --with-logs it has the logs' full texts, which may hold anything that programs and people wrote, passwords included; text that looks like a secret is left out, but not all secrets look like one. " +
			"Look through it in any case before you give it away. " +
			"FILE must not exist; - is the standard output; without it the name tells node and time.\n" +
			"Status 0: written; 1: not.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "with-logs", Usage: "take in the texts of logs, which may hold secrets"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return cli.Exit("report: the argument is one FILE (options come before it)", exit.Failure)
			}
			h, err := host(c)
			if err != nil {
				return err
			}
			h.WithLogs = c.Bool("with-logs")
			if c.Args().First() == "-" {
				ctx, stop := interruptible(c)
				defer stop()
				if err := diagnosis.Report(ctx, h, c.App.Writer); err != nil {
					return cli.Exit(err.Error(), exit.Failure)
				}
				return nil
			}
			return reportTo(c, h, c.Args().First())
		},
	}
}

// reportTo writes a report to a new file; if that fails, no file is left.
func reportTo(c *cli.Context, h *diagnosis.Host, path string) (err error) {
	if path == "" {
		name, nerr := h.NodeName()
		if nerr != nil {
			name = "node"
		}
		path = fmt.Sprintf("pmxcfs-report-%s-%s.tar.gz", name, time.Now().Format("20060102-150405"))
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return cli.Exit(err.Error(), exit.Failure)
	}
	ctx, stop := interruptible(c)
	defer stop()
	err = errors.Join(diagnosis.Report(ctx, h, f), f.Close())
	if err != nil {
		return cli.Exit(errors.Join(err, os.Remove(path)).Error(), exit.Failure)
	}
	fmt.Fprintf(c.App.Writer, "written: %s\nLook through it before you give it away: host names, addresses and names of guests and users are in it.\n", path)
	return nil
}
