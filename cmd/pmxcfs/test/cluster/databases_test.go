package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// TestNodeJoinsWithAnyDatabase has a node come with a database that the cluster
// doesn't know: another cluster's, or its own of long ago. The database with the
// greatest version is everybody's afterwards; of equal ones, that with the latest
// time.
func TestNodeJoinsWithAnyDatabase(t *testing.T) {
	t.Parallel()
	c := labtest.New(t, 3)
	conf := c.Lab.Conf()
	for i, s := range []struct {
		name   string
		make   func(ours []*memdb.Entry, conf string) []*memdb.Entry
		theirs bool // theirs is what all have afterwards
	}{
		{"AnotherClustersThatIsBehind", func(ours []*memdb.Entry, conf string) []*memdb.Entry {
			return foreign(root(ours).Version-1, root(ours).MTime+100, conf)
		}, false},
		{"AnotherClustersThatIsAhead", func(ours []*memdb.Entry, conf string) []*memdb.Entry {
			return foreign(root(ours).Version+5000, root(ours).MTime-100, conf)
		}, true},
		{"AnotherClustersOfTheSameVersionButEarlier", func(ours []*memdb.Entry, conf string) []*memdb.Entry {
			return foreign(root(ours).Version, root(ours).MTime-100, conf)
		}, false},
		{"AnotherClustersOfTheSameVersionButLater", func(ours []*memdb.Entry, conf string) []*memdb.Entry {
			return foreign(root(ours).Version, root(ours).MTime+100, conf)
		}, true},
		{"CollidingInodesThatAreBehind", func(ours []*memdb.Entry, conf string) []*memdb.Entry {
			return colliding(ours, root(ours).Version-1, conf)
		}, false},
		{"CollidingInodesThatAreAhead", func(ours []*memdb.Entry, conf string) []*memdb.Entry {
			return colliding(ours, root(ours).Version+1, conf)
		}, true},
	} {
		ok := t.Run(s.name, func(t *testing.T) {
			c := c.In(t)
			conf.Version++
			fill(c, conf.String())
			n := c.Node(3 - i%3) // with the lowest node id, and without
			n.Stop()
			ours := entries(n)
			// Of the same name: corosync of one name beside a tree of another is not joined at
			// all (TestRestoredDatabaseBesideAForeignCorosync).
			other := lab.Conf{Cluster: conf.Cluster, Version: 1, Token: time.Second, Nodes: []int{1, 2, 3}}.String()
			theirs := s.make(ours, other)
			n.RemoveDatabase()
			n.Must(sqlite.Create(n.Database(), theirs))
			before := len(n.Log())
			n.Start()
			want := ours
			if s.theirs {
				want = theirs
			}
			for _, o := range c.Nodes {
				wantTree(o, want)
			}
			c.WantTogether(c.Nodes...)
			for _, o := range c.Nodes {
				wantTree(o, want)
				// Corosync's own copy is newer than the other cluster's, and stays.
				if b, err := os.ReadFile(o.Host.Path("/etc/corosync/corosync.conf")); err != nil || string(b) != conf.String() {
					t.Errorf("%s: the host's corosync.conf: %v, %q", o, err, b)
				}
			}
			if !strings.Contains(n.Log()[before:], "local corosync.conf is newer") {
				t.Errorf("%s doesn't say that the tree's corosync.conf is older", n)
			}
		})
		if c.In(t); !ok {
			t.Fatal("the cluster is not as the next test needs it")
		}
	}
	t.Run("ItsOwnOfLongAgo", func(t *testing.T) { oldDatabase(c.In(t), conf) })
	c.In(t)
	c.WantSameDatabases()
}

// root is the root among entries.
func root(entries []*memdb.Entry) *memdb.Entry {
	i := slices.IndexFunc(entries, func(e *memdb.Entry) bool { return e.Inode == memdb.RootInode })
	return entries[i]
}

