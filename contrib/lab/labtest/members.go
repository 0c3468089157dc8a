package labtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// Members is what .members says.
type Members struct {
	NodeName string
	Version  int
	Cluster  *struct {
		Name                    string
		Version, Nodes, Quorate int
	}
	NodeList map[string]struct {
		ID, Online int
		IP         string
	}
}

// Members reads .members.
func (n *Node) Members() (m Members, err error) {
	b, err := os.ReadFile(n.Path(".members"))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// Online gives the ids, ascending, of the nodes that .members shows so, and
// whether this one is quorate.
func (n *Node) Online() (ids []int, quorate bool, err error) {
	m, err := n.Members()
	if err != nil || m.Cluster == nil {
		return nil, false, err
	}
	for _, x := range m.NodeList {
		if x.Online == 1 {
			ids = append(ids, x.ID)
		}
	}
	slices.Sort(ids)
	return ids, m.Cluster.Quorate == 1, nil
}

// WantWritable waits until the node takes changes.
func (n *Node) WantWritable() {
	n.T.Helper()
	n.Eventually("it takes changes", func() error {
		name := n.Path("probe-of-" + n.Host.Name())
		err := os.Mkdir(name, 0o755)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Remove(name)
		}
		return err
	})
}

// WantTogether waits until these nodes, and no others, are members beside each
// other and show each other's changes.
func (c *Cluster) WantTogether(nodes ...*Node) {
	c.T.Helper()
	var ids []int
	for _, n := range nodes {
		ids = append(ids, n.Host.ID())
	}
	slices.Sort(ids)
	for _, n := range nodes {
		n.Eventually(fmt.Sprintf("nodes %v are online", ids), func() error {
			got, quorate, err := n.Online()
			if err == nil && (!slices.Equal(got, ids) || !quorate) {
				err = fmt.Errorf("online %v, quorate %v", got, quorate)
			}
			return err
		})
	}
	for _, n := range nodes {
		n.WantWritable()
		p := "together-" + n.Host.Name()
		content := fmt.Sprint(time.Now().UnixNano())
		n.Write(p, content)
		for _, o := range nodes {
			o.WantFile(p, content)
		}
		n.Must(os.Remove(n.Path(p)))
		for _, o := range nodes {
			o.WantNone(p)
		}
	}
}

// WantReadOnly waits until the node has no quorum, and checks what that means for
// the tree, which has a file of that name and the directories nodes and priv.
func (n *Node) WantReadOnly(file string) {
	n.T.Helper()
	n.Eventually("it has lost quorum", func() error {
		st, err := os.Stat(n.Path(file))
		if err == nil && st.Mode().Perm() != 0o440 {
			err = fmt.Errorf("%s has mode %v", file, st.Mode())
		}
		return err
	})
	before, err := os.ReadFile(n.Path(file))
	n.Must(err)
	for what, f := range map[string]func() error{
		"write":  func() error { return os.WriteFile(n.Path(file), []byte("refused"), 0o640) },
		"create": func() error { return os.WriteFile(n.Path("refused"), nil, 0o640) },
		"mkdir":  func() error { return os.Mkdir(n.Path("refused.d"), 0o755) },
		"rename": func() error { return os.Rename(n.Path(file), n.Path("refused")) },
		"unlink": func() error { return os.Remove(n.Path(file)) },
		"utimes": func() error { return os.Chtimes(n.Path(file), time.Time{}, time.Unix(5, 0)) },
	} {
		if err := f(); !errors.Is(err, syscall.EACCES) {
			n.T.Errorf("%s without quorum: %s: %v, want EACCES", n, what, err)
		}
	}
	if after, err := os.ReadFile(n.Path(file)); err != nil || !bytes.Equal(before, after) {
		n.T.Errorf("%s: reading without quorum: %v", n, err)
	}
	for p, want := range map[string]fs.FileMode{"nodes": 0o555 | fs.ModeDir, "priv": 0o500 | fs.ModeDir, "": 0o755 | fs.ModeDir, ".version": 0o440} {
		st, err := os.Stat(n.Path(p))
		n.Must(err)
		if st.Mode() != want {
			n.T.Errorf("%s: mode of %q without quorum: %v, want %v", n, p, st.Mode(), want)
		}
	}
}
