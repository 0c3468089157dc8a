package diagnosis

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Painter writes for people.
type Painter struct {
	Out   io.Writer
	Color bool
}

// NewPainter returns one for a writer: with colour on a terminal only, and not if
// NO_COLOR is set (no-color.org).
func NewPainter(out io.Writer) *Painter {
	return &Painter{Out: out, Color: Terminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// Terminal tells whether a writer is a terminal.
func Terminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// The colours.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
	faint  = "2"
)

// paint colours a text.
func (p *Painter) paint(color, text string) string {
	if !p.Color || color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func (p *Painter) printf(format string, args ...any) { fmt.Fprintf(p.Out, format, args...) }

// color is that of a severity.
func (s Severity) color() string {
	switch s {
	case Failure:
		return red
	case Warning:
		return yellow
	case OK:
		return green
	}
	return ""
}

// cell is a part of a table.
type cell struct{ text, color string }

// table writes rows in columns, the first row being the head.
func (p *Painter) table(rows [][]cell) {
	var width []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c.text))
		}
	}
	for r, row := range rows {
		var b strings.Builder
		for i, c := range row {
			color := c.color
			if r == 0 {
				color = bold
			}
			b.WriteString(p.paint(color, c.text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		p.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
}

// head makes a table's first row.
func head(names ...string) []cell {
	row := make([]cell, len(names))
	for i, n := range names {
		row[i].text = n
	}
	return row
}

// findings writes those that say more than that all is well.
func (p *Painter) findings(list []Finding) {
	for _, f := range list {
		mark := map[Severity]string{Failure: "error", Warning: "warning", Info: "note", OK: "ok"}[f.Severity]
		p.printf("  %s  %s\n", p.paint(f.Severity.color(), fmt.Sprintf("%-7s", mark)), clean(f.Text))
		if f.Remedy != "" {
			p.printf("           %s\n", p.paint(faint, "→ "+clean(f.Remedy)))
		}
	}
}
