package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/dbtool"
	"pmxcfs/cmd/internal/diagnosis"
	"pmxcfs/cmd/internal/exit"
	"pmxcfs/cmd/internal/record"
	"pmxcfs/memdb/history"
	"pmxcfs/status/inspect"
)

// recordCommands are the commands about the history of the tree. Their options may stand
// behind arguments, too: see permuted.
func recordCommands() []*cli.Command {
	list := []*cli.Command{historyCommand(), snapshotCommand(), watchCommand()}
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

// permuted moves the options of the commands about the history before their arguments,
// where the library looks for them.
func permuted(app *cli.App, args []string) []string {
	i := skipOptions(app.Flags, args, 1)
	if i >= len(args) {
		return args
	}
	commands, flags := recordCommands(), []cli.Flag(nil)
	for i < len(args) {
		var found *cli.Command
		for _, c := range commands {
			if c.HasName(args[i]) {
				found = c
			}
		}
		if found == nil {
			break
		}
		commands, flags = found.Subcommands, found.Flags
		i++
		if j := skipOptions(flags, args, i); j < len(args) && len(commands) > 0 {
			for _, c := range commands {
				if c.HasName(args[j]) {
					i = j
				}
			}
		}
	}
	if flags == nil {
		return args
	}
	options, rest := append([]string{}, args[:i]...), []string{}
	for i < len(args) {
		if args[i] == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		j := skipOptions(flags, args, i)
		if j == i {
			rest = append(rest, args[i])
			i++
			continue
		}
		j = min(j, len(args))
		options = append(options, args[i:j]...)
		i = j
	}
	for _, r := range rest {
		if strings.HasPrefix(r, "-") {
			options = append(options, "--")
			break
		}
	}
	return append(options, rest...)
}

// skipOptions returns where the options that begin at args[i] end.
func skipOptions(flags []cli.Flag, args []string, i int) int {
	for i < len(args) && len(args[i]) > 1 && args[i][0] == '-' && args[i] != "--" {
		name, _, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		i++
		for _, f := range flags {
			for _, n := range f.Names() {
				if d, ok := f.(cli.DocGenerationFlag); n == name && ok && d.TakesValue() && !hasValue {
					i++
				}
			}
		}
	}
	return i
}

func onlyFailed(c *cli.Context, err error) error {
	if err == nil {
		return nil
	}
	var coded cli.ExitCoder
	if errors.As(err, &coded) {
		return err
	}
	return cli.Exit(c.Command.Name+": "+err.Error(), exit.Failure)
}

// recorded is a command on a history that is open to be read.
type recorded struct {
	c     *cli.Context
	h     *diagnosis.Host
	r     *history.Reader
	d     *record.Daemon
	now   time.Time
	color bool
}

// onHistory makes the action of a command that reads the history. Without a daemon, it reads what the last
// one has left.
func onHistory(least, most int, what string, f func(*recorded) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if n := c.NArg(); n < least || most >= 0 && n > most {
			return cli.Exit(fmt.Sprintf("%s: the arguments are: %s", c.Command.Name, what), exit.Failure)
		}
		h, err := host(c)
		if err != nil {
			return err
		}
		ctx, stop := interruptible(c)
		defer stop()
		x := &recorded{c: c, h: h, d: record.NewDaemon(h.Socket), now: time.Now(), color: diagnosis.NewPainter(c.App.Writer).Color}
		path, _ := given(c, "file")
		if path == "" {
			path = history.Beside(h.Database)
			if err := x.d.Flush(ctx); err != nil {
				fmt.Fprintf(c.App.ErrWriter, "%s: the last changes may be missing: %v\n", c.App.Name, err)
			}
		}
		if x.r, err = history.Open(path); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				err = fmt.Errorf("%w (is it turned off by --history-size 0? or is the database elsewhere: --database)", err)
			}
			return onlyFailed(c, err)
		}
		defer x.r.Close()
		return onlyFailed(c, f(x))
	}
}

func (x *recorded) out() io.Writer { return x.c.App.Writer }

func (x *recorded) path(given string) string { return record.Path(x.h.MountPoint, given) }

