package logging

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pmxcfs/internal/event"
)

const catalogFile = "../../../contrib/systemd/pmxcfs.catalog"

// catalog returns the entries of the message catalog, by id.
func catalog(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(catalogFile)
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]string{}
	var id string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if next, ok := strings.CutPrefix(line, "-- "); ok {
			id = strings.TrimSpace(next)
			if _, twice := entries[id]; twice {
				t.Errorf("the catalog has %s twice", id)
			}
			entries[id] = ""
		} else if id != "" {
			entries[id] += line
		}
	}
	return entries
}

func TestEveryEventHasAnIDAndACatalogEntryAndTheReverse(t *testing.T) {
	entries := catalog(t)
	ids := map[string]event.Event{}
	for _, e := range event.All() {
		id := messageID(e)
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) {
			t.Errorf("%s has the id %q", e, id)
			continue
		}
		if other, ok := ids[id]; ok {
			t.Errorf("%s and %s have one id", e, other)
		}
		ids[id] = e
		entry, ok := entries[id]
		head, body, _ := strings.Cut(entry, "\n\n")
		if !ok || !strings.Contains(head, "Subject: ") || !strings.Contains(head, "Defined-By: pve-cluster") || len(body) < 40 {
			t.Errorf("%s has no proper entry in the catalog: %q", e, entry)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		if _, ok := ids[id]; !ok {
			t.Errorf("the catalog has %s, which is no event's", id)
		}
	}
	if len(messageIDs) != len(event.All()) {
		t.Errorf("%d ids for %d events", len(messageIDs), len(event.All()))
	}
}

func TestJournalctlTakesTheCatalog(t *testing.T) {
	journalctl, err := exec.LookPath("journalctl")
	if err != nil {
		t.Skip(err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/systemd/catalog")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(catalogFile))); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(journalctl, "--update-catalog", "--root="+root).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(journalctl, "--list-catalog", "--root="+root).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range event.All() {
		if !strings.Contains(string(out), messageID(e)+" pve-cluster: ") {
			t.Errorf("journalctl does not know %s", e)
		}
	}
}

// logged is a place in the program where an event is logged.
type logged struct {
	at     string
	fields map[string]bool // names of the journal's fields
}

// loggedEvents looks for the places where events are logged, and for what goes along.
// Events that are named anywhere else are found without places.
func loggedEvents(t *testing.T) map[string][]logged {
	t.Helper()
	found := map[string][]logged{}
	files := token.NewFileSet()
	err := filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "internal/event/") || filepath.Base(path) == "messageid.go" {
			return nil
		}
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if name := eventName(n); name != "" && found[name] == nil {
				found[name] = []logged{}
			}
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			for _, arg := range call.Args {
				name, fields := eventName(arg), call.Args
				if inner, ok := arg.(*ast.CallExpr); ok { // event.X.Attr(…)
					if sel, ok := inner.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Attr" {
						name, fields = eventName(sel.X), slices.Concat(call.Args, inner.Args)
					}
				}
				if name != "" {
					found[name] = append(found[name], logged{files.Position(call.Pos()).String(), fieldNames(fields)})
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// eventName returns the X of event.X, if X is an event.
func eventName(n ast.Node) string {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	pkg, ok := sel.X.(*ast.Ident)
	if !ok || pkg.Name != "event" || strings.HasPrefix(sel.Sel.Name, "Level") || slices.Contains([]string{"Event", "Fields", "All", "Key", "Occurrence"}, sel.Sel.Name) {
		return ""
	}
	return sel.Sel.Name
}

// fieldNames returns the field names of the keys among a call's arguments.
func fieldNames(args []ast.Expr) map[string]bool {
	names := map[string]bool{}
	for _, a := range args {
		if lit, ok := a.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				names[fieldName(s)] = true
				names[fieldName(s)+"_USEC"] = true
			}
		}
	}
	return names
}

// TestCatalogNamesOnlyFieldsThatAreThere checks that each field that an entry shows
// goes along wherever the event is logged, and that each event is logged.
func TestCatalogNamesOnlyFieldsThatAreThere(t *testing.T) {
	src, err := os.ReadFile("../../../internal/event/event.go")
	if err != nil {
		t.Fatal(err)
	}
	found, entries := loggedEvents(t), catalog(t)
	everywhere := []string{"PMXCFS_NODE", "PMXCFS_DOMAIN", "PMXCFS_EVENT", "PMXCFS_GROUP"}
	for _, e := range event.All() {
		m := regexp.MustCompile(fmt.Sprintf(`(?m)^\t(\w+)\s+Event = %q`, string(e))).FindSubmatch(src)
		if m == nil {
			t.Fatalf("%s is not declared", e)
		}
		places, named := found[string(m[1])]
		if !named {
			t.Errorf("nobody logs %s", m[1])
		}
		for _, field := range regexp.MustCompile(`@(\w+)@`).FindAllStringSubmatch(entries[messageID(e)], -1) {
			for _, p := range places {
				if !p.fields[field[1]] && !slices.Contains(everywhere, field[1]) {
					t.Errorf("%s: %s is logged without %s, which the catalog shows", p.at, e, field[1])
				}
			}
		}
	}
}

func TestEventsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../../docs/systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range event.All() {
		if !strings.Contains(string(b), "`"+string(e)+"`") || !strings.Contains(string(b), messageID(e)) {
			t.Errorf("docs/systemd.md does not have %s with its id", e)
		}
	}
}
