package conf

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testdata holds recordings of Proxmox VE's own tool: stock/ has files as read
// (.in), as parsed (.json), as printed (.out), and the kinds of errors (.err).

func load(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// parsed is a file as the stock tool has it in memory.
func parsed(f *File) map[string]any {
	if f.text == "" {
		return map[string]any{}
	}
	main := tree(f.root, "")
	return map[string]any{"digest": f.Digest(), "main": main}
}

func tree(s *Section, path string) map[string]any {
	m := map[string]any{}
	for _, key := range s.Keys() {
		m[key] = s.Get(key)
	}
	for _, name := range s.Names() {
		at := strings.TrimPrefix(path+"."+name, ".")
		list := s.Sections(name)
		key := map[string]func(*Section) string{"nodelist.node": nodeKey, "totem.interface": interfaceKey}[at]
		switch {
		case key != nil:
			by := map[string]any{}
			for _, sub := range keyed(list, key) {
				by[key(sub)] = tree(sub, at)
			}
			m[name] = by
		case repeats(name):
			var all []any
			for _, sub := range list {
				all = append(all, tree(sub, at))
			}
			m[name] = all
		default:
			m[name] = tree(list[0], at)
		}
	}
	if _, has := m["interface"]; path == "totem" && !has {
		m["interface"] = map[string]any{}
	}
	return m
}

func TestReadsAndPrintsAsTheStockTool(t *testing.T) {
	inputs, err := filepath.Glob("testdata/stock/*.in")
	if err != nil || len(inputs) < 20 {
		t.Fatal(len(inputs), err)
	}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".in")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Read(text)
			if kind, errFile := os.ReadFile(strings.TrimSuffix(in, ".in") + ".err"); errFile == nil {
				var syntax *SyntaxError
				if !errors.As(err, &syntax) || syntax.Kind != strings.TrimSpace(string(kind)) {
					t.Fatalf("error %v, want kind %s", err, kind)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var want map[string]any
			load(t, filepath.Join("stock", name+".json"), &want)
			if got := parsed(f); !reflect.DeepEqual(got, want) {
				t.Errorf("parsed\n%v\nwant\n%v", got, want)
			}
			out, err := f.Print()
			if name == "empty" {
				if !errors.Is(err, ErrEmpty) {
					t.Errorf("an empty file was printed: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			printed, err := os.ReadFile(strings.TrimSuffix(in, ".in") + ".out")
			if err != nil {
				t.Fatal(err)
			}
			if string(out) != string(printed) {
				t.Errorf("printed\n%s\nwant\n%s", out, printed)
			}
		})
	}
}

func TestChecksAsTheStockTool(t *testing.T) {
	type address struct {
		IP, Key, Node string
		Version       int
	}
	var cases []struct {
		Name, Conf       string
		Errors, Warnings []Finding
		Addresses        map[string][]address
	}
	load(t, "verify.json", &cases)
	lookup := func(name string) []netip.Addr {
		if n, found := strings.CutPrefix(name, "node"); found {
			return []netip.Addr{netip.MustParseAddr("10.99.0." + n)}
		}
		return nil
	}
	order := func(a, b Finding) int { return strings.Compare(a.Kind+a.Link+a.Node+a.Key, b.Kind+b.Link+b.Node+b.Key) }
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			f, err := Read([]byte(c.Conf))
			if err != nil {
				t.Fatal(err)
			}
			problems, warnings := f.Check(lookup)
			slices.SortFunc(problems, order)
			slices.SortFunc(warnings, order)
			slices.SortFunc(c.Errors, order)
			slices.SortFunc(c.Warnings, order)
			if !slices.Equal(problems, c.Errors) {
				t.Errorf("errors %v, want %v", problems, c.Errors)
			}
			if !slices.Equal(warnings, c.Warnings) {
				t.Errorf("warnings %v, want %v", warnings, c.Warnings)
			}
			for family, want := range c.Addresses {
				var got []address
				for _, a := range f.Addresses(lookup) {
					version := 6
					if a.IP.Is4() {
						version = 4
					}
					if family == "any" || family == strconv.Itoa(version) {
						got = append(got, address{a.IP.String(), a.Key, a.Node, version})
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("addresses of family %s: %v, want %v", family, got, want)
				}
			}
		})
	}
}

func TestLinksAsTheStockTool(t *testing.T) {
	var cases []struct {
		Input, Printed string
		Error          bool
		Parsed         map[string]string
	}
	load(t, "link.json", &cases)
	for _, c := range cases {
		l, err := ParseLink(c.Input)
		if c.Error {
			if err == nil {
				t.Errorf("%q was taken", c.Input)
			}
			continue
		}
		if err != nil || l.Address != c.Parsed["address"] || l.Priority != c.Parsed["priority"] || l.String() != c.Printed {
			t.Errorf("%q is %+v (%v), want %v", c.Input, l, err, c.Parsed)
		}
	}
}

