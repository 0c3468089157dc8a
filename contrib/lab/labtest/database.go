package labtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"pmxcfs/memdb/sqlite"
)

// Database is where, on this machine, the node's database is.
func (n *Node) Database() string { return filepath.Join(n.Host.Dir(), "pve-cluster", "config.db") }

// RemoveDatabase removes it, and all beside it. The daemon must not run.
func (n *Node) RemoveDatabase() {
	n.T.Helper()
	dir := filepath.Dir(n.Database())
	files, err := os.ReadDir(dir)
	n.Must(err)
	for _, f := range files {
		n.Must(os.Remove(filepath.Join(dir, f.Name())))
	}
}

// Rows describes the rows of the node's database. The daemon must not run.
func (n *Node) Rows() (rows []string) {
	n.T.Helper()
	contents, err := sqlite.Read(n.Database())
	n.Must(err)
	if len(contents.Problems) > 0 {
		n.T.Errorf("%s: the database has problems: %v", n, contents.Problems)
	}
	for _, e := range contents.Entries {
		rows = append(rows, fmt.Sprintf("%d parent %d version %d writer %d mtime %d %v %q %d bytes digest %x",
			e.Inode, e.Parent, e.Version, e.Writer, e.MTime, e.Type, e.Name, e.Size(), e.Digest()))
	}
	return rows
}

// WantSameDatabases stops all daemons and compares the rows of what they leave.
func (c *Cluster) WantSameDatabases() {
	c.T.Helper()
	for _, n := range c.Nodes {
		if n.Running() {
			n.Stop()
		}
	}
	c.WantSame("databases", (*Node).Rows)
}

// WantSame objects if something isn't the same on all nodes, or is nearly empty.
func (c *Cluster) WantSame(what string, of func(*Node) []string) {
	c.T.Helper()
	first := of(c.Nodes[0])
	if len(first) < 2 {
		c.T.Errorf("%s: only %q", what, first)
	}
	for _, n := range c.Nodes[1:] {
		rows := of(n)
		if slices.Equal(first, rows) {
			continue
		}
		i := 0
		for i < min(len(first), len(rows)) && first[i] == rows[i] {
			i++
		}
		at := func(list []string) string {
			if i < len(list) {
				return list[i]
			}
			return "none"
		}
		c.T.Errorf("the %s differ:\n%s: %s\n%s: %s", what, c.Nodes[0], at(first), n, at(rows))
	}
}