// entries reads a node's database.
func entries(n *node) []*memdb.Entry {
	n.T.Helper()
	contents, err := sqlite.Read(n.Database())
	n.Must(err)
	return contents.Entries
}

// fill gives the cluster a tree of its own, whatever there is.
func fill(c *cluster, conf string) {
	c.T.Helper()
	n := c.Node(2)
	list, err := os.ReadDir(n.Path(""))
	n.Must(err)
	for _, e := range list {
		if (e.IsDir() || e.Type().IsRegular()) && !strings.HasPrefix(e.Name(), ".") && e.Name() != "corosync.conf" {
			n.Remove(e.Name())
		}
	}
	replaceConf(n, conf)
	n.Write("storage.cfg", "dir: ours\n")
	for i, guest := range []string{"node1/qemu-server/100", "node2/qemu-server/101", "node3/lxc/102"} {
		n.Mkdir("nodes/" + path.Dir(guest))
		n.Write("nodes/"+guest+".conf", fmt.Sprintf("memory: %d\n", i+1))
	}
	n.Mkdir("priv/lock")
	n.Mkdir("empty")
	n.Write("large", strings.Repeat("ours ", 40000))
	n.Write("end", conf)
	c.Everywhere("end", conf)
	for _, o := range c.Nodes {
		o.Eventually("corosync has the present configuration", func() error {
			b, err := os.ReadFile(o.Host.Path("/etc/corosync/corosync.conf"))
			if err == nil && string(b) != conf {
				err = errors.New("not yet")
			}
			return err
		})
	}
}

// foreign is another cluster's tree, with inodes of its own.
func foreign(version uint64, mtime uint32, conf string) []*memdb.Entry {
	list := []*memdb.Entry{memdb.NewEntry(memdb.RootInode, 0, version, 3, mtime, memdb.TypeDir, "", nil)}
	inode := uint64(1)
	add := func(parent uint64, typ memdb.Type, name, data string) uint64 {
		inode++
		list = append(list, memdb.NewEntry(inode, parent, inode, 3, mtime-1000, typ, name, []byte(data)))
		return inode
	}
	add(0, memdb.TypeFile, "corosync.conf", conf)
	nodes := add(0, memdb.TypeDir, "nodes", "")
	// The same guest, but a container and elsewhere.
	lxc := add(add(nodes, memdb.TypeDir, "node2", ""), memdb.TypeDir, "lxc", "")
	add(lxc, memdb.TypeFile, "100.conf", "memory: 999\n")
	qemu := add(add(nodes, memdb.TypeDir, "elsewhere", ""), memdb.TypeDir, "qemu-server", "")
	add(qemu, memdb.TypeFile, "555.conf", "memory: 555\n")
	add(0, memdb.TypeFile, "storage.cfg", "dir: theirs\n")
	// A directory where we have a file, and the other way round.
	add(add(0, memdb.TypeDir, "large", ""), memdb.TypeFile, "child", "x")
	add(0, memdb.TypeFile, "empty", "not empty")
	return list
}

// colliding is a tree that has our inodes as other things.
func colliding(ours []*memdb.Entry, version uint64, conf string) []*memdb.Entry {
	var list []*memdb.Entry
	var dir uint64
	for i, e := range ours {
		if e.Inode == memdb.RootInode {
			list = append(list, memdb.NewEntry(memdb.RootInode, 0, version, 3, e.MTime, memdb.TypeDir, "", nil))
			continue
		}
		if e.Inode > version {
			continue
		}
		add := func(parent uint64, typ memdb.Type, name, data string) {
			// The same version and times: only what it is differs.
			list = append(list, memdb.NewEntry(e.Inode, parent, min(e.Version, version), e.Writer, e.MTime, typ, name, []byte(data)))
		}
		switch name := fmt.Sprintf("alien-%d", i); {
		case !slices.ContainsFunc(list, func(e *memdb.Entry) bool { return e.Name == "corosync.conf" }):
			add(0, memdb.TypeFile, "corosync.conf", conf)
		case e.Name == "large": // nothing but the content differs
			add(0, memdb.TypeFile, "large", strings.Repeat("THEM ", 40000))
		case dir == 0 || i%3 == 0:
			add(0, memdb.TypeDir, name, "")
			dir = e.Inode
		case i%3 == 1:
			add(dir, memdb.TypeFile, name, "of another cluster")
		default:
			add(0, memdb.TypeFile, name, "")
		}
	}
	return list
}

