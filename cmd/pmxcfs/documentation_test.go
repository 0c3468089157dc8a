package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	common "pmxcfs/cmd/internal/cli"
	"pmxcfs/internal/testutil"
)

// everyCommand calls f with each visible command below a program, by its path.
func everyCommand(path string, list []*cli.Command, f func(path string, c *cli.Command)) {
	for _, c := range list {
		if !c.Hidden {
			f(path+" "+c.Name, c)
			everyCommand(path+" "+c.Name, c.Subcommands, f)
		}
	}
}

func TestManualHasEveryCommandOptionAndVariable(t *testing.T) {
	app := newApp()
	pages, err := common.ManPages(app, manual)
	if err != nil {
		t.Fatal(err)
	}
	program := testutil.ManualText(t, pages["pmxcfs.8"])
	has := func(page, name string, flags []cli.Flag) {
		for _, f := range flags {
			for _, n := range f.Names() {
				dashes := "--"
				if len(n) == 1 {
					dashes = "-"
				}
				if !regexp.MustCompile(`(^| )` + dashes + regexp.QuoteMeta(n) + `([ ,]|$)`).MatchString(page) {
					t.Errorf("the page of %s has no option %s%s", name, dashes, n)
				}
			}
			for _, env := range f.(cli.DocGenerationFlag).GetEnvVars() {
				if !strings.Contains(page, env) {
					t.Errorf("the page of %s has no variable %s", name, env)
				}
			}
		}
	}
	has(program, app.Name, app.Flags)
	if len(app.Flags) < 10 {
		t.Errorf("the program has %d options only?", len(app.Flags))
	}
	count := 0
	everyCommand(app.Name, app.Commands, func(path string, c *cli.Command) {
		count++
		words := strings.Fields(path)
		name := words[0] + "-" + words[1]
		raw, ok := pages[name+".8"]
		if !ok {
			t.Errorf("%s has no page", path)
			return
		}
		text := testutil.ManualText(t, raw)
		if !strings.Contains(text, path) || !strings.Contains(strings.ToLower(text), strings.ToLower(c.Usage)) {
			t.Errorf("page %s has no %q, or not what it does: %s", name, path, c.Usage)
		}
		has(text, path, c.Flags)
		if len(words) == 2 && !strings.Contains(program, name+"(8)") {
			t.Errorf("pmxcfs(8) does not name %s(8)", name)
		}
	})
	if count < 7 {
		t.Errorf("only %d commands were looked at", count)
	}
	for _, heading := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS", "SIGNALS", "SEE ALSO"} {
		if !strings.Contains(program, " "+heading+" ") {
			t.Errorf("pmxcfs(8) has no section %s", heading)
		}
	}
	for name, page := range pages {
		if text := testutil.ManualText(t, page); !strings.Contains(text, " NAME "+strings.TrimSuffix(name, ".8")+" - ") {
			t.Errorf("%s does not begin with its name: %.200s", name, text)
		}
	}
}

func TestManualIsTheSameEachTime(t *testing.T) {
	for range 3 {
		a, err := common.ManPages(newApp(), manual)
		if err != nil {
			t.Fatal(err)
		}
		b, err := common.ManPages(newApp(), manual)
		if err != nil || !maps.EqualFunc(a, b, slices.Equal) || !slices.Equal(common.BashCompletion(newApp()), common.BashCompletion(newApp())) {
			t.Fatal("it is not", err)
		}
	}
}

// complete asks bash what it would offer after a line; the cursor is at its end.
func complete(t *testing.T, line ...string) []string {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "pmxcfs")
	if err := os.WriteFile(script, common.BashCompletion(newApp()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"afile", "adirectory/x"} {
		path := filepath.Join(dir, "cwd", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("bash", append([]string{"--norc", "-euc", `
		script=$1; shift
		set +eu; . "$script" || exit 1
		complete -p pmxcfs create_pmxcfs_db > /dev/null || exit 1
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_pmxcfs
		printf '%s\n' "${COMPREPLY[@]}"`, "bash", script}, line...)...)
	cmd.Dir = filepath.Join(dir, "cwd")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("bash: %v: %s", err, stderr.String())
	}
	return strings.Fields(string(out))
}

// TestCompletionOfOtherShells looks for what each has to know, and has the shells that are
// there read theirs.
func TestCompletionOfOtherShells(t *testing.T) {
	fish, err := common.FishCompletion(newApp())
	if err != nil {
		t.Fatal(err)
	}
	for shell, c := range map[string]struct {
		script []byte
		check  string
		has    []string
	}{
		"zsh": {common.ZshCompletion(newApp()), "-n", []string{
			"#compdef pmxcfs\n", "['pmxcfs db']='check repair dump ", "['pmxcfs --database']=file\n", "['pmxcfs --mount-point']=directory\n"}},
		"fish": {fish, "--no-execute", []string{" -l database -r -d ", " -a 'dump' ", " -l json "}},
	} {
		for _, text := range c.has {
			if !strings.Contains(string(c.script), text) {
				t.Errorf("%s: %q is missing", shell, text)
			}
		}
		path := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(path, c.script, 0o644); err != nil {
			t.Fatal(err)
		}
		if program, err := exec.LookPath(shell); err == nil {
			if out, err := exec.Command(program, c.check, path).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", shell, err, out)
			}
		}
	}
}

func TestBashCompletesCommandsOptionsAndFiles(t *testing.T) {
	for _, c := range []struct {
		line []string
		want string
	}{
		{[]string{"pmxcfs", "d"}, "db doctor"},
		{[]string{"pmxcfs", "--foreg"}, "--foreground"},
		{[]string{"pmxcfs", "--debug", "db", "ch"}, "check"},
		{[]string{"pmxcfs", "--root", "db", "d"}, "db doctor"}, // the first db is a value
		{[]string{"pmxcfs", "--root", "=", "x", "db", "ch"}, "check"},
		{[]string{"pmxcfs", "db", "dump", "--js"}, "--json"},
		{[]string{"pmxcfs", "db", "check", "a"}, "adirectory afile"},
		{[]string{"pmxcfs", "--mount-point", "a"}, "adirectory"},
		{[]string{"pmxcfs", "--database", "=", "a"}, "adirectory afile"},
		{[]string{"pmxcfs", "--database", "="}, "adirectory afile"},
		{[]string{"pmxcfs", "--group", "www-d"}, "www-data"},
		{[]string{"pmxcfs", "--node-name", "a"}, ""},
	} {
		got := complete(t, c.line...)
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: offered %q, not %q", c.line, got, c.want)
		}
	}
}

func TestBashOffersEveryCommandAndOption(t *testing.T) {
	app := newApp()
	app.Setup()
	offers := func(words []string, list []*cli.Command, flags []cli.Flag) {
		got := complete(t, append(words, "")...)
		for _, c := range list {
			if !c.Hidden && !slices.Contains(got, c.Name) {
				t.Errorf("%q: %s is not offered", words, c.Name)
			}
		}
		got = complete(t, append(words, "--")...)
		for _, f := range flags {
			if n := f.Names()[0]; len(n) > 1 && !slices.Contains(got, "--"+n) {
				t.Errorf("%q: --%s is not offered", words, n)
			}
		}
	}
	offers([]string{app.Name}, app.Commands, app.Flags)
	everyCommand(app.Name, app.Commands, func(path string, c *cli.Command) {
		offers(strings.Fields(path), c.Subcommands, c.Flags)
	})
}
