// Command pvecm manages a cluster: it makes one, joins and removes nodes, keeps
// certificates and keys, and shows the cluster's state.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	common "pmxcfs/cmd/internal/cli"
	"pmxcfs/cmd/internal/exit"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/join"
	"pmxcfs/cmd/internal/plan"
)

//go:embed manual/*.man
var manual embed.FS

// version is set by the build.
var version = "development"

func main() {
	// What is started is found where the system has it, whoever calls.
	os.Setenv("HOME", "/root")
	os.Setenv("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
	h, err := host.New()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pvecm:", err)
		os.Exit(int(plan.Failed))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	e := &env{host: h, services: services(), join: joinServices(), root: os.Geteuid() == 0, getenv: os.Getenv, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(run(ctx, e, os.Args))
}

// env is what the commands work with.
type env struct {
	host           *host.Host
	services       clusterServices
	join           join.Services
	root           bool // the effective user is
	getenv         func(string) string
	stdout, stderr io.Writer
}

// run is main without the process around it.
func run(ctx context.Context, e *env, args []string) int {
	app := newApp(e)
	app.Writer, app.ErrWriter = e.stdout, e.stderr
	words, err := normalise(commands(), args[1:])
	if err == nil {
		err = app.RunContext(ctx, append(args[:1:1], words...))
	}
	var status exit.Status
	if errors.As(err, &status) {
		return status.ExitCode()
	}
	if err != nil {
		writeError(e, err)
	}
	return int(plan.CodeOf(err))
}

// writeError writes a line for each problem.
func writeError(e *env, err error) {
	var p *plan.Error
	if !errors.As(err, &p) || len(p.Problems) == 0 {
		fmt.Fprintf(e.stderr, "pvecm: %v\n", err)
		return
	}
	for _, problem := range p.Problems {
		fmt.Fprintf(e.stderr, "pvecm: %s\n", problem)
	}
	if p.Cause != nil {
		fmt.Fprintf(e.stderr, "pvecm: %v\n", p.Cause)
	}
}

func newApp(e *env) *cli.App {
	var list []*cli.Command
	for _, c := range commands() {
		list = append(list, c.build(e))
	}
	list = append(list, common.Documentation(func() *cli.App { return newApp(e) }, manual))
	return &cli.App{
		Name:            "pvecm",
		Usage:           "manage a Proxmox VE cluster",
		UsageText:       "pvecm COMMAND [ARGUMENTS] [OPTIONS]",
		Description:     "pvecm makes clusters, joins and removes nodes, keeps certificates and ssh keys, sets up an external vote and shows the cluster's state.",
		Version:         version,
		HideHelpCommand: true,
		Flags:           []cli.Flag{cli.HelpFlag}, // the library leaves it out since there is a command of that name
		Commands:        list,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("there is no command %q (\"pvecm help\" lists them)", c.Args().First())
			}
			return usagef("a command is missing (\"pvecm help\" lists them)")
		},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usagef("%v", err) },
		ExitErrHandler: func(*cli.Context, error) {}, // run decides
	}
}

// usagef is an error about the command line.
func usagef(format string, args ...any) error {
	return plan.Fail(plan.Parameters, "usage", "", format, args...)
}

// outcome is what a changing command writes as JSON.
type outcome struct {
	Result   string         `json:"result"` // done, nothing-to-do, planned, failed
	Status   int            `json:"status"`
	Problems []plan.Problem `json:"problems"`
	Steps    []string       `json:"steps"`
	Error    string         `json:"error,omitempty"`
}

// finish writes what came of a changing command: as JSON if that is asked for, else
// warnings, and the plan of a dry run.
func (c *call) finish(r *plan.Report, nothing bool, err error) error {
	o := outcome{Result: "done", Status: int(plan.CodeOf(err)), Problems: r.Problems, Steps: r.Steps}
	dry := c.isSet("dry-run")
	switch {
	case err != nil:
		o.Result, o.Error = "failed", err.Error()
	case nothing:
		o.Result = "nothing-to-do"
	case dry:
		o.Result = "planned"
	}
	if c.json() {
		if o.Problems == nil {
			o.Problems = []plan.Problem{}
		}
		if o.Steps == nil {
			o.Steps = []string{}
		}
		if e := c.writeJSON(o); e != nil {
			return e
		}
		if err != nil {
			return exit.Status(o.Status)
		}
		return nil
	}
	r.WriteWarnings(c.env.stderr)
	if dry {
		for _, s := range r.Steps {
			fmt.Fprintf(c.env.stdout, "would do: %s\n", s)
		}
	}
	if nothing {
		fmt.Fprintln(c.env.stdout, "nothing to do")
	}
	return err
}

func (c *call) writeJSON(v any) error {
	encoder := json.NewEncoder(c.env.stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