func (x *recorded) paint(code, text string) string {
	if !x.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// revision is what PATH@REVISION and --at say.
func (x *recorded) revision(given string) (path string, version uint64, err error) {
	path, version, err = record.Revision(given)
	return x.path(path), version, err
}

func fileFlag() cli.Flag {
	return &cli.StringFlag{Name: "file", Usage: "read this `FILE`, not the one beside the database: one that was set aside, say"}
}

func atFlag() cli.Flag {
	return &cli.StringFlag{Name: "at", Usage: "as it was then: `TIME` (2h, 3d, 2026-01-31, \"2026-01-31 15:04:05\"), a version of the tree, or a snapshot's name"}
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"}
}

func historyCommand() *cli.Command {
	return &cli.Command{
		Name: "history", ArgsUsage: "[PATH]",
		Usage: "show who changed what, and bring back what was there",
		Description: "Without one of the commands below: the changes of PATH, or of everything below it, the newest first; a file that was renamed is followed. A PATH may also be one below the mount point. " +
			"It also works while no daemon runs, on the files that it has left. Each node has a history of its own.\n" +
			"Status 0: done; 1: it could not be done, or wrong usage.",
		Flags: []cli.Flag{
			jsonFlag(), fileFlag(),
			&cli.StringFlag{Name: "since", Usage: "not older than `TIME`: 2h, 3d, \"2026-01-31\", \"2026-01-31 15:04:05\""},
			&cli.StringFlag{Name: "until", Usage: "not younger than `TIME`"},
			&cli.StringFlag{Name: "node", Usage: "made by node `NAME` only, or its number"},
			&cli.StringFlag{Name: "grep", Usage: "after which the content has `TEXT` only"},
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Usage: "the newest `N` only; 0: all", Value: 1000},
		},
		Action: onHistory(0, 1, "[PATH]", (*recorded).list),
		Subcommands: []*cli.Command{
			{
				Name: "show", ArgsUsage: "PATH[@REVISION]", Usage: "show a file as it was",
				Description: "Without a revision and --at: as it was last, also if it is deleted.\nStatus 0: done; 1: there was no such file.",
				Flags:       []cli.Flag{atFlag(), fileFlag(), jsonFlag()},
				Action:      onHistory(1, 1, "PATH[@REVISION]", (*recorded).show),
			},
			{
				Name: "diff", ArgsUsage: "PATH [A [B]]", Usage: "show what has changed in a file between two revisions",
				Description: "Without B: since A. Without A, too: by the last change.\nStatus 0: done, whether there is a difference or not; 1: it could not be done.",
				Flags:       []cli.Flag{fileFlag()},
				Action:      onHistory(1, 3, "PATH [A [B]]", (*recorded).diff),
			},
			{
				Name: "blame", ArgsUsage: "PATH[@REVISION]", Usage: "show which change each line of a file has come with",
				Description: "Status 0: done; 1: there is no such file.",
				Flags:       []cli.Flag{fileFlag(), jsonFlag()},
				Action:      onHistory(1, 1, "PATH[@REVISION]", (*recorded).blame),
			},
			{
				Name: "export", ArgsUsage: "DIR", Usage: "write the whole tree as it was",
				Description: "DIR must be empty or not exist. A new one appears when it is whole. Private entries get the modes 0600 and 0700.\nStatus 0: done; 1: it could not be done.",
				Flags:       []cli.Flag{atFlag(), fileFlag()},
				Action:      onHistory(1, 1, "DIR", (*recorded).export),
			},
			{
				Name: "restore", ArgsUsage: "PATH[@REVISION]", Usage: "bring back what was there",
				Description: "Without a revision and --at: what was there before the last change, the last content of a file that was deleted. It is written through the mount, as anybody would: the whole cluster has it then, a node without quorum refuses it, and it is a change that can be undone in the same way. It shows the difference, and asks.\n" +
					"Refused are guests whose VMID is in use elsewhere now, and what something of another kind is in the way of.\n" +
					"Status 0: done, or nothing was to be done; 1: refused, failed, or not wanted.",
				Flags: []cli.Flag{
					atFlag(), fileFlag(), yesFlag(),
					&cli.StringFlag{Name: "deleted", Usage: "bring back everything that was deleted in `DIR` and isn't there now"},
					&cli.StringFlag{Name: "since", Usage: "with --deleted: what was deleted after `TIME` only"},
				},
				Action: onHistory(0, 1, "PATH[@REVISION], or --deleted DIR", (*recorded).restore),
			},
		},
	}
}

