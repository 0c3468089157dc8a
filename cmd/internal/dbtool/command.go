package dbtool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/exit"
	"pmxcfs/memdb/sqlite"
)

const defaultDatabase = "/var/lib/pve-cluster/config.db"

// Command returns the commands that work on a database as a file: beside a
// running daemon or without one. They need no rights but those on the files,
// change no file that exists, and leave nothing beside it.
//
// Exit status: 0 done, and the file is sound; 1 something failed, or the file is
// not sound; 2 wrong usage.
func Command() *cli.Command {
	commands := []*cli.Command{
		{
			Name: "check", Action: check, ArgsUsage: "[FILE]",
			Usage:       "look for whatever keeps a database from being loaded",
			Description: "Every rule of loading, and SQLite's own check of the file. One line per finding; warnings do not keep the daemon from starting.\nStatus 0: sound; 1: not sound, or not readable; 2: wrong usage.",
		},
		{
			Name: "repair", Action: repair, ArgsUsage: "[FILE] NEWFILE",
			Usage: "make a sound database of a broken one, in a new file",
			Description: "Says each thing that it changes. What has no place in the tree any more goes to " + sqlite.LostAndFound +
				". Of a file that SQLite calls damaged, it takes the rows that can still be found.\nA node whose cluster still has the whole tree needs no repair: start it without a database, and it gets the tree from the others.",
		},
		{
			Name: "dump", Action: dump, ArgsUsage: "[FILE]",
			Usage:       "list a database's entries",
			Description: "A line per entry: type, inode, version, writer, time of change, size, path. It shows broken databases, too, as far as they can be read.",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "json", Usage: "write one JSON object, with everything about each entry"},
				&cli.BoolFlag{Name: "content", Usage: "write the files' contents, too (in JSON as base64); secrets are among them"},
			},
		},
		{
			Name: "export", Action: export, ArgsUsage: "[FILE] DIR",
			Usage:       "write the tree as files",
			Description: "DIR must be empty or not exist. A new one appears when it is whole. Private entries get the modes 0600 and 0700.",
		},
		{
			Name: "import", Action: importTree, ArgsUsage: "DIR NEWFILE",
			Usage:       "make a new database of a directory's files",
			Description: "Symbolic links and special files are refused. Also called as create_pmxcfs_db DIR NEWFILE.",
		},
		{
			Name: "backup", Action: backup, ArgsUsage: "FILE",
			Usage:       "copy the database to a new file, while the daemon runs or not",
			Description: "The copy is one consistent state, and is verified by loading it.",
		},
	}
	for _, c := range commands {
		c.Flags = append(c.Flags, databaseFlag())
		c.OnUsageError = usageError
		c.HideHelpCommand = true
	}
	return &cli.Command{
		Name:            "db",
		Usage:           "work on a database file",
		Description:     "Each FILE that is not given is the daemon's: see --database. No file that exists is ever changed.",
		Flags:           []cli.Flag{databaseFlag()},
		Subcommands:     commands,
		HideHelpCommand: true,
		OnUsageError:    usageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage(c, "unknown command %q", c.Args().First())
			}
			return usage(c, "a command is missing")
		},
	}
}

// databaseFlag is the daemon's option, given again so that it can stand behind
// the command's name. The environment is the daemon's option's to read: here, it
// would win over that.
func databaseFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "database", Aliases: []string{"D"},
		Usage: "the database's `FILE`", DefaultText: "$PMXCFS_DATABASE, or " + defaultDatabase,
	}
}

// databasePath returns the path of the daemon's database: that of the innermost
// option --database that is set, else the default, below --root. An option or a variable
// without a value is an error, as to the daemon: the default would be another database
// than the one that was meant.
func databasePath(c *cli.Context) (string, error) {
	path, root := "", "/"
	for _, ctx := range c.Lineage() {
		if ctx.Command == nil && ctx.App == nil {
			continue
		}
		for _, o := range []struct {
			name  string
			value *string
		}{{"database", &path}, {"root", &root}} {
			if value := ctx.String(o.name); value != "" {
				*o.value = value
			} else if ctx.IsSet(o.name) {
				return "", usage(c, "--%s is empty: give it a path, or leave the option out", o.name)
			}
		}
		if path != "" {
			return path, nil
		}
	}
	for _, variable := range []string{"PMXCFS_DATABASE", "PMXCFS_ROOT"} {
		if text, there := os.LookupEnv(variable); there && text == "" {
			return "", usage(c, "%s is empty: give it a path, or unset it", variable)
		}
	}
	return filepath.Join(root, defaultDatabase), nil
}

func usageError(c *cli.Context, err error, _ bool) error { return usage(c, "%v", err) }

func usage(c *cli.Context, format string, args ...any) error {
	name := "db"
	if c.Command != nil && c.Command.Name != "db" && c.Command.Name != "" {
		name += " " + c.Command.Name
	}
	return cli.Exit(fmt.Sprintf("%s: %s (pmxcfs %s --help shows what is possible)", name, fmt.Sprintf(format, args...), name), exit.Usage)
}

// arguments returns a command's arguments. Of the names, all but the first are
// needed; the first, FILE, may be left out for the daemon's database.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	for i, a := range args {
		if a == "" {
			return nil, usage(c, "argument %d is empty: give it a path", i+1)
		}
		if len(a) > 1 && a[0] == '-' {
			return nil, usage(c, "options come before the arguments: %s", a)
		}
	}
	switch len(args) {
	case len(names):
		return args, nil
	case len(names) - 1:
		path, err := databasePath(c)
		return append([]string{path}, args...), err
	}
	return nil, usage(c, "the arguments are %s", "["+names[0]+"] "+strings.Join(names[1:], " "))
}

// failed is the end of a command that could not do its work.
func failed(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	hint := ""
	switch {
	case errors.Is(err, fs.ErrExist):
		hint = " (nothing is ever overwritten: choose another name)"
	case errors.Is(err, fs.ErrNotExist):
		hint = " (is the path right?)"
	case errors.Is(err, fs.ErrPermission):
		hint = " (only the owner, usually root, may do that)"
	case errors.Is(err, syscall.ENOSPC):
		hint = " (make room there, or choose another place; TMPDIR says where temporary copies go)"
	}
	return cli.Exit(err.Error()+hint, exit.Failure)
}
