package reconf

import (
	"slices"
	"strings"
	"testing"

	"pmxcfs/corosync/conf"
)

const lab = `totem {
  cluster_name: lab
  config_version: 5
  link_mode: passive
  version: 2
  interface {
    linknumber: 0
  }
}

nodelist {
  node {
    name: node1
    nodeid: 1
    quorum_votes: 1
    ring0_addr: 10.99.0.1
  }
  node {
    name: node2
    nodeid: 2
    quorum_votes: 1
    ring0_addr: 10.99.0.2
  }
}

quorum {
  provider: corosync_votequorum
}
`

func parsed(t *testing.T, text string) *conf.File {
	t.Helper()
	f, err := conf.Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEffectSaysWhatAChangeDoes(t *testing.T) {
	third := "  node {\n    name: node3\n    nodeid: 3\n    ring0_addr: 10.99.0.3\n  }\n}\n\nquorum"
	for name, c := range map[string]struct {
		change []string // of the text, old and new in turn
		want   []string
	}{
		"nothing":           {[]string{"config_version: 5", "config_version: 6"}, nil},
		"votes":             {[]string{"quorum_votes: 1", "quorum_votes: 3"}, []string{"node node1: 1 vote becomes 3 votes", "node node2: 1 vote becomes 3 votes"}},
		"an address":        {[]string{"10.99.0.2", "10.99.0.9"}, []string{"node node2: link 0 changes its address from 10.99.0.2 to 10.99.0.9"}},
		"a link":            {[]string{"ring0_addr: 10.99.0.1", "ring0_addr: 10.99.0.1\n    ring1_addr: 10.98.0.1"}, []string{"node node1: link 1 gets address 10.98.0.1"}},
		"a node comes":      {[]string{"}\n\nquorum", third}, []string{"node node3 (id 3) comes, with 1 vote and link 0 10.99.0.3"}},
		"an id":             {[]string{"nodeid: 2", "nodeid: 7"}, []string{"node node2: its id changes from 2 to 7", "corosync takes on nodeid only when it is restarted, on all nodes"}},
		"a setting":         {[]string{"version: 2\n", "version: 2\n  token: 5000\n"}, []string{"totem.token: 5000 is set"}},
		"the link's":        {[]string{"linknumber: 0", "linknumber: 0\n    mcastport: 5505"}, []string{"totem.interface 0.mcastport: 5505 is set"}},
		"one for a restart": {[]string{"passive", "active"}, []string{"totem.link_mode: passive becomes active", "corosync takes on totem.link_mode only when it is restarted, on all nodes"}},
	} {
		after := strings.NewReplacer(c.change...).Replace(lab)
		if got := Effect(parsed(t, lab), parsed(t, after)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A change of addresses goes over links that take the place of the changed ones, and no
// stage changes the address of a link.
func TestAddressesChangeOverOtherLinks(t *testing.T) {
	after := parsed(t, strings.ReplaceAll(lab, "10.99.0.", "10.98.0."))
	list, err := stages(parsed(t, lab), after)
	if err != nil || len(list) != 4 || list[3] != after {
		t.Fatalf("%d stages, %v", len(list), err)
	}
	was := parsed(t, lab)
	for i, f := range list {
		if moved := movedLinks(was, f); len(moved) > 0 {
			t.Errorf("stage %d changes the addresses of links %v", i+1, moved)
		}
		common := 0
		for n := range 8 {
			if hasLink(was, n) && hasLink(f, n) {
				common++
			}
		}
		if common == 0 {
			t.Errorf("stage %d has no link that was there before", i+1)
		}
		if found, _ := f.Check(nil); len(found) > 0 {
			t.Errorf("stage %d: %v", i+1, found)
		}
		was = f
	}
	if list, err := stages(parsed(t, lab), parsed(t, strings.Replace(lab, "nodeid: 2", "nodeid: 3", 1))); err != nil || len(list) != 1 {
		t.Errorf("another change takes %d stages, %v", len(list), err)
	}
}

// Whatever two configurations are, what leads from one to the other never changes the
// addresses of a link that stays, and ends where it should.
func FuzzStages(f *testing.F) {
	f.Add(lab, strings.ReplaceAll(lab, "10.99.0.", "10.98.0."))
	f.Add(lab, strings.Replace(lab, "ring0_addr: 10.99.0.1", "ring1_addr: 10.98.0.1", 1))
	f.Add(lab, strings.Replace(lab, "linknumber: 0", "linknumber: 7", 1))
	f.Fuzz(func(t *testing.T, first, last string) {
		before, err := conf.Read([]byte(first))
		if err != nil || len(before.Problems()) > 0 {
			return
		}
		after, err := conf.Read([]byte(last))
		if err != nil || len(after.Problems()) > 0 {
			return
		}
		Effect(before, after)
		list, err := stages(before, after)
		if err != nil {
			return
		}
		if list[len(list)-1] != after {
			t.Error("it ends elsewhere")
		}
		was := before
		for i, g := range list {
			if moved := movedLinks(was, g); len(moved) > 0 {
				t.Errorf("stage %d changes the addresses of links %v", i+1, moved)
			}
			was = g
		}
	})
}
