package ipc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// parsed returns all properties of a configuration, as an answer gives them.
func parsed(conf string) map[string]string {
	g := Guest{VMID: 100, Conf: []byte(conf)}
	got := map[string]string{}
	for _, q := range parseProperties(g.Conf) {
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
	f := newFakes()
	var c propCache
	name := []string{"name"}
	ask := func(want string) {
		t.Helper()
		text := c.all(f, name)
		var got map[string]map[string]string
		if err := json.Unmarshal(text, &got); err != nil || fmt.Sprint(got) != want {
			t.Fatalf("got %v, want %s, %v", got, want, err)
		}
		if again := c.all(f, name); &again[0] != &text[0] {
			t.Fatal("made again without a change")
		}
	}
	ask("map[]")
	for i, conf := range []string{"name: a", "name: b", "name: c"} {
		f.setGuest(uint32(100+i), []byte(conf))
	}
	ask("map[100:map[name:a] 101:map[name:b] 102:map[name:c]]")
	f.setGuest(101, []byte("name: x")) // of the same length
	ask("map[100:map[name:a] 101:map[name:x] 102:map[name:c]]")
	// An append in place: the same array, another length.
	grown := append(make([]byte, 0, 100), "name: y"...)
	f.setGuest(102, grown)
	ask("map[100:map[name:a] 101:map[name:x] 102:map[name:y]]")
	f.setGuest(102, append(grown, "z"...))
	ask("map[100:map[name:a] 101:map[name:x] 102:map[name:yz]]")
	f.setGuest(101, []byte("memory: 1")) // one without the property, in the middle
	ask("map[100:map[name:a] 102:map[name:yz]]")
	f.setGuest(100, []byte("memory: 1")) // at the beginning
	ask("map[102:map[name:yz]]")
	f.setGuest(99, []byte("name: n")) // a new one before all others
	f.setGuest(101, []byte("name: m"))
	ask("map[101:map[name:m] 102:map[name:yz] 99:map[name:n]]")
	for _, vmid := range []uint32{99, 102} {
		f.setGuest(vmid, nil)
	}
	ask("map[101:map[name:m]]")
	f.setGuest(101, nil)
	f.setGuest(100, nil)
	ask("map[]")
	if a := c.answers[0]; len(a.guests) != 0 {
		t.Fatalf("%d guests kept that are gone", len(a.guests))
	}
}

// What the cache has made piece by piece is what would be made anew.
func TestAnswersFromPiecesAreTheSameAsNew(t *testing.T) {
	f := newFakes()
	var c propCache
	rnd := rand.New(rand.NewPCG(1, 2))
	sets := [][]string{{"name"}, {"tags", "name"}, {"lock"}}
	for range 3000 {
		vmid := 100 + rnd.Uint32N(12)
		var conf []byte
		if rnd.IntN(4) > 0 {
			conf = []byte{'\n'}
			for _, name := range []string{"name", "tags", "lock"} {
				if rnd.IntN(2) == 0 {
					conf = fmt.Appendf(conf, "%s: %d\n", name, rnd.IntN(1000))
				}
			}
		}
		f.setGuest(vmid, conf)
		for _, props := range sets {
			if rnd.IntN(2) == 0 {
				continue
			}
			var fresh propCache
			if got, want := string(c.all(f, props)), string(fresh.all(f, props)); got != want {
				t.Fatalf("%v: got %s, want %s", props, got, want)
			}
		}
	}
}

func TestAnswersAreKeptForTheQuestionsOfLate(t *testing.T) {
	f := newFakes()
	f.setGuest(100, []byte("name: a\n"))
	var c propCache
	for i := range 3 * maxAnswers {
		c.all(f, []string{"name"})
		c.all(f, []string{fmt.Sprint("other", i)})
	}
	listed := f.listed
	c.all(f, []string{"name"})
	if f.listed != listed || len(c.answers) != maxAnswers {
		t.Errorf("what is asked for all the time was thrown away, or %d answers kept", len(c.answers))
	}
	// One that no client can get is not.
	f.setGuest(100, append([]byte("name: "), bytes.Repeat([]byte("x"), maxKept)...))
	if text := c.all(f, []string{"name"}); len(text) <= maxKept {
		t.Fatal("cut")
	}
	if a := c.find([]string{"name"}); a.text != nil {
		t.Error("an answer is kept that nobody can get")
	}
}

func FuzzProperties(f *testing.F) {
	f.Add([]byte("name: web\nmemory: 512\n[snap]\nname: x\n"), "name")
	f.Add([]byte("name: \xff\"\\\x00\n"), "name")
	f.Add([]byte("a:b:c\n\n#x: y\r\na:\t\v"), "a")
	f.Fuzz(func(t *testing.T, conf []byte, prop string) {
		fakes := newFakes()
		fakes.guests[100], fakes.guests[101] = conf, []byte("name: x")
		var c propCache
		for range 2 { // the second time from what is kept
			fakes.changes++
			out := c.all(fakes, []string{prop, "name"})
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
