package dbtool

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

func repair(c *cli.Context) error {
	args, err := arguments(c, "FILE", "NEWFILE")
	if err != nil {
		return err
	}
	path, newPath := args[0], args[1]
	rows, err := rowsForRepair(c.App.Writer, path)
	if err != nil {
		return failed("repairing: %w", err)
	}
	tree, fixes := sqlite.Repair(rows)
	if err := sqlite.Create(newPath, tree); err != nil {
		return failed("repairing %s: writing the new file: %w", path, err)
	}
	for _, f := range fixes {
		fmt.Fprintf(c.App.Writer, "repaired: %v\n", f)
	}
	f, err := examine(newPath)
	if err != nil {
		return failed("checking the repaired database: %w", err)
	}
	f.print(c.App.Writer)
	if !f.sound() {
		return failed("%s is still not sound: %s", newPath, plural(f.errors(), "error"))
	}
	if len(fixes) == 0 {
		fmt.Fprintf(c.App.Writer, "nothing had to be repaired: %s holds the same %s\n", newPath, entries(len(tree)))
		return nil
	}
	fmt.Fprintf(c.App.Writer, "%s is sound: %s at version %d. To use it, stop the daemon, move %s with its -wal and -shm out of the way, and move this file there.\n",
		newPath, entries(len(tree)), tree[0].Version, path)
	return nil
}

// rowsForRepair reads a file's rows, by SQLite or, if that finds it damaged,
// by its recovery.
func rowsForRepair(w io.Writer, path string) ([]sqlite.Row, error) {
	damage, err := sqlite.IntegrityCheck(path)
	if err == nil && len(damage) == 0 {
		return sqlite.ReadRows(path)
	}
	if err != nil {
		if !sqlite.Damaged(err) {
			return nil, err
		}
		damage = []string{err.Error()}
	}
	for _, d := range damage {
		fmt.Fprintf(w, "damaged: %s\n", d)
	}
	rows, notes, err := sqlite.Recover(path)
	for _, n := range notes {
		fmt.Fprintf(w, "recovering: %s\n", n)
	}
	if err == nil {
		fmt.Fprintf(w, "recovered: %s; rows on destroyed pages are lost, and deleted ones may be back\n", plural(len(rows), "row"))
	}
	return rows, err
}

func backup(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return usage(c, "the argument is the new FILE")
	}
	args, err := arguments(c, "DATABASE", "FILE")
	if err != nil {
		return err
	}
	contents, err := sqlite.Backup(args[0], args[1])
	if err != nil {
		return failed("backing up: %w", err)
	}
	printProblems(c.App.ErrWriter, contents.Problems)
	tree := contents.Entries
	if len(tree) == 0 || contents.Fatal() {
		return failed("%s is a true copy, but of a database that is not sound: see pmxcfs db check", args[1])
	}
	_, dups, err := memdb.Build(tree)
	if err != nil {
		return failed("backing up: %w", err)
	}
	printDuplicates(c.App.ErrWriter, dups)
	fmt.Fprintf(c.App.Writer, "%s holds %s at version %d\n", args[1], entries(len(tree)), tree[0].Version)
	return nil
}

func printDuplicates(w io.Writer, dups []memdb.Duplicate) {
	for _, d := range dups {
		fmt.Fprintf(w, "error: VMID %d is claimed by %q and %q\n", d.VMID, d.Kept, d.Dropped)
	}
}
