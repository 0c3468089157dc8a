package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/exit"
	"pmxcfs/cmd/internal/record"
	"pmxcfs/memdb/history"
)

func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name: "snapshot", Usage: "give the state of the tree a name, and bring it back",
		Description: "A snapshot is a point of this node's history that retention keeps, until it is deleted. It costs nothing but what changes afterwards.\n" +
			"Status 0: done; 1: it could not be done, or wrong usage.",
		Action: func(c *cli.Context) error {
			return cli.Exit("snapshot: say what to do: create, list, diff, restore, delete", exit.Failure)
		},
		Subcommands: []*cli.Command{
			{
				Name: "create", ArgsUsage: "NAME", Usage: "give the present state a name",
				Flags: []cli.Flag{jsonFlag(), &cli.StringFlag{Name: "note", Usage: "`TEXT` to remember it by"}},
				Action: onDaemon("NAME", func(c *cli.Context, d *record.Daemon, name string) error {
					s, err := d.CreateSnapshot(c.Context, name, c.String("note"))
					switch {
					case err != nil:
						return err
					case c.Bool("json"):
						return writeJSON(c.App.Writer, s)
					}
					fmt.Fprintf(c.App.Writer, "the snapshot %q is version %d\n", s.Name, s.Version)
					return nil
				}),
			},
			{
				Name: "list", Usage: "list the snapshots",
				Flags:  []cli.Flag{jsonFlag(), fileFlag()},
				Action: onHistory(0, 0, "none", (*recorded).snapshots),
			},
			{
				Name: "diff", ArgsUsage: "NAME [NAME]", Usage: "show what has changed since a snapshot, or from one to another",
				Flags:  []cli.Flag{jsonFlag(), fileFlag(), &cli.BoolFlag{Name: "patch", Aliases: []string{"p"}, Usage: "show the files' differences, too"}},
				Action: onHistory(1, 2, "NAME [NAME]", (*recorded).snapshotDiff),
			},
			{
				Name: "restore", ArgsUsage: "NAME [PATH...]", Usage: "bring back the state of a snapshot, as a whole or of some paths",
				Description: "As history restore does it. What was made since then stays, unless --delete says otherwise. corosync.conf, which corosync takes with a greater config_version only, is restored only if it is named.\n" +
					"Status 0: done; 1: refused, in part or as a whole, failed, or not wanted.",
				Flags:  []cli.Flag{fileFlag(), yesFlag(), &cli.BoolFlag{Name: "delete", Usage: "also delete what was made since then"}},
				Action: onHistory(1, -1, "NAME [PATH...]", (*recorded).snapshotRestore),
			},
			{
				Name: "delete", ArgsUsage: "NAME", Usage: "forget a snapshot",
				Action: onDaemon("NAME", func(c *cli.Context, d *record.Daemon, name string) error {
					if err := d.DeleteSnapshot(c.Context, name); err != nil {
						return err
					}
					fmt.Fprintf(c.App.Writer, "the snapshot %q is deleted\n", name)
					return nil
				}),
			},
		},
	}
}

// onDaemon makes the action of a command that asks the daemon, with one argument.
func onDaemon(what string, f func(c *cli.Context, d *record.Daemon, arg string) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.NArg() != 1 {
			return cli.Exit(fmt.Sprintf("snapshot %s: the argument is %s", c.Command.Name, what), exit.Failure)
		}
		h, err := host(c)
		if err != nil {
			return err
		}
		return onlyFailed(c, f(c, record.NewDaemon(h.Socket), c.Args().First()))
	}
}

func (x *recorded) snapshots() error {
	list, err := x.r.Snapshots()
	switch {
	case err != nil:
		return err
	case x.c.Bool("json"):
		if list == nil {
			list = []history.Snapshot{}
		}
		return writeJSON(x.out(), struct {
			Snapshots []history.Snapshot `json:"snapshots"`
		}{list})
	case len(list) == 0:
		fmt.Fprintln(x.out(), "there is no snapshot")
	}
	for _, s := range list {
		fmt.Fprintln(x.out(), strings.TrimRight(fmt.Sprintf("%s  %8d  %-20s  %s", s.Time.Format(time.DateTime), s.Version, s.Name, clean(s.Note)), " "))
	}
	return nil
}