func (x *recorded) list() error {
	c := x.c
	q := history.Query{Node: c.String("node")}
	var err error
	if q.Since, err = diagnosis.ParseSince(c.String("since"), x.now); err != nil {
		return fmt.Errorf("--since: %w", err)
	}
	if q.Until, err = diagnosis.ParseSince(c.String("until"), x.now); err != nil {
		return fmt.Errorf("--until: %w", err)
	}
	if c.NArg() > 0 {
		q.Path = x.path(c.Args().First())
	}
	most, grep := c.Int("lines"), []byte(c.String("grep"))
	if c.Bool("json") && !c.IsSet("lines") {
		most = 0
	}
	list, more := []history.Change{}, false
	// The content is looked at afterwards: one thing is read at a time.
	wanted := func(h history.Change) bool {
		if most > 0 && len(list) == most && len(grep) == 0 {
			more = true
			return false
		}
		list = append(list, h)
		return true
	}
	if err := x.r.List(q, wanted); err != nil {
		return err
	}
	// Where a file has come from by a rename.
	if n := len(list); q.Path != "" && n > 0 && !more {
		if first := list[n-1]; first.Path == q.Path && first.Kind == history.Rename && first.From != "" && first.State != history.Absent {
			former, err := x.r.Follow(first.From, first.Set-1)
			if err != nil {
				return err
			}
			for _, h := range former {
				if (q.Since.IsZero() || !h.Time.Before(q.Since)) && (q.Until.IsZero() || !h.Time.After(q.Until)) &&
					(q.Node == "" || q.Node == h.Node || q.Node == fmt.Sprint(h.NodeID)) && !wanted(h) {
					break
				}
			}
		}
	}
	if len(grep) > 0 {
		kept := list[:0]
		for _, h := range list {
			has, err := x.r.Contains(h, grep)
			if err != nil {
				fmt.Fprintf(c.App.ErrWriter, "%s: %v\n", c.App.Name, err)
			}
			if has {
				kept = append(kept, h)
			}
		}
		list = kept
		if most > 0 && len(list) > most {
			list, more = list[:most], true
		}
	}
	gaps, err := x.r.Gaps()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if gaps == nil {
			gaps = []history.Gap{}
		}
		return writeJSON(x.out(), struct {
			Changes []history.Change `json:"changes"`
			Gaps    []history.Gap    `json:"gaps"`
		}{list, gaps})
	}
	out := bufio.NewWriter(x.out())
	defer out.Flush()
	for _, h := range list {
		for len(gaps) > 0 && gaps[0].Seq > h.Seq {
			if (q.Until.IsZero() || !gaps[0].Time.After(q.Until)) && (q.Since.IsZero() || !gaps[0].Time.Before(q.Since)) {
				fmt.Fprintln(out, x.gap(&gaps[0]))
			}
			gaps = gaps[1:]
		}
		fmt.Fprintln(out, x.line(&h))
	}
	switch {
	case len(list) == 0:
		fmt.Fprintln(out, "the history has no such change")
	case more:
		fmt.Fprintf(out, "there are older ones: --lines 0 shows all\n")
	}
	return nil
}

func (x *recorded) gap(g *history.Gap) string {
	return x.paint("33", fmt.Sprintf("%s  the changes after version %d up to version %d are missing: %s", g.Time.Format(time.DateTime), g.After, g.Version, g.Reason))
}

// line describes a change in a line.
func (x *recorded) line(h *history.Change) string {
	node := h.Node
	if node == "" {
		node = fmt.Sprintf("node %d", h.NodeID)
	}
	size := "-"
	if h.State == history.File {
		size = fmt.Sprint(h.Size)
	}
	code := map[history.Kind]string{history.Create: "32", history.Mkdir: "32", history.Delete: "31", history.Rename: "36", history.Sync: "35", history.Found: "35"}[h.Kind]
	text := fmt.Sprintf("%s  %8d  %-12s %s %8s  %s", h.Time.Format(time.DateTime), h.Version, clean(node), x.paint(code, fmt.Sprintf("%-6s", h.Kind)), size, clean(h.Path))
	switch {
	case h.From != "":
		text += " (from " + clean(h.From) + ")"
	case h.To != "":
		text += " (to " + clean(h.To) + ")"
	case h.State == history.Absent && h.Kind != history.Delete:
		text += " (gone)"
	}
	if h.CatchUp != nil {
		text += x.paint("2", fmt.Sprintf(" [version %d to %d, from %s]", h.CatchUp.From, h.CatchUp.To, clean(h.CatchUp.Leader)))
	}
	if h.Omitted > 0 {
		text += x.paint("2", fmt.Sprintf(" [%d before it thinned out]", h.Omitted))
	}
	return text
}

// clean makes a name fit for a terminal.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
}

