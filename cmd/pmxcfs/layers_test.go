package main

import (
	"os/exec"
	"strings"
	"testing"
)

// layers says on which layer each package stands; imports go down only, and
// beside each other only where allowed below. Packages below a listed one stand
// with it unless they are listed themselves.
var layers = map[string]int{
	"pmxcfs/cmd":                 6,
	"pmxcfs/cmd/internal":        5,
	"pmxcfs/cmd/internal/exit":   0,
	"pmxcfs/contrib":             6,
	"pmxcfs/fuse":                4,
	"pmxcfs/status/ipc":          4,
	"pmxcfs/status/metrics":      4,
	"pmxcfs/status/web":          4,
	"pmxcfs/status/inspect":      4,
	"pmxcfs/status/health":       3,
	"pmxcfs/memdb/dcdb":          3,
	"pmxcfs/status":              3,
	"pmxcfs/dfsm/group":          2,
	"pmxcfs/dfsm/group/overcpg":  3,
	"pmxcfs/dfsm/dfsmtest":       2,
	"pmxcfs/memdb/sqlite":        2,
	"pmxcfs/memdb/history":       2,
	"pmxcfs/status/clusterlog":   2,
	"pmxcfs/status/rrd":          2,
	"pmxcfs/dfsm":                1,
	"pmxcfs/memdb":               1,
	"pmxcfs/corosync/cpg":        1,
	"pmxcfs/corosync/votequorum": 1,
	"pmxcfs/corosync/cmap":       1,
	"pmxcfs/corosync/cfg":        1,
	"pmxcfs/corosync/qb":         1,
	"pmxcfs/corosync/internal":   1,
	"pmxcfs/corosync":            0,
	"pmxcfs/internal":            0,
}

// only names the packages that alone may import a library.
var only = map[string][]string{
	"github.com/mattn/go-sqlite3":            {"pmxcfs/internal/sqlitedb", "pmxcfs/memdb/sqlite", "pmxcfs/memdb/history", "pmxcfs/contrib"},
	"github.com/prometheus/client_golang":    {"pmxcfs/status/metrics", "pmxcfs/cmd"},
	"github.com/hanwen/go-fuse":              {"pmxcfs/fuse", "pmxcfs/contrib"},
	"github.com/prometheus/exporter-toolkit": {"pmxcfs/status/web"},
	"github.com/urfave/cli":                  {"pmxcfs/cmd", "pmxcfs/contrib"},
	"github.com/klauspost/compress":          {"pmxcfs/memdb/history"},
	"github.com/fxamacker/cbor":              {"pmxcfs/status/inspect/peers"},
}

// layer returns a package's layer, by its longest listed prefix.
func layer(pkg string) (int, bool) {
	for p := pkg; p != ""; {
		if l, ok := layers[p]; ok {
			return l, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return 0, false
}

func TestImportsGoDownOnly(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "pmxcfs/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg, imports := fields[0], fields[1:]
		l, ok := layer(pkg)
		if !ok {
			t.Errorf("%s has no layer: give it one here and in docs/architecture.md", pkg)
		}
		for _, imp := range imports {
			for lib, users := range only {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !hasPrefix(pkg, users) {
					t.Errorf("%s imports %s, which only %v may", pkg, imp, users)
				}
			}
			// The daemon serves this protocol and never speaks it as a client.
			if strings.HasPrefix(imp, "pmxcfs/corosync/qb/") && !hasPrefix(pkg, []string{"pmxcfs/contrib", "pmxcfs/cmd/pvecm", "pmxcfs/corosync/qb/qbtest"}) {
				t.Errorf("%s imports %s, which is for pvecm and tests", pkg, imp)
			}
			if !strings.HasPrefix(imp, "pmxcfs/") {
				continue
			}
			below, _ := layer(imp)
			if below > l {
				t.Errorf("%s (layer %d) imports %s (layer %d)", pkg, l, imp, below)
			}
		}
	}
}

func hasPrefix(pkg string, list []string) bool {
	for _, p := range list {
		if pkg == p || strings.HasPrefix(pkg, p+"/") {
			return true
		}
	}
	return false
}
