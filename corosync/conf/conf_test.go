package conf

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	_ "embed"
)

// cluster is a file as Proxmox VE writes it.
const cluster = `logging {
  debug: off
  to_syslog: yes
}

nodelist {
  node {
    name: node1
    nodeid: 1
    quorum_votes: 1
    ring0_addr: 10.99.0.1
    ring1_addr: fd00::1
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

totem {
  cluster_name: lab
  config_version: 7
  interface {
    linknumber: 0
  }
  ip_version: ipv4-6
  secauth: on
  version: 2
}
`

// example is the file that Debian's corosync package installs.
//
//go:embed testdata/debian-example.conf
var example string

func TestVersionIsTheNumberInTheLine(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       uint64
	}{
		{"cluster", cluster, 7},
		{"alone", "config_version: 3", 3},
		{"blanks", "totem {\n\t config_version :\t12 \r\n}", 12},
		{"the last counts", "config_version: 3\nconfig_version: 2\n", 2},
		{"largest", "config_version: 18446744073709551615\n", 1<<64 - 1},
		{"a comment", "# config_version: 9\nconfig_version: 4\n", 4},
		{"no such line", example, 0},
		{"empty", "", 0},
		{"only a comment", " #config_version: 9\n", 0},
		{"not a number", "config_version: x\n", 0},
		{"trailing text", "config_version: 4 5\n", 0},
		{"negative", "config_version: -1\n", 0},
		{"zero", "config_version: 0\n", 0},
		{"too large", "config_version: 18446744073709551616\n", 0},
		{"another key", "my_config_version: 3\nconfig_versions: 3\n", 0},
		{"no colon", "config_version 3\n", 0},
		{"bytes", "\x00\xff{}}}:::\n", 0},
	} {
		got, err := Version([]byte(c.text))
		if got != c.want || (c.want == 0) != errors.Is(err, ErrVersion) {
			t.Errorf("%s: %d, %v; want %d", c.name, got, err, c.want)
		}
	}
}

