package sqlite

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pmxcfs/memdb"
)

// Testdata holds two config.db files as the stock daemon wrote them, with what
// it showed of them: varied (in local mode, odd names and contents) and trace (in a
// cluster of three nodes).

func unhex(tb testing.TB, b []byte) []byte {
	tb.Helper()
	out, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// sums parses the output of sha256sum.
func sums(tb testing.TB, b []byte) map[string]string {
	tb.Helper()
	m := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		escaped := strings.HasPrefix(line, `\`)
		sum, path, ok := strings.Cut(strings.TrimPrefix(line, `\`), "  ./")
		if !ok {
			tb.Fatalf("odd line %q", line)
		}
		if escaped {
			path = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(path)
		}
		m[path] = sum
	}
	return m
}

func TestRecordedDatabasesLoadAsTheStockDaemonShowedThem(t *testing.T) {
	for _, name := range []string{"varied", "trace"} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, unpack(t, name+".db.gz"))
			if got := s.tree.Checksum(); !bytes.Equal(got[:], unhex(t, testdata(t, name+".checksum.hex"))) {
				t.Errorf("checksum %x", got)
			}
			file := map[string]string{"varied": "varied.tree.sha256.gz", "trace": "trace.tree.sha256"}[name]
			want := sums(t, testdata(t, file))
			got := make(map[string]string)
			for _, e := range s.tree.Entries() {
				if !e.IsDir() {
					path, _ := s.tree.Path(e.Inode)
					got[path] = fmt.Sprintf("%x", sha256.Sum256(e.Data()))
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%d files, recorded were %d, or their contents differ", len(got), len(want))
			}
			s.verify()
			if s.log.Len() > 0 {
				t.Errorf("loading logged %s", s.log.String())
			}
		})
	}
}

func TestRecordedDatabaseHasTheRecordedIndexAndVMList(t *testing.T) {
	s := openStore(t, unpack(t, "varied.db.gz"))
	if !bytes.Equal(s.tree.Index(), unhex(t, testdata(t, "varied.index.hex.gz"))) {
		t.Error("the index differs")
	}
	type guest struct {
		Node, Type string
		Version    uint32
	}
	var want struct {
		Version uint32
		IDs     map[uint32]guest
	}
	if err := json.Unmarshal(testdata(t, "varied.vmlist.json.gz"), &want); err != nil {
		t.Fatal(err)
	}
	list, version := s.tree.Guests()
	if version != want.Version || len(list) != len(want.IDs) {
		t.Errorf("%d guests at version %d, want %d at %d", len(list), version, len(want.IDs), want.Version)
	}
	// Which guest has which version depends on the stock daemon's hash table.
	var gotVersions, wantVersions []uint32
	for _, g := range list {
		w := want.IDs[g.VMID]
		if g.Node != w.Node || g.Type.String() != w.Type {
			t.Errorf("guest %d: %v, want %v", g.VMID, g, w)
		}
		gotVersions = append(gotVersions, g.Version)
		wantVersions = append(wantVersions, w.Version)
	}
	slices.Sort(gotVersions)
	slices.Sort(wantVersions)
	if !slices.Equal(gotVersions, wantVersions) {
		t.Error("the set of the guests' versions differs")
	}
}

func TestRecordedDatabaseIsWrittenOn(t *testing.T) {
	for _, name := range []string{"varied", "trace"} {
		s := openStore(t, unpack(t, name+".db.gz"))
		s.mustCommit(mkdir("new"), create("new/file"), write("new/file", []byte("text")))
		s.verify()
		s.close()
		s = openStore(t, s.path)
		if f, ok := s.tree.Lookup("new/file"); !ok || string(f.Data()) != "text" {
			t.Errorf("%s: after a restart: %v", name, f.Entry)
		}
	}
}

// BenchmarkLoadRecorded loads the varied recording.
func BenchmarkLoadRecorded(b *testing.B) {
	path := unpack(b, "varied.db.gz")
	for b.Loop() {
		contents, err := Read(path)
		if err != nil || len(contents.Entries) == 0 {
			b.Fatal(err)
		}
		if _, _, err := memdb.Build(contents.Entries); err != nil {
			b.Fatal(err)
		}
	}
}
