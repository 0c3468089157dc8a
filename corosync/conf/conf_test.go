package conf

import (
	"errors"
	"reflect"
	"strings"
	"testing"
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

// sample has the lines of the example in Debian's package that matter.
const sample = `# Please read the corosync.conf.5 manual page
totem {
	version: 2
	# Corosync itself works without a cluster name, but DLM needs one.
	cluster_name: debian
	crypto_cipher: none
	crypto_hash: none
}
quorum {
	provider: corosync_votequorum
}
nodelist {
	# Change/uncomment/add node sections to match cluster configuration
	node {
		name: node1
		nodeid: 1
		ring0_addr: 127.0.0.1
		#ring1_addr: 192.168.1.1
	}
	# ...
}
`

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
		{"no such line", sample, 0},
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
	got := Parse([]byte(cluster))
	want := Conf{ClusterName: "lab", Version: 7, Nodes: []Node{
		{ID: 1, Name: "node1", Addresses: []string{"10.99.0.1", "fd00::1"}},
		{ID: 2, Name: "node2", Addresses: []string{"10.99.0.2"}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if got := Parse([]byte("nodelist {\n node {\n nodeid: 4294967296\n}\n}\n}\n}\ntotem {\nconfig_version: -1\n}")); len(got.Nodes) != 1 || got.Nodes[0].ID != 0 || got.Version != 0 {
		t.Errorf("bad numbers: %+v", got)
	}
}

func TestSampleOfThePackageIsToldFromACluster(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"the package's", sample, true},
		{"empty", "", true},
		{"a cluster", cluster, false},
		{"with a version", strings.Replace(sample, "version: 2", "version: 2\nconfig_version: 1", 1), false},
		{"with an address", strings.Replace(sample, "127.0.0.1", "192.168.1.1", 1), false},
		{"with a host name", strings.Replace(sample, "127.0.0.1", "node1.example.com", 1), false},
		{"with a second link", strings.Replace(sample, "#ring1", "ring1", 1), false},
		{"IPv6 loopback", strings.Replace(sample, "127.0.0.1", "::1", 1), true},
		{"localhost", strings.Replace(sample, "127.0.0.1", "localhost", 1), true},
	} {
		if got := Parse([]byte(c.text)).Sample(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func FuzzConf(f *testing.F) {
	for _, s := range []string{cluster, sample, "", "config_version: 1", "nodelist {\nnode {\nnodeid: 1", "}\n}\nnode {", "nodelist {\n}\nnodeid: 3"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := Parse(text)
		_ = c.Sample()
		v, err := Version(text)
		if (err == nil) != (v > 0) {
			t.Errorf("version %d with error %v", v, err)
		}
		// A well-formed file says the same both ways.
		if c.Version != 0 && err == nil && strings.Count(string(text), "config_version") == 1 && c.Version != v {
			t.Errorf("versions %d and %d", c.Version, v)
		}
	})
}