// states is what was at each path at a point.
func (x *recorded) states(p history.Point) (map[string]history.Change, error) {
	m := map[string]history.Change{}
	return m, x.r.Tree(p, "", false, func(h history.Change) error {
		m[h.Path] = h
		return nil
	})
}

// pathChange is a path that differs between two points.
type pathChange struct {
	Path   string `json:"path"`
	Change string `json:"change"` // "added", "changed" or "deleted"
}

func (x *recorded) snapshotDiff() error {
	from, err := x.r.AtSnapshot(x.c.Args().Get(0))
	if err != nil {
		return err
	}
	to, err := x.r.Latest()
	if x.c.NArg() == 2 {
		to, err = x.r.AtSnapshot(x.c.Args().Get(1))
	}
	if err != nil {
		return err
	}
	a, err := x.states(from)
	if err != nil {
		return err
	}
	b, err := x.states(to)
	if err != nil {
		return err
	}
	list := []pathChange{}
	for _, path := range sortedPaths(a, b) {
		was, before := a[path]
		is, after := b[path]
		switch {
		case !before:
			list = append(list, pathChange{path, "added"})
		case !after:
			list = append(list, pathChange{path, "deleted"})
		case was.State != is.State || was.Digest != is.Digest:
			list = append(list, pathChange{path, "changed"})
		}
	}
	if x.c.Bool("json") {
		return writeJSON(x.out(), struct {
			Changes []pathChange `json:"changes"`
		}{list})
	}
	for _, c := range list {
		code := map[string]string{"added": "32", "deleted": "31", "changed": "33"}[c.Change]
		fmt.Fprintf(x.out(), "%s %s\n", x.paint(code, fmt.Sprintf("%-7s", c.Change)), clean(c.Path))
		if x.c.Bool("patch") {
			if err := x.unified(a[c.Path], b[c.Path]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *recorded) snapshotRestore() error {
	p, err := x.r.AtSnapshot(x.c.Args().First())
	if err != nil {
		return err
	}
	mount, err := x.mount()
	if err != nil {
		return err
	}
	then, err := x.states(p)
	if err != nil {
		return err
	}
	latest, err := x.r.Latest()
	if err != nil {
		return err
	}
	now, err := x.states(latest)
	if err != nil {
		return err
	}
	var only []string
	for _, path := range x.c.Args().Tail() {
		only = append(only, x.path(path))
	}
	wants := func(path string) bool {
		for _, o := range only {
			if path == o || strings.HasPrefix(path, o+"/") {
				return true
			}
		}
		return len(only) == 0 && path != "corosync.conf"
	}
	var wanted []record.Wanted
	var kept []string
	for _, path := range sortedPaths(then, now) {
		if !wants(path) {
			continue
		}
		h, was := then[path]
		switch {
		case was:
			if is, ok := now[path]; ok && is.State == h.State && is.Digest == h.Digest {
				continue
			}
			data, err := x.r.Content(h)
			if err != nil {
				return err
			}
			wanted = append(wanted, record.Wanted{Path: path, State: h.State, Data: data})
		case x.c.Bool("delete"):
			wanted = append(wanted, record.Wanted{Path: path})
		default:
			kept = append(kept, path)
		}
	}
	for _, o := range only {
		found := false
		for path := range then {
			found = found || path == o || strings.HasPrefix(path, o+"/")
		}
		for path := range now {
			found = found || path == o || strings.HasPrefix(path, o+"/")
		}
		if !found {
			return fmt.Errorf("%w: %s", history.ErrNoChange, o)
		}
	}
	return x.bringBack(mount, wanted, kept)
}
