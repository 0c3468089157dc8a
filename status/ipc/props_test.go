package ipc

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func parsed(conf string) map[string]string {
	p := parsedGuest{conf: []byte(conf)}
	p.props = parseProperties(p.conf)
	got := map[string]string{}
	for _, q := range p.props {
		name := conf[q.name:q.nameEnd]
		value, ok := p.find(name)
		if !ok {
			panic(name)
		}
		got[name] = string(value)
	}
	return got
}

func TestParseProperties(t *testing.T) {
	for conf, want := range map[string]map[string]string{
		"":                                      {},
		"\n\n":                                  {},
		"name: web":                             {"name": "web"},
		"name: web\n":                           {"name": "web"},
		"name:web\nnet0: virtio=AA:BB,bridge=x": {"name": "web", "net0": "virtio=AA:BB,bridge=x"},
		"name: \t a  b \v\f\r\n":                {"name": "a  b"},
		"name: a\nname: b\n":                    {"name": "b"},
		"name:\n":                               {"name": ""},
		"name\nno colon\n":                      {},
		"#name: a\n Name: b\nName: c\n1: d\n":   {},
		"a: 1\n[snap]\nb: 2\n":                  {"a": "1"},
		"a: 1\n[\nb: 2\n":                       {"a": "1"},
		"[PENDING]\na: 1\n":                     {},
		"a: [x]\n [y]\nb: 2":                    {"a": "[x]", "b": "2"},
		"a: \x00\xff\"\n":                       {"a": "\x00\xff\""},
	} {
		if got := parsed(conf); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: got %q, want %q", conf, got, want)
		}
	}
}

func TestValuesAreValidJSONWhateverTheyHold(t *testing.T) {
	for value, want := range map[string]string{
		`plain`:                 `plain`,
		"a\"b\\c":               "a\"b\\c",
		"\x00\x01\x1f\x7f\ta\n": "\x00\x01\x1f\x7f\ta\n",
		"grün 日本 🐧":             "grün 日本 🐧",
		"\xff\xc3x\xe6\x97":     "\ufffd\ufffdx\ufffd\ufffd",
		"\ufffd":                "\ufffd",
		"\u2028</script>":       "\u2028</script>",
	} {
		var got string
		out := appendJSONString(nil, []byte(value))
		if err := json.Unmarshal(out, &got); err != nil || got != want {
			t.Errorf("%q: %s: got %q, %v", value, out, got, err)
		}
		if same := appendJSONString(nil, value); string(same) != string(out) {
			t.Errorf("%q: string and bytes differ: %s, %s", value, same, out)
		}
	}
}

func guestsOf(confs ...string) []Guest {
	var list []Guest
	for i, c := range confs {
		list = append(list, Guest{VMID: uint32(100 + i), Conf: []byte(c)})
	}
	return list
}

func TestCacheFollowsChanges(t *testing.T) {
	var c propCache
	name := []string{"name"}
	ask := func(g []Guest, want string) {
		t.Helper()
		var got map[string]map[string]string
		if err := json.Unmarshal(c.all(g, name), &got); err != nil || fmt.Sprint(got) != want {
			t.Fatalf("got %v, want %s, %v", got, want, err)
		}
	}
	g := guestsOf("name: a", "name: b", "name: c")
	ask(g, "map[100:map[name:a] 101:map[name:b] 102:map[name:c]]")
	ask(g, "map[100:map[name:a] 101:map[name:b] 102:map[name:c]]")
	first := c.guests[100]
	g[1].Conf = []byte("name: x") // of the same length
	ask(g, "map[100:map[name:a] 101:map[name:x] 102:map[name:c]]")
	// An append in place: the same array, another length.
	grown := append(make([]byte, 0, 100), "name: y"...)
	g[2].Conf = grown
	ask(g, "map[100:map[name:a] 101:map[name:x] 102:map[name:y]]")
	g[2].Conf = append(grown, "z"...)
	ask(g, "map[100:map[name:a] 101:map[name:x] 102:map[name:yz]]")
	if c.guests[100] != first {
		t.Fatal("parsed again without a change")
	}
	g[0].Conf = []byte("name: a") // the same content elsewhere
	ask(g, "map[100:map[name:a] 101:map[name:x] 102:map[name:yz]]")
	if c.guests[100] != first {
		t.Fatal("parsed again though equal")
	}
	ask(g[1:2], "map[101:map[name:x]]")
	if len(c.guests) != 1 {
		t.Fatalf("%d guests kept that are gone", len(c.guests)-1)
	}
	ask(nil, "map[]")
	if len(c.guests) != 0 {
		t.Fatal("a guest kept that is gone")
	}
	if got := c.one(g[0], name); string(got) != "{\n\"100\": {\"name\":\"a\"}\n}\n" || len(c.guests) != 0 {
		t.Fatalf("got %q, %d kept", got, len(c.guests))
	}
}

func FuzzProperties(f *testing.F) {
	f.Add([]byte("name: web\nmemory: 512\n[snap]\nname: x\n"), "name")
	f.Add([]byte("name: \xff\"\\\x00\n"), "name")
	f.Add([]byte("a:b:c\n\n#x: y\r\na:\t\v"), "a")
	f.Fuzz(func(t *testing.T, conf []byte, prop string) {
		var c propCache
		g := []Guest{{VMID: 100, Conf: conf}, {VMID: 101, Conf: []byte("name: x")}}
		for range 2 { // the second time from the cache
			out := c.all(g, []string{prop, "name"})
			var got map[string]map[string]string
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			if got["101"]["name"] != "x" {
				t.Fatalf("%q", out)
			}
			for _, v := range got["100"] {
				if strings.TrimFunc(v, func(r rune) bool { return r < 128 && isSpace(byte(r)) }) != v {
					t.Fatalf("white space around %q", v)
				}
			}
		}
	})
}