func TestNamesAsTheStockTool(t *testing.T) {
	var cases map[string][]struct {
		Value string
		Valid bool
	}
	load(t, "names.json", &cases)
	valid := map[string]func(string) error{
		"node": ValidNode, "ip": ValidIP, "address": ValidAddress, "fingerprint": ValidFingerprint,
		"CIDR": func(s string) error { _, err := ValidCIDR(s); return err },
	}
	for kind, list := range cases {
		if valid[kind] == nil {
			t.Fatalf("kind %s", kind)
		}
		for _, c := range list {
			want := c.Valid
			if kind == "node" && (len(c.Value) > 63 || strings.Contains(c.Value, "\n")) {
				want = false // the stock tool takes names that no host can have
			}
			if err := valid[kind](c.Value); (err == nil) != want {
				t.Errorf("%s %q: %v, want valid: %v", kind, c.Value, err, want)
			}
		}
	}
}

// stricter are the recorded calls that this project refuses, and how.
var stricter = map[string]string{
	"IPv6 link beside IPv4":                              KindConfigInvalid,
	"node id given that is in use is NOT refused":        KindIDTaken,
	"fallback address of another node is NOT refused":    KindAddressTaken,
	"same address twice for the new node is NOT refused": KindAddressTaken,
	"name that differs in case only is a different node": KindNodeExists,
	"qdevice present is kept":                            KindQDevice,
	"qdevice present is not checked":                     KindQDevice,
}

// call is a recorded call of addnode or delnode.
type call struct {
	Name, Conf, Error string
	Args              []string
	After             string `json:"conf_after"`
}

// refused says whether the call has to be refused, and how.
func (c call) refused() string {
	if kind := stricter[c.Name]; kind != "" {
		return kind
	}
	if c.After != "" {
		return ""
	}
	return c.Error
}

func (c call) check(t *testing.T, after *File, err error) {
	t.Helper()
	if want := c.refused(); want != "" {
		var r *Refusal
		if !errors.As(err, &r) || r.Kind != want {
			t.Fatalf("%v, want it refused as %s", err, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := Read([]byte(c.After))
	if err != nil {
		t.Fatal(err)
	}
	if c.Name == "votes 0: no quorum_votes line" { // which corosync takes for 1
		if want, err = Read([]byte(strings.Replace(c.After, "nodeid: 2\n", "nodeid: 2\n    quorum_votes: 0\n", 1))); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := parsed(after)["main"], parsed(want)["main"]; !reflect.DeepEqual(got, want) {
		t.Fatalf("after it\n%v\nwant\n%v", got, want)
	}
	// What is as the stock tool writes it stays so to the byte.
	before, err := Read([]byte(c.Conf))
	if err != nil {
		t.Fatal(err)
	}
	if printed, _ := before.Print(); string(printed) == c.Conf && string(after.Text()) != string(want.Text()) {
		t.Errorf("the text is\n%s\nwant\n%s", after.Text(), want.Text())
	}
}

func TestAddsNodesAsTheStockTool(t *testing.T) {
	var cases []call
	load(t, "addnode.json", &cases)
	ran := 0
	for _, c := range cases {
		a, ok := newNode(c.Args)
		if !ok || c.Error == "usage" || c.Error == "parameter" || c.Error == "config-unparsable" {
			continue // cmd/pvecm has these
		}
		ran++
		t.Run(c.Name, func(t *testing.T) {
			f, err := Read([]byte(c.Conf))
			if err != nil {
				t.Fatal(err)
			}
			after, err := f.AddNode(a)
			c.check(t, after, err)
		})
	}
	if ran < 40 {
		t.Errorf("only %d recorded calls were tried", ran)
	}
}

// newNode reads the arguments of addnode in their plain form.
func newNode(args []string) (a NewNode, ok bool) {
	if len(args) < 2 || args[0] != "addnode" {
		return a, false
	}
	a.Name, a.Links = args[1], map[int]Link{}
	for args = args[2:]; len(args) > 1; args = args[2:] {
		n, _ := strconv.Atoi(args[1])
		switch name, _ := strings.CutPrefix(args[0], "--"); name {
		case "new_node_ip":
			a.Fallback = args[1]
		case "apiversion":
			a.APIVersion = n
		case "nodeid":
			a.ID = uint32(n)
		case "votes":
			a.Votes = &n
		case "force":
			a.Force = true
		default:
			link, err := strconv.Atoi(strings.TrimPrefix(name, "link"))
			if err != nil {
				return a, false
			}
			if a.Links[link], err = ParseLink(args[1]); err != nil {
				return a, false
			}
		}
	}
	return a, len(args) == 0
}

func TestRemovesNodesAsTheStockTool(t *testing.T) {
	var cases []call
	load(t, "delnode.json", &cases)
	for _, c := range cases {
		if len(c.Args) != 2 || c.Error == "parameter" || c.Error == "is-local-node" {
			continue // cmd/pvecm has these
		}
		t.Run(c.Name, func(t *testing.T) {
			f, err := Read([]byte(c.Conf))
			if err != nil {
				t.Fatal(err)
			}
			after, err := f.RemoveNode(c.Args[1], false)
			c.check(t, after, err)
		})
	}
}
