package main

import (
	"fmt"
	"pmxcfs/cmd/internal/daemon"
	"pmxcfs/cmd/internal/exit"

	"github.com/urfave/cli/v2"
)

// umountCommand returns the command that clears away what a killed daemon has left
// mounted. The service's unit runs it after each stop.
func umountCommand() *cli.Command {
	return &cli.Command{
		Name:  "umount",
		Usage: "unmount the dead mount of a killed daemon",
		Description: "After a daemon was killed, every access to its mount point fails until the next one starts, or this is done. " +
			"Options that move the mount point, the lock file or the pid file are given before the command, as they were to the daemon. " +
			"A daemon that runs is left alone: stop it instead.\n" +
			"Status 0: nothing is mounted there any more; 1: a daemon is running, or the mount can't be taken away.",
		HideHelpCommand: true,
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageError(err) },
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError(fmt.Errorf("umount takes no arguments: %q", c.Args().First()))
			}
			o, err := parseOptions(c)
			if err != nil {
				return usageError(err)
			}
			n, err := daemon.Umount(*o)
			if err != nil {
				return cli.Exit("umount: "+err.Error(), exit.Failure)
			}
			if n > 0 {
				fmt.Fprintf(c.App.Writer, "unmounted the dead mount of an earlier run on %s\n", o.MountPoint)
			}
			return nil
		},
	}
}
