package conf

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

const byHand = `# Our cluster. Ask the network people before changing this.
totem {
	version: 2
	config_version: 7
	cluster_name: prod
	# the second link is slow
	interface {
		linknumber: 0
	}
	secauth: on
}

nodelist {
	# in the cellar
	node {
		name: b
		nodeid: 2
		ring0_addr: 10.0.0.2
	}

	# in the attic
	node {
		name: a
		nodeid: 1
		ring0_addr: 10.0.0.1
	}
}
quorum {
	provider: corosync_votequorum
}
# the end`

func TestAnEditKeepsCommentsAndOrder(t *testing.T) {
	f, err := Read([]byte(byHand))
	if err != nil {
		t.Fatal(err)
	}
	g, err := f.AddNode(NewNode{Name: "c", Fallback: "10.0.0.3", APIVersion: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(byHand, "config_version: 7", "config_version: 8", 1)
	want = strings.Replace(want, "ring0_addr: 10.0.0.1\n\t}\n", "ring0_addr: 10.0.0.1\n\t}\n"+
		"\tnode {\n\t  name: c\n\t  nodeid: 3\n\t  quorum_votes: 1\n\t  ring0_addr: 10.0.0.3\n\t}\n", 1)
	if got := string(g.Text()); got != want {
		t.Fatalf("the text is\n%s\nwant\n%s", got, want)
	}
	if string(f.Text()) != byHand {
		t.Fatal("the file that was changed is another one now")
	}
	back, err := g.RemoveNode("c", false)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(back.Text()); got != strings.Replace(byHand, "config_version: 7", "config_version: 9", 1) {
		t.Fatalf("taken out again, the text is\n%s", got)
	}
}

func TestSectionsComeAndGo(t *testing.T) {
	f, err := Read([]byte(cluster))
	if err != nil {
		t.Fatal(err)
	}
	device := Block{Name: "device", Keys: map[string]string{"model": "net", "votes": "1"},
		Blocks: []Block{{Name: "net", Keys: map[string]string{"host": "10.0.0.9", "tls": "on", "algorithm": "ffsplit"}}}}
	g, err := Read(f.Text())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Insert(g.Section("quorum"), device); err != nil {
		t.Fatal(err)
	}
	if got := string(g.Text()); !strings.Contains(got, "quorum {\n  device {\n    model: net\n    net {\n      algorithm: ffsplit\n      host: 10.0.0.9\n      tls: on\n    }\n    votes: 1\n  }\n  provider: corosync_votequorum\n}\n") {
		t.Fatalf("with a device:\n%s", got)
	}
	if err := g.Remove(g.Section("quorum", "device")); err != nil {
		t.Fatal(err)
	}
	if string(g.Text()) != cluster {
		t.Fatalf("without it again:\n%s", g.Text())
	}
	if err := g.Insert(g.root, Block{Name: "system", Keys: map[string]string{"x": "y"}}); err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(g.Section("totem"), "secauth"); err != nil {
		t.Fatal(err)
	}
	if got := string(g.Text()); !strings.Contains(got, "}\n\nsystem {\n  x: y\n}\n\ntotem {\n") || strings.Contains(got, "secauth") {
		t.Fatalf("with a section more and a key less:\n%s", got)
	}
}

func TestAFileOnOneLineIsWrittenAnew(t *testing.T) {
	f, err := Read([]byte("totem { version: 2 config_version: 3 cluster_name: x } nodelist { node { name: a nodeid: 1 ring0_addr: 10.0.0.1 } } quorum { provider: corosync_votequorum }"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := f.SetVotes("a", 2)
	if err != nil {
		t.Fatal(err)
	}
	want := "nodelist {\n  node {\n    name: a\n    nodeid: 1\n    quorum_votes: 2\n    ring0_addr: 10.0.0.1\n  }\n}\n\nquorum {\n  provider: corosync_votequorum\n}\n\ntotem {\n  cluster_name: x\n  config_version: 4\n  version: 2\n}\n\n"
	if string(g.Text()) != want {
		t.Fatalf("the text is\n%s", g.Text())
	}
}

func TestNoChangeToAFileThatCanBeMeantInTwoWays(t *testing.T) {
	for kind, edit := range map[string][2]string{
		KindDoubledKey:       {"version: 2\n", "version: 2\n  version: 2\n"},
		KindCommentInValue:   {"cluster_name: lab", "cluster_name: lab#1"},
		KindDoubledName:      {"name: node2", "name: node1"},
		KindUnclosed:         {"  version: 2\n}", "  version: 2\n"},
		KindDoubledInterface: {"interface {\n    linknumber: 0\n  }\n", "interface {\n    linknumber: 0\n  }\n  interface {\n    linknumber: 0\n  }\n"},
	} {
		text := strings.Replace(strings.TrimSpace(cluster)+"\n", edit[0], edit[1], 1)
		if text == cluster {
			t.Fatalf("%s: nothing to replace", kind)
		}
		f, err := Read([]byte(text))
		if err != nil {
			t.Fatal(kind, err)
		}
		_, err = f.SetVotes("node1", 3)
		var r *Refusal
		if !errors.As(err, &r) || len(r.Findings) != 1 || r.Findings[0].Kind != kind || r.Findings[0].Line == 0 {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// A configuration with a fault can be mended, and a sound one can't be spoilt.
func TestAChangeMayNotAddProblems(t *testing.T) {
	faulty := strings.Replace(cluster, "    ring0_addr: 10.99.0.2\n", "    ring0_addr: fd00::2\n", 1)
	f, err := Read([]byte(faulty))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.SetVotes("node1", 3); err != nil {
		t.Errorf("a fault that was there already: %v", err)
	}
	g, err := Read([]byte(cluster))
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Change(func(g *File) error { return g.Set(g.Node("node2"), "nodeid", "1") })
	var r *Refusal
	if !errors.As(err, &r) || r.Findings[0].Kind != KindDoubledID {
		t.Errorf("a doubled id: %v", err)
	}
}

func TestResolvesAsCorosync(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	both := []netip.Addr{six, four, netip.MustParseAddr("10.0.0.2")}
	for _, c := range []struct {
		version string
		has     []netip.Addr
		want    netip.Addr
	}{
		{"", both, six}, {"ipv6-4", both, six}, {"ipv4-6", both, four}, {"ipv4", both, four}, {"ipv6", both, six},
		{"ipv4-6", both[:1], six}, {"ipv6-4", both[1:], four}, {"ipv4", both[:1], netip.Addr{}}, {"ipv6", both[1:], netip.Addr{}},
	} {
		f, err := Read([]byte("totem {\n  ip_version: " + c.version + "\n}\n"))
		if c.version == "" {
			f, err = Read([]byte("totem {\n  version: 2\n}\n"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Resolve("x", func(string) []netip.Addr { return c.has }); got != c.want {
			t.Errorf("%q of %v: %v, want %v", c.version, c.has, got, c.want)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add(cluster)
	f.Add(byHand)
	f.Add("a {\nb: c\n}\n")
	f.Add("node { node { ring0_addr: x } node: y }")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Read([]byte(text))
		if err != nil {
			return
		}
		file.Problems()
		printed, err := file.Print()
		if err != nil {
			return
		}
		again, err := Read(printed)
		if err != nil {
			t.Fatalf("what was printed can't be read: %v\n%s", err, printed)
		}
		if twice, _ := again.Print(); string(twice) != string(printed) {
			t.Fatalf("printed\n%s\nand again\n%s", printed, twice)
		}
		changed, err := file.Change(func(g *File) error {
			return g.Insert(g.Section("nodelist"), Block{Name: "node", Keys: map[string]string{"name": "zz", "nodeid": "77"}})
		})
		if err != nil || len(file.Nodes()) == 0 {
			return
		}
		if n := changed.Node("zz"); n == nil || n.Get("nodeid") != "77" {
			t.Fatalf("the new node isn't there:\n%s", changed.Text())
		}
		back, err := changed.RemoveNode("zz", true)
		if err != nil {
			t.Fatalf("the new node can't be removed: %v\n%s", err, changed.Text())
		}
		v, _ := file.ConfigVersion()
		if w, _ := back.ConfigVersion(); w != v+2 {
			t.Fatalf("version %d after two changes of %d", w, v)
		}
	})
}