func TestParseTakesNodesAndTotem(t *testing.T) {
	got, err := Parse([]byte(cluster))
	want := Conf{ClusterName: "lab", Version: 7, Nodes: []Node{
		{ID: 1, Name: "node1", Addresses: []string{"10.99.0.1", "fd00::1"}},
		{ID: 2, Name: "node2", Addresses: []string{"10.99.0.2"}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if got, err := Parse([]byte("nodelist {\n node {\n nodeid: 4294967296\n}\n}\ntotem {\nconfig_version: -1\n}")); err != nil || len(got.Nodes) != 1 || got.Nodes[0].ID != 0 || got.Version != 0 {
		t.Errorf("bad numbers: %+v, %v", got, err)
	}
}

// TestParseRefusesWhatCorosyncRefuses has what "corosync -t" (3.1.7) says of each.
func TestParseRefusesWhatCorosyncRefuses(t *testing.T) {
	for _, c := range []struct {
		name, text string
		line       int // of the error; 0 means none
	}{
		{"a cluster's", cluster, 0},
		{"Debian's example", example, 0},
		{"CR LF", strings.ReplaceAll(cluster, "\n", "\r\n"), 0},
		{"no blank before the brace", strings.Replace(cluster, "quorum {", "quorum{", 1), 0},
		{"a key without a value", strings.Replace(cluster, "cluster_name: lab", "cluster_name:", 1), 0},
		{"a stray opening brace", "garbage {\n" + cluster, strings.Count(cluster, "\n") + 1},
		{"a stray closing brace", cluster + "}\n", strings.Count(cluster, "\n") + 1},
		{"a closing brace first", "}\n" + cluster, 1},
		{"a word", cluster + "hello\n", strings.Count(cluster, "\n") + 1},
		{"a comment behind a closing brace", strings.Replace(cluster, "\n}\n", "\n} # end\n", 1), 4},
		{"a comment behind an opening brace", strings.Replace(cluster, "logging {", "logging { # x", 1), 1},
		{"a brace within a value", strings.Replace(cluster, "lab", "l{ab", 1), 27},
		{"a section in one line", "totem { version: 2 }\n" + cluster, 1},
		{"a section without a name", "{\n}\n" + cluster, 1},
		{"a byte order mark", "\ufefftotem\n{\n", 1},
		{"cut in the middle", cluster[:len(cluster)/2], 17},
		{"zeros", string(make([]byte, 512)), 1},
	} {
		_, err := Parse([]byte(c.text))
		var syntax *SyntaxError
		if errors.As(err, &syntax); (err == nil) != (c.line == 0) || err != nil && (syntax == nil || syntax.Line != c.line) {
			t.Errorf("%s: %v, want an error in line %d", c.name, err, c.line)
		}
	}
}

func TestOnlyTheVeryExampleIsOne(t *testing.T) {
	is := func(text string) bool { return Example([]byte(text)) }
	var bare strings.Builder // without comments and blank lines
	for line := range strings.Lines(example) {
		if l := strings.TrimSpace(line); l != "" && l[0] != '#' {
			bare.WriteString(l + "\r\n")
		}
	}
	for name, text := range map[string]string{
		"the package's":         example,
		"without comments":      bare.String(),
		"with other logging":    strings.Replace(example, "to_stderr: yes", "to_stderr: no", 1),
		"with a logger more":    strings.Replace(example, "logging {", "logging {\n\tlogger_subsys {\n\t\tsubsys: X\n\t}", 1),
		"another order of keys": strings.NewReplacer("crypto_cipher: none", "crypto_hash: none", "crypto_hash: none", "crypto_cipher: none").Replace(example),
	} {
		if !is(text) {
			t.Errorf("%s is no example", name)
		}
	}
	for name, text := range map[string]string{
		"a cluster":                   cluster,
		"empty":                       "",
		"blank":                       " \n\n",
		"comments only":               "# totem {\n# }\n",
		"zeros":                       string(make([]byte, len(example))),
		"logging only":                "logging {\n debug: off\n}\n",
		"multicast without nodes":     "totem {\n version: 2\n cluster_name: debian\n interface {\n  mcastaddr: 239.1.1.1\n }\n}\n",
		"with a version":              strings.Replace(example, "version: 2", "version: 2\nconfig_version: 1", 1),
		"with an address":             strings.Replace(example, "127.0.0.1", "192.168.1.1", 1),
		"with a host name":            strings.Replace(example, "127.0.0.1", "node1.example.com", 1),
		"with another loopback":       strings.Replace(example, "127.0.0.1", "::1", 1),
		"with another name":           strings.Replace(example, "cluster_name: debian", "cluster_name: mine", 1),
		"with a second link":          strings.Replace(example, "#ring1", "ring1", 1),
		"with a second node":          strings.Replace(example, "nodelist {", "nodelist {\n\tnode {\n\t}\n", 1),
		"twice":                       example + example,
		"with a second, empty totem":  example + "totem {\n}\n",
		"with a stray brace":          "garbage {\n" + example,
		"a cluster behind a brace":    "garbage {\n" + cluster,
		"a cluster within logging":    "logging {\n" + cluster + "}\n",
		"with its last line cut away": strings.TrimSuffix(example, "}\n"),
	} {
		if is(text) {
			t.Errorf("%s counts as the example", name)
		}
	}
	// Nothing that is cut off anywhere, and no line that is missing, leaves an example.
	lines := strings.SplitAfter(bare.String(), "\n")
	for i, line := range lines {
		if cut := strings.Join(lines[:i], ""); i < len(lines)-1 && is(cut) {
			t.Errorf("%d lines count as the example", i)
		}
		without := strings.Join(lines[:i], "") + strings.Join(lines[min(i+1, len(lines)):], "")
		inLogging := i > strings.Count(bare.String()[:strings.Index(bare.String(), "logging")], "\n") && i < strings.Count(bare.String()[:strings.Index(bare.String(), "quorum {")], "\n")
		if line != "" && !inLogging && is(without) {
			t.Errorf("without line %d, %q, it still counts as the example", i, line)
		}
	}
}

func FuzzConf(f *testing.F) {
	for _, s := range []string{cluster, example, "", "config_version: 1", "nodelist {\nnode {\nnodeid: 1", "}\n}\nnode {", "nodelist {\n}\nnodeid: 3", "garbage {\n" + cluster} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if Example(text) && (err != nil || c.Version != 0 || len(c.Nodes) != 1) {
			t.Errorf("an example of %+v, %v", c, err)
		}
		v, verr := Version(text)
		if (verr == nil) != (v > 0) {
			t.Errorf("version %d with error %v", v, verr)
		}
		// A well-formed file says the same both ways.
		if c.Version != 0 && err == nil && verr == nil && strings.Count(string(text), "config_version") == 1 && c.Version != v {
			t.Errorf("versions %d and %d", c.Version, v)
		}
	})
}
