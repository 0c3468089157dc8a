package dbtool

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

func dump(c *cli.Context) error {
	args, err := arguments(c, "FILE")
	if err != nil {
		return err
	}
	contents, err := sqlite.Read(args[0])
	if err != nil {
		return failed("dumping the database: %w", err)
	}
	paths := make(map[*memdb.Entry]string, len(contents.Entries))
	for i, path := range memdb.Paths(contents.Entries, longestPath) {
		paths[contents.Entries[i]] = path
	}
	list := slices.Clone(contents.Entries)
	slices.SortStableFunc(list, func(a, b *memdb.Entry) int { return strings.Compare(paths[a], paths[b]) })
	w := bufio.NewWriterSize(c.App.Writer, 1<<16)
	if c.Bool("json") {
		err = dumpJSON(w, list, paths, c.Bool("content"))
	} else {
		dumpText(w, list, paths, c.Bool("content"))
	}
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		return failed("dumping the database: %w", err)
	}
	printProblems(c.App.ErrWriter, contents.Problems)
	if contents.Fatal() {
		return failed("%s is not sound: see pmxcfs db check and repair", args[0])
	}
	return nil
}

// longestPath is the longest path that is written out, in bytes.
const longestPath = 1024

func dumpText(w io.Writer, list []*memdb.Entry, paths map[*memdb.Entry]string, content bool) {
	fmt.Fprintf(w, "%-9s %10s %10s %6s %-20s %8s %s\n", "TYPE", "INODE", "VERSION", "WRITER", "CHANGED", "SIZE", "PATH")
	for _, e := range list {
		fmt.Fprintf(w, "%-9s %10d %10d %6d %-20s %8d %s\n", e.Type, e.Inode, e.Version, e.Writer,
			time.Unix(int64(e.MTime), 0).UTC().Format(time.RFC3339), e.Size(), printable("/"+paths[e]))
		if !content {
			continue
		}
		for line := range strings.Lines(string(e.Data())) {
			if text, ok := strings.CutSuffix(line, "\n"); ok {
				fmt.Fprintf(w, "\t%s\n", printable(text))
			} else {
				fmt.Fprintf(w, "\t%s\n\\ no newline at the end\n", printable(line))
			}
		}
	}
}

// printable returns s as it is if it can be shown on a terminal, else quoted.
func printable(s string) string {
	if !utf8.ValidString(s) || strings.HasPrefix(s, `"`) {
		return strconv.Quote(s)
	}
	for _, r := range s {
		if r != '\t' && !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// dumpEntry is an entry in a JSON dump. Its fields are a contract.
type dumpEntry struct {
	Path string `json:"path"`
	// PathBytes is the path in base64, if it is not UTF-8 and Path therefore
	// not exact.
	PathBytes []byte  `json:"path_base64,omitempty"`
	Type      string  `json:"type"`
	Inode     uint64  `json:"inode"`
	Parent    uint64  `json:"parent"`
	Version   uint64  `json:"version"`
	Writer    uint32  `json:"writer"`
	MTime     uint32  `json:"mtime"`
	Size      int     `json:"size"`
	Content   *[]byte `json:"content,omitempty"` // base64
}

// dumpJSON writes one object: the database's version, writer, mtime, and its
// entries, an entry a line.
func dumpJSON(w io.Writer, list []*memdb.Entry, paths map[*memdb.Entry]string, content bool) error {
	fmt.Fprint(w, "{")
	for _, e := range list {
		if e.Inode == memdb.RootInode {
			fmt.Fprintf(w, "\"version\": %d,\n\"writer\": %d,\n\"mtime\": %d,\n", e.Version, e.Writer, e.MTime)
		}
	}
	fmt.Fprint(w, "\"entries\": [")
	for i, e := range list {
		d := dumpEntry{Path: "/" + paths[e], Type: e.Type.String(), Inode: e.Inode, Parent: e.Parent,
			Version: e.Version, Writer: e.Writer, MTime: e.MTime, Size: e.Size()}
		if !utf8.ValidString(d.Path) {
			d.PathBytes = []byte(d.Path)
		}
		if data := e.Data(); content && !e.IsDir() {
			if data == nil {
				data = []byte{}
			}
			d.Content = &data
		}
		b, err := json.Marshal(d)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		fmt.Fprintf(w, "\n%s", b)
	}
	_, err := fmt.Fprint(w, "\n]}\n")
	return err
}
