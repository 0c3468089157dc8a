package dbtool

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/exit"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

func check(c *cli.Context) error {
	args, err := arguments(c, "FILE")
	if err != nil {
		return err
	}
	f, err := examine(args[0])
	if err != nil {
		return failed("checking the database: %w", err)
	}
	f.print(c.App.Writer)
	if !f.sound() {
		fmt.Fprintf(c.App.Writer, "%s is not sound: %s. \"pmxcfs db repair %[1]s NEWFILE\" makes a sound one.\n", args[0], plural(f.errors(), "error"))
		return cli.Exit("", exit.Failure)
	}
	root := f.contents.Entries[0]
	fmt.Fprintf(c.App.Writer, "%s is sound: %s at version %d\n", args[0], entries(len(f.contents.Entries)), root.Version)
	return nil
}

// findings is everything that is wrong with a database file.
type findings struct {
	contents   *sqlite.Contents // nil means it can't be read
	unreadable error            // why
	damage     []string         // found by SQLite
	duplicates []memdb.Duplicate
}

// examine looks for all that may be wrong with a file. An error is about one
// that is not there or is no database at all.
func examine(path string) (*findings, error) {
	var (
		f   findings
		err error
	)
	f.damage, err = sqlite.IntegrityCheck(path)
	if err != nil && !sqlite.Damaged(err) {
		return nil, err
	}
	if err != nil {
		f.unreadable = err
	}
	contents, err := sqlite.Read(path)
	switch {
	case err == nil:
		f.contents = contents
	case sqlite.Damaged(err):
		f.unreadable = err
	default:
		return nil, err
	}
	if f.contents == nil || contents.Fatal() {
		return &f, nil
	}
	if len(contents.Entries) == 0 {
		f.contents.Problems = append(f.contents.Problems, memdb.Problem{What: "the database is empty: the version row is missing", Fatal: true, Unsound: true})
		return &f, nil
	}
	_, f.duplicates, err = memdb.Build(contents.Entries)
	return &f, err
}

func (f *findings) errors() int {
	n := len(f.damage) + len(f.duplicates)
	if f.unreadable != nil {
		n++
	}
	if f.contents != nil {
		for _, p := range f.contents.Problems {
			if p.Unsound {
				n++
			}
		}
	}
	return n
}

func (f *findings) sound() bool { return f.errors() == 0 }

// print writes a line for each finding.
func (f *findings) print(w io.Writer) {
	if f.unreadable != nil {
		fmt.Fprintf(w, "error: %v\n", f.unreadable)
	}
	for _, d := range f.damage {
		fmt.Fprintf(w, "error: SQLite finds the file damaged: %s\n", d)
	}
	if f.contents == nil {
		return
	}
	printProblems(w, f.contents.Problems)
	printDuplicates(w, f.duplicates)
}

func printProblems(w io.Writer, problems []memdb.Problem) {
	for _, p := range problems {
		kind := "warning"
		if p.Unsound {
			kind = "error"
		}
		fmt.Fprintf(w, "%s: %v\n", kind, p)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func entries(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