func (x *recorded) show() error {
	path, version, err := x.revision(x.c.Args().First())
	if err != nil {
		return err
	}
	h, err := record.At(x.r, path, version, x.c.String("at"), x.now)
	if err == nil && h.State == history.Absent && version == 0 && x.c.String("at") == "" {
		h, err = record.Before(x.r, path) // it is gone: as it was last
	}
	switch {
	case err != nil:
		return err
	case h.State == history.Directory:
		return fmt.Errorf("%s was a directory then", path)
	case h.State == history.Absent:
		return fmt.Errorf("%s was not there then (gone with version %d)", path, h.Version)
	}
	data, err := x.r.Content(h)
	if err != nil {
		return err
	}
	if x.c.Bool("json") {
		return writeJSON(x.out(), struct {
			history.Change
			Content []byte `json:"content"`
		}{h, data})
	}
	_, err = x.out().Write(data)
	return err
}

func (x *recorded) diff() error {
	args := x.c.Args().Slice()
	path, version, err := x.revision(args[0])
	if err != nil {
		return err
	}
	at := func(point string) (history.Change, error) { return record.At(x.r, path, 0, point, x.now) }
	var a, b history.Change
	switch {
	case version != 0 && len(args) == 1: // by this change
		if b, err = record.At(x.r, path, version, "", x.now); err == nil {
			a, err = x.earlier(b)
		}
	case len(args) == 1:
		if b, err = at(""); err == nil {
			a, err = x.earlier(b)
		}
	default:
		if a, err = at(args[1]); err == nil {
			point := ""
			if len(args) == 3 {
				point = args[2]
			}
			b, err = at(point)
		}
	}
	if err != nil {
		return err
	}
	return x.unified(a, b)
}

// earlier returns the state before a change; what was not there is absent.
func (x *recorded) earlier(h history.Change) (history.Change, error) {
	list, err := x.r.Follow(h.Path, h.Seq)
	if err != nil || len(list) < 2 {
		return history.Change{Path: h.Path}, err
	}
	return list[1], nil
}

func (x *recorded) unified(a, b history.Change) error {
	name := func(h history.Change) string {
		if h.State == history.Absent {
			return "/dev/null"
		}
		return fmt.Sprintf("%s@%d\t%s", clean(h.Path), h.Version, h.Time.Format(time.DateTime))
	}
	textA, err := x.r.Content(a)
	if err != nil {
		return err
	}
	textB, err := x.r.Content(b)
	if err != nil {
		return err
	}
	record.Unified(x.out(), x.color, name(a), name(b), textA, textB)
	return nil
}

func (x *recorded) blame() error {
	path, version, err := x.revision(x.c.Args().First())
	if err != nil {
		return err
	}
	upTo := int64(0)
	if version != 0 {
		h, err := record.At(x.r, path, version, "", x.now)
		if err != nil {
			return err
		}
		upTo = h.Seq
	}
	list, err := record.Blame(x.r, path, upTo)
	if err != nil {
		return err
	}
	if x.c.Bool("json") {
		return writeJSON(x.out(), list)
	}
	for _, l := range list {
		node := l.Change.Node
		if node == "" {
			node = fmt.Sprintf("node %d", l.Change.NodeID)
		}
		fmt.Fprintf(x.out(), "%s %s\n", x.paint("2", fmt.Sprintf("%8d  %-12s %s", l.Change.Version, clean(node), l.Change.Time.Format(time.DateTime))), strings.TrimSuffix(l.Text, "\n"))
	}
	return nil
}

// point is where --at says, or the last one.
func (x *recorded) point() (p history.Point, err error) {
	if at := x.c.String("at"); at != "" {
		p, err = record.Point(x.r, at, x.now)
	} else {
		p, err = x.r.Latest()
	}
	if err == nil && p.Between != "" {
		fmt.Fprintf(x.c.App.ErrWriter, "%s: %s: this is the tree of version %d\n", x.c.App.Name, p.Between, p.Version)
	}
	return p, err
}

func (x *recorded) export() error {
	p, err := x.point()
	if err != nil {
		return err
	}
	tree, err := record.Tree(x.r, p)
	if err != nil {
		return err
	}
	return dbtool.Export(x.c, tree, x.c.Args().First())
}

// mount returns the mount, if the tree can be changed there now.
func (x *recorded) mount() (record.Mount, error) {
	s, err := inspect.NewClient(x.h.Socket).Status(x.c.Context)
	if err != nil {
		return "", fmt.Errorf("nothing can be changed without the daemon: %w", err)
	}
	if s.Cluster != nil && !s.Cluster.Quorate {
		return "", errors.New("nothing was done: this node has no quorum, and everything is read-only (see which nodes are missing: pmxcfs status)")
	}
	for _, r := range s.NotReady {
		return "", fmt.Errorf("nothing was done: %s", r.Text)
	}
	return record.Mount(s.Daemon.MountPoint), nil
}

