package main

import (
	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/cmd/internal/exit"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check this node for faults, and print remedies",
		Description: "Host name and addresses, group, FUSE, corosync and its configuration, versions, the database, disks, the clock, remains of earlier runs; on a host with Proxmox VE the files, settings and services that it needs. " +
			"It changes nothing, and also works while the daemon or corosync is down.\n" +
			"Status 0: nothing is wrong; 1: wrong usage; 2: something needs attention; 3: something keeps the node from its work.",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			h, err := host(c)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			var x *diagnosis.Examination
			if err := diagnosis.Abandonable(ctx, func() error { x = diagnosis.Examine(ctx, h); return nil }); err != nil {
				return cli.Exit(err.Error(), exit.Failure)
			}
			if c.Bool("json") {
				err = writeJSON(c.App.Writer, x)
			} else {
				diagnosis.NewPainter(c.App.Writer).Examination(x)
			}
			if err != nil {
				return err
			}
			return ended(diagnosis.Exit(x.Findings))
		},
	}
}
