package main

import (
	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/cmd/internal/exit"
)

func compareCommand() *cli.Command {
	return &cli.Command{
		Name:  "compare",
		Usage: "compare the trees of all nodes, now",
		Description: "Changes may go on meanwhile. It lists the entries that differ, and their differences.\n" +
			"A stock daemon takes no part; the nodes' own hourly comparison covers it, too.\n" +
			"Status 0: all nodes hold the same; 1: it could not be found out, also because changes went on; 2: those that were compared do, but not all were; 3: they differ.",
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
			r, err := h.Compare(ctx)
			if err != nil {
				return cli.Exit(err.Error(), exit.Failure)
			}
			if c.Bool("json") {
				err = writeJSON(c.App.Writer, r)
			} else {
				diagnosis.NewPainter(c.App.Writer).Comparison(r)
			}
			if err != nil {
				return err
			}
			return ended(diagnosis.CompareExit(r))
		},
	}
}
