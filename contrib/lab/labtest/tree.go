package labtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Path is where, on this machine, a path of the node's tree is.
func (n *Node) Path(p string) string { return n.Host.Path("/etc/pve/" + p) }

// Write writes a file of the tree.
func (n *Node) Write(p, content string) {
	n.T.Helper()
	n.Must(os.WriteFile(n.Path(p), []byte(content), 0o640))
}

// Mkdir makes a directory of the tree, and those above it.
func (n *Node) Mkdir(p string) {
	n.T.Helper()
	n.Must(os.MkdirAll(n.Path(p), 0o755))
}

// Remove removes from the tree what is there, with all below it.
func (n *Node) Remove(p string) {
	n.T.Helper()
	n.Must(os.RemoveAll(n.Path(p)))
}

// Holds objects unless the node shows a file with that content.
func (n *Node) Holds(p, content string) error {
	b, err := os.ReadFile(n.Path(p))
	if err == nil && string(b) != content {
		err = fmt.Errorf("it holds %s, want %s", brief(string(b)), brief(content))
	}
	return err
}

// WantFile waits until the node shows a file with that content.
func (n *Node) WantFile(p, content string) {
	n.T.Helper()
	n.Eventually(p+" is there", func() error { return n.Holds(p, content) })
}

// WantDir waits until the node shows a directory.
func (n *Node) WantDir(p string) {
	n.T.Helper()
	n.Eventually(p+" is there", func() error {
		st, err := os.Stat(n.Path(p))
		if err == nil && !st.IsDir() {
			err = errors.New("it is no directory")
		}
		return err
	})
}

// WantNone waits until the node shows no such file.
func (n *Node) WantNone(p string) {
	n.T.Helper()
	n.Eventually(p+" is gone", func() error {
		switch _, err := os.Stat(n.Path(p)); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		return errors.New("it is there")
	})
}

// Everywhere waits until all nodes show a file with that content.
func (c *Cluster) Everywhere(p, content string) {
	c.T.Helper()
	for _, n := range c.Nodes {
		n.WantFile(p, content)
	}
}

// Tree lists what the node shows, special files and links aside, depth first and
// sorted: directories as "path/", files as `path: "content"`.
func (n *Node) Tree() []string {
	n.T.Helper()
	list, err := n.ReadTree()
	n.Must(err)
	return list
}

// ReadTree is Tree while others may change it: what vanishes meanwhile is an error.
func (n *Node) ReadTree() (list []string, err error) {
	err = filepath.WalkDir(n.Path(""), func(name string, d fs.DirEntry, err error) error {
		p, rerr := filepath.Rel(n.Path(""), name)
		if err = errors.Join(err, rerr); err != nil || p == "." {
			return err
		}
		switch {
		case d.IsDir():
			list = append(list, p+"/")
		case d.Type().IsRegular() && !strings.HasPrefix(p, "."):
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			list = append(list, fmt.Sprintf("%s: %q", p, b))
		}
		return nil
	})
	return list, err
}

func brief(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q… (%d bytes)", s[:60], len(s))
	}
	return fmt.Sprintf("%q", s)
}