func (x *recorded) restore() error {
	below, all := x.c.String("deleted"), x.c.IsSet("deleted")
	if all == (x.c.NArg() == 1) {
		return errors.New("give a PATH[@REVISION], or --deleted DIR")
	}
	mount, err := x.mount()
	if err != nil {
		return err
	}
	if all {
		list, err := x.deleted(x.path(below))
		if err != nil {
			return err
		}
		return x.bringBack(mount, list, nil)
	}
	path, version, err := x.revision(x.c.Args().First())
	if err != nil {
		return err
	}
	var h history.Change
	if version == 0 && x.c.String("at") == "" {
		h, err = record.Before(x.r, path)
	} else {
		h, err = record.At(x.r, path, version, x.c.String("at"), x.now)
	}
	if err != nil {
		return err
	}
	data, err := x.r.Content(h)
	if err != nil {
		return err
	}
	return x.bringBack(mount, []record.Wanted{{Path: path, State: h.State, Data: data}}, nil)
}

// deleted is what was deleted below a directory, and isn't there now, as it was last.
func (x *recorded) deleted(dir string) (list []record.Wanted, err error) {
	since, err := diagnosis.ParseSince(x.c.String("since"), x.now)
	if err != nil {
		return nil, fmt.Errorf("--since: %w", err)
	}
	p, err := x.r.Latest()
	if err != nil {
		return nil, err
	}
	var gone []history.Change
	if err := x.r.Tree(p, dir, true, func(h history.Change) error {
		if h.State == history.Absent && h.To == "" && !h.Time.Before(since) {
			gone = append(gone, h)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for _, g := range gone {
		h, err := record.Before(x.r, g.Path)
		if err != nil {
			fmt.Fprintf(x.c.App.ErrWriter, "%s: %v\n", x.c.App.Name, err)
			continue
		}
		data, err := x.r.Content(h)
		if err != nil {
			return nil, err
		}
		list = append(list, record.Wanted{Path: g.Path, State: h.State, Data: data})
	}
	return list, nil
}

// bringBack shows what would be done, asks, and does it. Kept are paths that stay although they
// were not there.
func (x *recorded) bringBack(mount record.Mount, wanted []record.Wanted, kept []string) error {
	plan, err := mount.PlanAll(wanted)
	if err != nil {
		return err
	}
	refused := 0
	for i := range plan {
		p := &plan[i]
		switch {
		case p.Refused != nil:
			refused++
			fmt.Fprintf(x.c.App.ErrWriter, "%s: %s is not restored: %v\n", x.c.App.Name, clean(p.Path), p.Refused)
		case p.Want == history.Directory:
			fmt.Fprintf(x.out(), "make directory %s\n", clean(p.Path))
		case p.Want == history.Absent:
			fmt.Fprintf(x.out(), "delete %s\n", clean(p.Path))
			fallthrough
		default:
			a, b := clean(p.Path)+" (now)", clean(p.Path)+" (restored)"
			if p.Have == history.Absent {
				a = "/dev/null"
			}
			if p.Want == history.Absent {
				b = "/dev/null"
			}
			if !record.Unified(x.out(), x.color, a, b, p.Present, p.Data) && p.Want == history.File {
				fmt.Fprintf(x.out(), "make %s, an empty file\n", clean(p.Path))
			}
		}
	}
	if len(kept) > 0 {
		fmt.Fprintf(x.out(), "%d files and directories that were made since then stay (--delete removes them), such as %s\n", len(kept), clean(kept[0]))
	}
	if len(plan) == refused {
		if refused > 0 {
			return errors.New("nothing was done")
		}
		fmt.Fprintln(x.out(), "nothing has to be done: it is so already")
		return nil
	}
	if !x.c.Bool("yes") {
		if err := x.ask(fmt.Sprintf("Do this (%d of %d)? [y/N] ", len(plan)-refused, len(plan))); err != nil {
			return err
		}
	}
	done := 0
	for i := range plan {
		if plan[i].Refused != nil {
			continue
		}
		if err := mount.Do(&plan[i]); err != nil {
			return fmt.Errorf("%w; %d of %d were restored", err, done, len(plan))
		}
		done++
	}
	fmt.Fprintf(x.out(), "restored: %d\n", done)
	if refused > 0 {
		return fmt.Errorf("%d of %d were not restored", refused, len(plan))
	}
	return nil
}

// ask waits for a yes.
func (x *recorded) ask(question string) error {
	in, ok := x.c.App.Reader.(*os.File)
	if !ok || !diagnosis.Terminal(in) {
		return errors.New("nothing was done: give --yes to do it")
	}
	fmt.Fprint(x.out(), question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
