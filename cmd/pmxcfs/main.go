// Command pmxcfs keeps a Proxmox VE node's configuration tree: it is the file
// system behind /etc/pve.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	common "pmxcfs/cmd/internal/cli"
	"pmxcfs/cmd/internal/daemon"
	"pmxcfs/cmd/internal/dbtool"
	"pmxcfs/cmd/internal/exit"

	"github.com/urfave/cli/v2"
)

// version is set by the build.
var version = "development"

func main() {
	if task := os.Getenv(daemon.GuardEnv); task != "" {
		os.Exit(daemon.GuardMain(task, os.Getenv(daemon.GuardEndsEnv), os.Stderr))
	}
	daemon.TuneMalloc()
	if filepath.Base(os.Args[0]) == "create_pmxcfs_db" {
		os.Exit(dbtool.CreateMain(os.Args, os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main without the process around it.
func run(args []string, stdout, stderr io.Writer) int {
	app := newApp()
	app.Writer, app.ErrWriter = stdout, stderr
	err := app.Run(permuted(app, args))
	var coded cli.ExitCoder
	switch {
	case err == nil:
		return exit.OK
	case errors.As(err, &coded):
		if msg := err.Error(); msg != "" {
			fmt.Fprintf(stderr, "%s: %s\n", app.Name, msg)
		}
		return coded.ExitCode()
	}
	fmt.Fprintf(stderr, "%s: %v\n", app.Name, err)
	return exit.Failure
}

func newApp() *cli.App {
	return &cli.App{
		Name:                   "pmxcfs",
		Usage:                  "the Proxmox cluster file system",
		UsageText:              "pmxcfs [OPTIONS]\npmxcfs COMMAND [OPTIONS] [ARGUMENTS]",
		Description:            "Without a command, pmxcfs starts the daemon that serves /etc/pve.",
		Version:                version,
		UseShortOptionHandling: true,
		HideHelpCommand:        true,
		Flags:                  daemonFlags(),
		Commands:               append(append(lookCommands(), recordCommands()...), dbtool.Command(), umountCommand(), common.Documentation(newApp, manual)),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError(fmt.Errorf("unknown command or argument %q", c.Args().First()))
			}
			o, err := parseOptions(c)
			if err != nil {
				return usageError(err)
			}
			return daemon.Run(*o, c.App.ErrWriter)
		},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usageError(err) },
		ExitErrHandler: func(*cli.Context, error) {}, // run decides
	}
}

func usageError(err error) error {
	return cli.Exit(fmt.Sprintf("%v (pmxcfs --help shows what is possible)", err), exit.Failure)
}
