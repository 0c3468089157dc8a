package main

import (
	"io"
	"slices"
	"testing"
)

func TestBuildDependsNamesThePackages(t *testing.T) {
	const control = "Source: x\nBuild-Depends:\n debhelper-compat (= 13),\n ca-certificates,\n# of Debian 12\n libqb-dev (>= 2.0) <!nocheck>,\n pkgconf | pkg-config\n# more\nPackage: y\nDepends: z\n"
	want := []string{"debhelper", "ca-certificates", "libqb-dev", "pkgconf"}
	if got := buildDepends(control); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBadUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"trixie"}, {"-control", "/nonexistent", "trixie", "true"}, {"-control", "../../../../debian/control", "potato", "true"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
