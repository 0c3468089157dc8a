package memdb

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The files in testdata were taken from recordings of the stock daemon:
//
//	*.rows.jsonl.gz      the rows of a config.db: one object a line, name and data in base64
//	*.checksum.hex       its database checksum
//	varied.index.hex.gz  its index
//	varied.vmlist...     its VM list
//	trace.states...      every index that three nodes exchanged
//	trace.events...      what one of them saw: the rows it began with, then each
//	                     operation delivered, and the index it sent at that moment

func recordingLines(tb testing.TB, name string, line func(*json.Decoder)) {
	tb.Helper()
	d := json.NewDecoder(bytes.NewReader(recordingFile(tb, name)))
	for d.More() {
		line(d)
	}
}

func recordingFile(tb testing.TB, name string) []byte {
	tb.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = bufio.NewReader(f)
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(r); err != nil {
			tb.Fatal(err)
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func recordingHex(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.TrimSpace(string(recordingFile(tb, name))))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// recordedRow is one row of the table tree.
type recordedRow struct {
	Inode, Parent, Version uint64
	Writer, MTime          uint32
	Type                   Type
	Name, Data             []byte
}

// entry returns the entry that the row stands for.
func (r recordedRow) entry() *Entry {
	if r.Inode == RootInode { // the row that holds the database's version
		return NewEntry(RootInode, RootInode, r.Version, r.Writer, r.MTime, TypeDir, "", nil)
	}
	return NewEntry(r.Inode, r.Parent, r.Version, r.Writer, r.MTime, r.Type, string(r.Name), r.Data)
}

func recordedEntries(tb testing.TB, name string) (entries []*Entry) {
	tb.Helper()
	recordingLines(tb, name, func(d *json.Decoder) {
		var r recordedRow
		if err := d.Decode(&r); err != nil {
			tb.Fatal(err)
		}
		entries = append(entries, r.entry())
	})
	return entries
}

func build(tb testing.TB, entries []*Entry) *Tree {
	tb.Helper()
	tr, dups, err := Build(entries)
	if err != nil || len(dups) > 0 {
		tb.Fatalf("Build: %v, duplicates %v", err, dups)
	}
	checkSound(tb, tr)
	return tr
}

func TestRecordedDatabasesHaveTheRecordedChecksums(t *testing.T) {
	for _, name := range []string{"varied", "trace"} {
		entries := recordedEntries(t, name+".rows.jsonl.gz")
		if bad := Check(entries); len(bad) > 0 {
			t.Errorf("%s: Check finds %v", name, bad)
		}
		want := recordingHex(t, name+".checksum.hex")
		if got := build(t, entries).Checksum(); !bytes.Equal(got[:], want) {
			t.Errorf("%s: checksum is %x, want %x", name, got, want)
		}
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		if got := build(t, entries).Checksum(); !bytes.Equal(got[:], want) {
			t.Errorf("%s: checksum of rows in another order is %x, want %x", name, got, want)
		}
	}
}

func TestRecordedDatabaseHasTheRecordedIndex(t *testing.T) {
	want := recordingHex(t, "varied.index.hex.gz")
	tr := build(t, recordedEntries(t, "varied.rows.jsonl.gz"))
	for range 2 { // the second time from the digests that were kept
		if got := tr.Index(); !bytes.Equal(got, want) {
			t.Fatalf("the index of %d bytes differs from the recorded one of %d bytes", len(got), len(want))
		}
	}
}

func TestRecordedDatabaseHasTheRecordedVMList(t *testing.T) {
	var want []Guest
	recordingLines(t, "varied.vmlist.jsonl.gz", func(d *json.Decoder) {
		var g struct {
			VMID       uint32
			Node, Type string
		}
		if err := d.Decode(&g); err != nil {
			t.Fatal(err)
		}
		types := map[string]GuestType{"qemu": GuestQemu, "lxc": GuestLXC, "openvz": GuestOpenVZ}
		want = append(want, Guest{VMID: g.VMID, Node: g.Node, Type: types[g.Type]})
	})
	got, version := build(t, recordedEntries(t, "varied.rows.jsonl.gz")).Guests()
	if !slices.EqualFunc(got, want, func(a, b Guest) bool { return a.VMID == b.VMID && a.sameOwner(b) }) {
		t.Errorf("the VM list has %d guests and differs from the recorded one of %d", len(got), len(want))
	}
	if version != 1 { // as recorded
		t.Errorf("the VM list's version after loading is %d", version)
	}
}

// encodeIndex writes an index as the protocol lays it out, from its decoded
// form.
func encodeIndex(x *Index) []byte {
	var b bytes.Buffer
	n := uint32(len(x.Entries))
	for _, v := range []any{x.Version, x.LastInode, x.Writer, x.MTime, n, 32 + 40*n} {
		binary.Write(&b, binary.LittleEndian, v)
	}
	for _, e := range x.Entries {
		binary.Write(&b, binary.LittleEndian, e.Inode)
		b.Write(e.Digest[:])
	}
	return b.Bytes()
}

func recordedStates(tb testing.TB) (states [][]byte) {
	tb.Helper()
	recordingLines(tb, "trace.states.jsonl.gz", func(d *json.Decoder) {
		var s struct{ Index []byte }
		if err := d.Decode(&s); err != nil {
			tb.Fatal(err)
		}
		states = append(states, s.Index)
	})
	return states
}

func TestRecordedStatesDecodeAndEncodeToTheSameBytes(t *testing.T) {
	states := recordedStates(t)
	if len(states) == 0 {
		t.Fatal("no recorded states")
	}
	for i, b := range states {
		x, err := DecodeIndex(b)
		if err != nil {
			t.Errorf("state %d: %v", i, err)
			continue
		}
		if !bytes.Equal(encodeIndex(x), b) {
			t.Errorf("state %d is not the same after decoding and encoding", i)
		}
	}
}

func TestRecordedOperationsLeadToTheRecordedStates(t *testing.T) {
	var (
		rows         []*Entry
		tr           *Tree
		ops, indexes int
		refused      []string
	)
	recordingLines(t, "trace.events.jsonl.gz", func(d *json.Decoder) {
		var ev struct {
			Row   *recordedRow
			Index []byte
			Op    *struct {
				Kind          Kind
				Path, To      string
				Data          []byte
				Offset        uint32
				Truncate      bool
				Writer, MTime uint32
			}
		}
		if err := d.Decode(&ev); err != nil {
			t.Fatal(err)
		}
		if ev.Row != nil {
			rows = append(rows, ev.Row.entry())
			return
		}
		if tr == nil {
			tr = build(t, rows)
		}
		if o := ev.Op; o != nil {
			ops++
			op := Op{o.Kind, o.Path, o.To, o.Data, o.Offset, o.Truncate, o.Writer, o.MTime, t0}
			if _, err := tr.Apply(&op); err != nil {
				refused = append(refused, err.Error())
			}
		}
		if ev.Index != nil {
			indexes++
			if got := tr.Index(); !bytes.Equal(got, ev.Index) {
				t.Errorf("after %d operations the index is not the recorded one", ops)
			}
		}
	})
	checkSound(t, tr)
	if ops < 300 || indexes < 5 {
		t.Fatalf("only %d operations and %d indexes", ops, indexes)
	}
	if want := []string{
		"create nodes/node2/lxc/100.conf: file exists",
		"mtime priv/lock/a: permission denied",
	}; !slices.Equal(refused, want) {
		t.Errorf("refused were %q, want %q", refused, want)
	}
	if got, want := tr.Checksum(), recordingHex(t, "trace.checksum.hex"); !bytes.Equal(got[:], want) {
		t.Errorf("the checksum at the end is %x, want %x", got, want)
	}
	end := build(t, recordedEntries(t, "trace.rows.jsonl.gz"))
	if d := pictureOf(end).diff(pictureOf(tr)); d != "" {
		t.Errorf("against the recorded database: %s", d)
	}
	// That node's .vmlist at the end.
	if guests, version := tr.Guests(); version != 10 || !slices.Equal(guests, []Guest{{100, "node1", GuestQemu, 7}}) {
		t.Errorf("the VM list is %v at version %d", guests, version)
	}
}

func TestVMListCountersGoOnThroughASynchronisation(t *testing.T) {
	// As recorded from a node that restarted, loaded the database and was
	// then brought up to date: list and guest are at version 2.
	entries := recordedEntries(t, "trace.rows.jsonl.gz")
	tr := build(t, entries)
	tr.Replace(build(t, entries))
	if guests, version := tr.Guests(); version != 2 || !slices.Equal(guests, []Guest{{100, "node1", GuestQemu, 2}}) {
		t.Errorf("the VM list is %v at version %d", guests, version)
	}
}
