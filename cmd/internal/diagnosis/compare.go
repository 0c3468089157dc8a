package diagnosis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"pmxcfs/status/inspect"
)

// compareTime is how long to wait for a comparison: longer than the daemon does.
const compareTime = 70 * time.Second

// Compare has the daemon compare the nodes' trees.
func (h *Host) Compare(ctx context.Context) (*inspect.Comparison, error) {
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	if h.Socket == "" {
		return nil, fmt.Errorf("%w: it has no socket (option --socket)", inspect.ErrNoAnswer)
	}
	return inspect.NewClient(h.Socket).Compare(ctx)
}

// CompareExit is the exit status for a comparison.
func CompareExit(c *inspect.Comparison) int {
	switch n := comparedNodes(c); {
	case n < 2 && len(c.Nodes) > 1, passing(c):
		return ExitUnknown
	case n >= 2 && !c.Equal:
		return ExitBroken
	case !c.Complete:
		return ExitAttention
	}
	return ExitFine
}

// passing tells whether nodes differed at each look, and never twice in one entry.
func passing(c *inspect.Comparison) bool {
	return !c.Equal && len(c.Differences) == 0 && !c.Omitted && comparedNodes(c) >= 2
}

func comparedNodes(c *inspect.Comparison) (n int) {
	for i := range c.Nodes {
		if c.Nodes[i].State == inspect.NodeCompared {
			n++
		}
	}
	return n
}

// Comparison writes a comparison for people.
func (p *Painter) Comparison(c *inspect.Comparison) {
	n := comparedNodes(c)
	switch {
	case n < 2 && len(c.Nodes) > 1:
		p.printf("%s: no two nodes could be compared\n", p.paint(yellow, "not known"))
	case n < 2:
		p.printf("%s: there is no other node\n", p.paint(green, "equal"))
	case passing(c):
		p.printf("%s: the %d nodes that were compared differed each time, but not twice in the same entry: changes go on; try again\n", p.paint(yellow, "not known"), n)
	case !c.Equal:
		p.printf("%s: the %d nodes that were compared do not hold the same tree\n", p.paint(red, "different"), n)
	case !c.Complete:
		p.printf("%s: the %d nodes that were compared hold the same tree; not all were\n", p.paint(yellow, "equal"), n)
	default:
		p.printf("%s: all %d nodes hold the same tree\n", p.paint(green, "equal"), n)
	}
	p.printf("\n")
	rows := [][]cell{head("Node", "ID", "Compared", "Mode", "Version", "Digest", "Software")}
	for _, n := range c.Nodes {
		row := []cell{{clean(n.Name), ""}, {fmt.Sprint(n.ID), ""}, {"yes", green}, {clean(or(n.Mode, "-")), ""}, {"-", ""}, {clean(or(n.Digest, "-")), ""}, {clean(or(n.Software, "-")), ""}}
		if n.State != inspect.NodeCompared {
			row[2] = cell{"no: " + clean(n.State), yellow}
		}
		if n.Version > 0 {
			row[4].text = fmt.Sprint(n.Version)
		}
		if len(n.Digest) > 16 {
			row[5].text = clean(n.Digest[:16])
		}
		rows = append(rows, row)
	}
	p.table(rows)
	for _, n := range c.Nodes {
		if n.Reason != "" {
			p.printf("%s: %s\n", clean(n.Name), clean(n.Reason))
		}
	}
	if len(c.Differences) == 0 {
		return
	}
	p.printf("\n%s\n", p.paint(bold, "What differs"))
	for i := range c.Differences {
		p.difference(&c.Differences[i])
	}
	if c.Omitted {
		p.printf("  and more: at least %d entries differ in all\n", c.AtLeast)
	}
}

func (p *Painter) difference(d *inspect.Difference) {
	p.printf("  %s  %s\n", clean(d.Path), p.paint(yellow, strings.Join(d.What, ", ")))
	for _, node := range slices.Sorted(maps.Keys(d.Have)) {
		v := d.Have[node]
		if v == nil {
			p.printf("    %s: missing\n", clean(node))
			continue
		}
		text := fmt.Sprintf("%s of %d bytes, version %d, by node %d at %s", v.Type, v.Size, v.Version, v.Writer, when(v.MTime))
		if v.Type == "directory" {
			text = fmt.Sprintf("directory, version %d, by node %d at %s", v.Version, v.Writer, when(v.MTime))
		}
		if v.Path != d.Path {
			text += ", at " + v.Path
		}
		if len(v.Content) > 12 && slices.Contains(d.What, "content") {
			text += ", content " + v.Content[:12]
		}
		p.printf("    %s: %s\n", clean(node), clean(text))
	}
}
