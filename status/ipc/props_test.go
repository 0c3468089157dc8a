package ipc

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pmxcfs/memdb"
)

// parsed returns all properties of a configuration, as an answer gives them.
func parsed(conf string) map[string]string {
	g := guest{100, []byte(conf)}
	got := map[string]string{}
	for _, q := range parseProperties(g.conf) {
		name := conf[q.name:q.nameEnd]
		var answer map[string]map[string]string
		if err := json.Unmarshal(oneGuest(g, []string{name}), &answer); err != nil {
			panic(err)
		}
		got[name] = answer["100"][name]
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
		"name:\n":                               {},
		"name: a\nname: \t\n":                   {"name": "a"},
		"name\nno colon\n":                      {},
		"#name: a\n Name: b\nName: c\n1: d\n":   {"#name": "a", " Name": "b", "Name": "c", "1": "d"},
		"a: 1\n[snap]\nb: 2\n":                  {"a": "1"},
		"a: 1\n[\nb: 2\n":                       {"a": "1"},
		"[PENDING]\na: 1\n":                     {},
		"a: [x]\n [y]\nb: 2":                    {"a": "[x]", "b": "2"},
		"a: \x00\xff\"\n":                       {"a": "\x00\ufffd\""},
	} {
		if got := parsed(conf); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: got %q, want %q", conf, got, want)
		}
	}
}

func TestAnswersFollowChanges(t *testing.T) {
	s := newSite(t)
	var c propCache
	name := []string{"name"}
	ask := func(want string) {
		t.Helper()
		text := c.all(s.tree, name)
		var got map[string]map[string]string
		if err := json.Unmarshal(text, &got); err != nil || fmt.Sprint(got) != want {
			t.Fatalf("got %v, want %s, %v", got, want, err)
		}
		if again := c.all(s.tree, name); &again[0] != &text[0] {
			t.Fatal("made again without a change")
		}
	}
	ask("map[]")
	for i, conf := range []string{"name: a", "name: b", "name: c"} {
		s.write(t, confOf(uint32(100+i)), conf)
	}
	ask("map[100:map[name:a] 101:map[name:b] 102:map[name:c]]")
	s.write(t, confOf(101), "name: x") // of the same length
	ask("map[100:map[name:a] 101:map[name:x] 102:map[name:c]]")
	// An append, which the tree may do in place.
	for i, char := range "yz" {
		s.apply(t, memdb.Op{Kind: memdb.OpWrite, Path: confOf(102), Data: []byte(string(char)), Offset: uint32(len("name: c") + i)})
	}
	ask("map[100:map[name:a] 101:map[name:x] 102:map[name:cyz]]")
	s.write(t, confOf(101), "memory: 1") // one without the property, in the middle
	ask("map[100:map[name:a] 102:map[name:cyz]]")
	s.write(t, confOf(100), "memory: 1") // at the beginning
	ask("map[102:map[name:cyz]]")
	s.write(t, confOf(99), "name: n") // a new one before all others
	s.write(t, confOf(101), "name: m")
	ask("map[101:map[name:m] 102:map[name:cyz] 99:map[name:n]]")
	s.remove(t, confOf(99))
	s.remove(t, confOf(102))
	ask("map[101:map[name:m]]")
	s.remove(t, confOf(101))
	s.remove(t, confOf(100))
	ask("map[]")
	if a := c.answers[0]; len(a.guests) != 0 {
		t.Fatalf("%d guests kept that are gone", len(a.guests))
	}
}

// What the cache has made piece by piece is what would be made anew.
func TestAnswersFromPiecesAreTheSameAsNew(t *testing.T) {
	s := newSite(t)
	var c propCache
	rnd := rand.New(rand.NewPCG(1, 2))
	sets := [][]string{{"name"}, {"tags", "name"}, {"lock"}}
	for range 3000 {
		vmid := 100 + rnd.Uint32N(12)
		if _, ok := s.tree.Lookup(confOf(vmid)); ok && rnd.IntN(4) == 0 {
			s.remove(t, confOf(vmid))
		} else {
			conf := []byte{'\n'}
			for _, name := range []string{"name", "tags", "lock"} {
				if rnd.IntN(2) == 0 {
					conf = fmt.Appendf(conf, "%s: %d\n", name, rnd.IntN(1000))
				}
			}
			s.write(t, confOf(vmid), string(conf))
		}
		for _, props := range sets {
			if rnd.IntN(2) == 0 {
				continue
			}
			var fresh propCache
			if got, want := string(c.all(s.tree, props)), string(fresh.all(s.tree, props)); got != want {
				t.Fatalf("%v: got %s, want %s", props, got, want)
			}
		}
	}
}

func TestAnswersAreKeptForTheQuestionsOfLate(t *testing.T) {
	s := newSite(t)
	s.write(t, confOf(100), "name: a\n")
	var c propCache
	name := []string{"name"}
	text := c.all(s.tree, name)
	for i := range 3 * maxAnswers {
		c.all(s.tree, []string{fmt.Sprint("other", i)})
		if again := c.all(s.tree, name); &again[0] != &text[0] {
			t.Fatal("what is asked for all the time was thrown away")
		}
	}
	if len(c.answers) != maxAnswers {
		t.Errorf("%d answers are kept", len(c.answers))
	}
	// One that no client can get is not.
	s.write(t, confOf(100), "name: "+strings.Repeat("x", maxKept/2))
	s.write(t, confOf(101), "name: "+strings.Repeat("x", maxKept/2))
	if text := c.all(s.tree, name); len(text) <= maxKept {
		t.Fatal("cut")
	}
	if a := c.find(name); a.text != nil {
		t.Error("an answer is kept that nobody can get")
	}
}

func FuzzProperties(f *testing.F) {
	f.Add([]byte("name: web\nmemory: 512\n[snap]\nname: x\n"), "name")
	f.Add([]byte("name: \xff\"\\\x00\n"), "name")
	f.Add([]byte("a:b:c\n\n#x: y\r\na:\t\v"), "a")
	f.Fuzz(func(t *testing.T, conf []byte, prop string) {
		if len(conf) > memdb.MaxFileSize {
			return
		}
		s := newSite(t)
		s.write(t, confOf(100), string(conf))
		s.write(t, confOf(101), "name: x")
		var c propCache
		for range 2 { // the second time from what is kept
			s.write(t, "other", "")
			out := c.all(s.tree, []string{prop, "name"})
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