// wantTree waits until the node shows the tree, and the guests in it.
func wantTree(n *node, want []*memdb.Entry) {
	n.T.Helper()
	var tree []string
	guests := map[string]string{}
	var walk func(dir uint64, prefix string)
	walk = func(dir uint64, prefix string) {
		var in []*memdb.Entry
		for _, e := range want {
			if e.Parent == dir && e.Inode != memdb.RootInode {
				in = append(in, e)
			}
		}
		slices.SortFunc(in, func(a, b *memdb.Entry) int { return strings.Compare(a.Name, b.Name) })
		for _, e := range in {
			p := path.Join(prefix, e.Name)
			if e.IsDir() {
				tree = append(tree, p+"/")
				walk(e.Inode, p)
				continue
			}
			tree = append(tree, fmt.Sprintf("%s: %q", p, e.Data()))
			if part := strings.Split(p, "/"); len(part) == 4 && part[0] == "nodes" {
				guests[strings.TrimSuffix(part[3], ".conf")] = part[1] + " " + strings.TrimSuffix(part[2], "-server")
			}
		}
	}
	walk(memdb.RootInode, "")
	n.Eventually("its tree is the right one", func() error {
		got, err := n.ReadTree()
		if err != nil {
			return err
		}
		for i := range max(len(got), len(tree)) {
			if i >= len(got) || i >= len(tree) || got[i] != tree[i] {
				return fmt.Errorf("it has %.200q, want %.200q", got[min(i, len(got)):], tree[min(i, len(tree)):])
			}
		}
		return nil
	})
	n.Eventually("its VM list is the right one", func() error {
		got, err := vmlist(n)
		if err == nil && !maps.Equal(got, guests) {
			err = fmt.Errorf("%v, want %v", got, guests)
		}
		return err
	})
}

// vmlist reads .vmlist: "node type" of each guest.
func vmlist(n *node) (map[string]string, error) {
	b, err := os.ReadFile(n.Path(".vmlist"))
	var list struct {
		IDs map[string]struct{ Node, Type string }
	}
	if err = errors.Join(err, json.Unmarshal(b, &list)); err != nil {
		return nil, err
	}
	guests := map[string]string{}
	for id, g := range list.IDs {
		guests[id] = g.Node + " " + g.Type
	}
	return guests, nil
}

// oldDatabase gives a node back what it had some hundred versions ago.
func oldDatabase(c *cluster, conf lab.Conf) {
	conf.Version++
	fill(c, conf.String())
	n := c.Node(3)
	n.Stop()
	old := entries(n)
	n.Start()
	c.WantTogether(c.Nodes...)

	w := c.Node(1)
	for i := range 100 {
		w.Write("storage.cfg", fmt.Sprintf("dir: changed %d times\n", i+1))
	}
	w.Mkdir("nodes/node1/lxc")
	w.Must(os.Rename(w.Path("nodes/node3/lxc/102.conf"), w.Path("nodes/node1/lxc/102.conf")))
	w.Must(os.Remove(w.Path("nodes/node2/qemu-server/101.conf")))
	w.Must(os.Remove(w.Path("large")))
	w.Mkdir("large/is/a/directory/now")
	w.Must(os.Rename(w.Path("empty"), w.Path("moved")))
	w.Write("end", "end")
	c.Everywhere("end", "end")

	n.Stop()
	want := entries(n)
	n.RemoveDatabase()
	n.Must(sqlite.Create(n.Database(), old))
	n.Start()
	for _, o := range c.Nodes {
		wantTree(o, want)
	}
	c.WantTogether(c.Nodes...)
}
