package conf

import (
	"os"
	"strings"
	"testing"
)

const objectionable = `totem {
  cluster_name: lab
  config_version: 3
}
nodelist {
  node {
    name: node1
    nodeid: 1
    ring0_addr: 10.99.0.1
  }
  node {
    nodeid: 2
    ring0_addr: 10.99.0.2
  }
}
`

func TestObjectionsToANewConfiguration(t *testing.T) {
	example, err := os.ReadFile("testdata/debian-example.conf")
	if err != nil {
		t.Fatal(err)
	}
	change := strings.NewReplacer
	for _, c := range []struct {
		name, next, present string
		says                string // empty means nothing
	}{
		{name: "the same", next: objectionable},
		{name: "the next version", next: change("version: 3", "version: 4").Replace(objectionable)},
		{name: "a lower version", next: change("version: 3", "version: 2").Replace(objectionable), says: "2, is less than the present one's, 3"},
		{name: "no version", next: change("config_version: 3", "").Replace(objectionable), says: "config_version"},
		{name: "a brace too many", next: objectionable + "}\n", says: "line 16: a closing brace"},
		{name: "a brace is missing", next: strings.TrimSuffix(objectionable, "}\n"), says: "not closed"},
		{name: "no nodes", next: objectionable[:strings.Index(objectionable, "nodelist")], says: "no nodelist"},
		{name: "one id twice", next: change("nodeid: 2", "nodeid: 1").Replace(objectionable), says: "nodes node1 and 10.99.0.2 have the same nodeid, 1"},
		{name: "no ids", next: change("nodeid: 2", "", "nodeid: 1", "").Replace(objectionable)},
		{name: "another name", next: change("lab", "bal").Replace(objectionable), says: "from \"lab\" to \"bal\""},
		{name: "nothing to lose: no copy", next: "{", present: "-"},
		{name: "nothing to lose: the example", next: "{", present: string(example)},
		{name: "nothing to lose: corosync can't start with it", next: "{", present: objectionable + "}"},
	} {
		present := c.present
		if present == "" {
			present = objectionable
		} else if present == "-" {
			present = ""
		}
		if got := Objection([]byte(c.next), []byte(present)); got == "" != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, want %q", c.name, got, c.says)
		}
	}
}
