package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// programs are what the packages hold.
var programs = []string{"pmxcfs/cmd/pmxcfs", "pmxcfs/cmd/pvecm"}

func TestTheCopyrightFileNamesTheLinkedModules(t *testing.T) {
	copyright, err := os.ReadFile("../../debian/copyright")
	if err != nil {
		t.Fatal(err)
	}
	list, err := linked("go", programs...)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(?:Files:)? vendor/(\S+)/\*$`).FindAllStringSubmatch(string(copyright), -1) {
		named[m[1]] = true
	}
	for _, m := range list[1:] {
		if !named[m.Path] {
			t.Errorf("%s is linked in, and debian/copyright has no paragraph for vendor/%s/*", m.Path, m.Path)
		}
		delete(named, m.Path)
	}
	for path := range named {
		t.Errorf("debian/copyright has a paragraph for vendor/%s/*, which is not linked in", path)
	}
}

func TestTheNoticesOfAllModulesAreWhole(t *testing.T) {
	list, err := linked("go", programs...)
	if err != nil {
		t.Fatal(err)
	}
	var out, again strings.Builder
	if err := write(&out, list); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if !strings.Contains(out.String(), m.Path+" "+m.Version) {
			t.Errorf("%s is missing", m.Path)
		}
		for _, f := range m.Files {
			text, err := os.ReadFile(f.path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), strings.TrimSpace(string(text))) {
				t.Errorf("%s: %s is not there word for word", m.Path, f.Name)
			}
		}
	}
	if list, err = linked("go", programs...); err != nil {
		t.Fatal(err)
	}
	if err := write(&again, list); err != nil || again.String() != out.String() {
		t.Errorf("the second text differs from the first (%v)", err)
	}
}

func TestNoticesOfTheDirectoriesOnTheWayAreCollected(t *testing.T) {
	top := t.TempDir()
	for _, name := range []string{"LICENSE", "a/NOTICE.txt", "a/b/Licence-MIT", "a/b/license.go", "a/c/LICENSE", "README"} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var m module
	for range 2 { // packages share directories
		if err := m.collect(top, filepath.Join(top, "a/b")); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "LICENSE a/NOTICE.txt a/b/Licence-MIT" {
		t.Errorf("collected %s", got)
	}
}
