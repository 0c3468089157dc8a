package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pmxcfs/cmd/internal/plan"
)

func TestCommandLinesThatScriptsUse(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"st", "status"},
		{"addn x", "addnode -- x"},
		{"add x", ""}, // an exact name wins; see below
		{"addnode x -new_node_ip=10.0.0.1 -apiversion=1", "addnode --new_node_ip=10.0.0.1 --apiversion=1 -- x"},
		{"addnode --new 10.0.0.1 x --API 1", "addnode --new_node_ip=10.0.0.1 --apiversion=1 -- x"},
		{"addnode x --force", "addnode --force=true -- x"},
		{"addnode x --force 1 --votes 2", "addnode --force=true --votes=2 -- x"},
		{"addnode x --force Off", "addnode --force=false -- x"},
		{"addnode x --force=node-exists", "addnode --force=node-exists -- x"},
		{"addnode --link0 10.0.0.1 --link0 10.0.0.2 x", "addnode --link0=10.0.0.1 --link0=10.0.0.2 -- x"},
		{"addnode x --votes -1", "addnode --votes=-1 -- x"},
		{"addnode -- x", "addnode -- x"},
		{"apiver", "apiver"},
		{"c", "create"},
		{"delnode x -h", "delnode --help"},
		{"help", "help"},
	} {
		got, err := normalise(commands(), strings.Fields(c.in))
		if c.want == "" {
			continue
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q is %q (%v), want %q", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"nosuch", "a", "addnode x --force maybe", "addnode x --link8 1", "addnode x --n 1", "addnode x --votes", "--votes 1", "addnode x --"} {
		_, err := normalise(commands(), strings.Fields(in))
		if in == "addnode x --" {
			if err != nil {
				t.Errorf("%q: %v", in, err)
			}
			continue
		}
		if plan.CodeOf(err) != plan.Parameters {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestTheLastOfARepeatedOptionCounts(t *testing.T) {
	e := newTestEnv(t, "alpha", "192.0.2.1")
	if status := e.run("keygen", "/etc/x/key"); status != 0 {
		t.Fatalf("status %d: %s", status, e.err.String())
	}
	if status := e.run("keygen", "/etc/x/key"); status != int(plan.Refused) {
		t.Errorf("over a file that is there: status %d", status)
	}
	if status := e.run("apiver"); status != 0 || e.out.String() != "1\n" {
		t.Errorf("status %d, %q", status, e.out.String())
	}
}

func TestAllThatIsWrongWithACallIsToldAtOnce(t *testing.T) {
	e := newTestEnv(t, "alpha", "192.0.2.1")
	if status := e.run("create", "my lab", "--votes", "0", "--link0", "not_a_host"); status != int(plan.Parameters) {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"usage: pvecm create CLUSTERNAME [OPTIONS]\n", "clustername: ", "votes: ", "link0: "} {
		if !strings.Contains(e.err.String(), want) {
			t.Errorf("%q is missing in\n%s", want, e.err.String())
		}
	}
}

func TestOnlyRootAndOnlyWithTheMount(t *testing.T) {
	e := newTestEnv(t, "alpha", "192.0.2.1")
	e.root = false
	if kinds, _ := e.call("create", "lab"); !slices.Equal(kinds, []string{"not-root"}) {
		t.Errorf("%v", kinds)
	}
	for _, args := range [][]string{{"apiver"}, {"help"}, {"help", "create"}, {"keygen", "/etc/x/k"}} {
		if status := e.run(args...); status != 0 {
			t.Errorf("%v needs root: %s", args, e.err.String())
		}
	}
}

func TestHelpNamesEveryCommandAndOption(t *testing.T) {
	e := newTestEnv(t, "alpha", "192.0.2.1")
	if status := e.run("help", "--verbose"); status != 0 {
		t.Fatalf("status %d: %s", status, e.err.String())
	}
	for _, c := range commands() {
		if c.hidden || c.name == "help" {
			continue
		}
		for _, p := range c.options {
			if !p.hidden && !strings.Contains(e.out.String(), "--"+p.name) {
				t.Errorf("%s --%s is missing", c.name, p.name)
			}
		}
	}
	e.out.Reset()
	if e.run("help"); !strings.Contains(e.out.String(), "delnode") {
		t.Errorf("%s", e.out.String())
	}
}

func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"pvecm cre":                     "create",
		"pvecm addnode --new":           "--new_node_ip",
		"pvecm addnode x --lin":         "--link0 --link1 --link2 --link3 --link4 --link5 --link6 --link7",
		"pvecm create x --dry-run ":     "--dry-run --force",
		"pvecm status --output-format ": "json text",
		"pvecm nosuch ":                 "",
	} {
		e := newTestEnv(t, "alpha", "192.0.2.1")
		e.getenv = func(name string) string {
			return map[string]string{"COMP_LINE": line}[name]
		}
		if status := e.run("bashcomplete", "pvecm", "x", "pvecm"); status != 0 {
			t.Fatalf("%q: status %d: %s", line, status, e.err.String())
		}
		got := strings.Fields(e.out.String())
		for _, w := range strings.Fields(want) {
			if !slices.Contains(got, w) {
				t.Errorf("%q: %v, want %s in it", line, got, w)
			}
		}
		if want == "" && len(got) > 0 {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func FuzzCommandLine(f *testing.F) {
	f.Add("create\x00lab\x00--link0\x0010.0.0.1")
	f.Add("addn\x00-force\x00--\x00x")
	f.Add("-\x00=\x00--=")
	f.Fuzz(func(t *testing.T, line string) {
		words, err := normalise(commands(), strings.Split(line, "\x00"))
		if err != nil {
			return
		}
		again, err := normalise(commands(), words)
		if err != nil || !slices.Equal(words, again) {
			t.Fatalf("%q becomes %q, and that %q (%v)", line, words, again, err)
		}
	})
}

func TestManualAndCompletionAreMadeOfTheCommands(t *testing.T) {
	e := newTestEnv(t, "alpha", "192.0.2.1")
	dir := t.TempDir()
	if status := e.run("documentation", "man", dir); status != 0 {
		t.Fatalf("status %d: %s", status, e.err.String())
	}
	for _, c := range commands() {
		if c.hidden || c.name == "help" {
			continue
		}
		page, err := os.ReadFile(filepath.Join(dir, "pvecm-"+c.name+".8"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, p := range c.options {
			if name := `\-\-` + strings.ReplaceAll(p.name, "-", `\-`); !p.hidden && !strings.Contains(string(page), name) {
				t.Errorf("%s: %s is missing", c.name, name)
			}
		}
	}
	if page, err := os.ReadFile(filepath.Join(dir, "pvecm.8")); err != nil || !strings.Contains(string(page), ".SH EXIT STATUS") {
		t.Errorf("pvecm.8: %v", err)
	}
	if status := e.run("documentation", "completion"); status != 0 || !strings.Contains(e.out.String(), "complete -F _pvecm pvecm") || strings.Contains(e.out.String(), "create_pmxcfs_db") {
		t.Errorf("status %d:\n%s", status, e.out.String())
	}
}
