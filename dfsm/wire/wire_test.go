package wire

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
)

type recorded struct {
	group string
	raw   []byte
}

// recordings are messages that the stock daemon sent, a few of each type and
// group: "GROUP HEX" a line.
func recordings(t testing.TB) []recorded {
	t.Helper()
	f, err := os.Open("testdata/messages.hex")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []recorded
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		group, text, ok := strings.Cut(sc.Text(), " ")
		raw, err := hex.DecodeString(text)
		if !ok || err != nil {
			t.Fatalf("testdata: %q: %v", sc.Text(), err)
		}
		all = append(all, recorded{group, raw})
	}
	if sc.Err() != nil || len(all) == 0 {
		t.Fatalf("testdata: %d messages, %v", len(all), sc.Err())
	}
	return all
}

func TestRecordedMessagesSurviveDecodeAndEncode(t *testing.T) {
	version := map[string]uint32{"pve_dcdb_v1": 1, "pve_kvstore_v1": 0}
	seen := map[Type]int{}
	for _, r := range recordings(t) {
		m, err := Decode(r.raw)
		if err != nil {
			t.Fatalf("%x: %v", r.raw, err)
		}
		if m.Version != version[r.group] {
			t.Errorf("%s: protocol version %d", r.group, m.Version)
		}
		if (m.Type == Normal) == (m.Subtype == 0) {
			t.Errorf("%s: %v with subtype %d", r.group, m.Type, m.Subtype)
		}
		if m.Type == Normal && m.Count == 0 {
			t.Errorf("%s: count 0", r.group)
		}
		if m.Type != Normal && (m.Epoch.NodeID == 0 || m.Epoch.PID == 0 || m.Epoch.Counter < 2) {
			t.Errorf("%s: %v in epoch %+v", r.group, m.Type, m.Epoch)
		}
		if got := m.Encode(); !bytes.Equal(got, r.raw) {
			t.Errorf("%v encodes to\n%x, was\n%x", m.Type, got, r.raw)
		}
		seen[m.Type]++
	}
	for _, want := range []Type{Normal, SyncStart, State, Update, UpdateComplete} {
		if seen[want] == 0 {
			t.Errorf("no recorded message of type %v", want)
		}
	}
}

func TestLayoutIsFixed(t *testing.T) {
	var sum [ChecksumSize]byte
	for i := range sum {
		sum[i] = byte(i + 1)
	}
	epoch := Epoch{Counter: 0x01020304, Time: 0x05060708, NodeID: 0x090a0b0c, PID: 0x0d0e0f10}
	tests := []struct {
		m    Message
		want string
	}{
		{
			Message{Header: Header{Normal, 0x0102, 1, 0x11223344}, Count: 0x0807060504030201, Payload: []byte("ab")},
			"0000" + "0201" + "01000000" + "44332211" + "00000000" + "0102030405060708" + "6162",
		},
		{
			Message{Header: Header{VerifyRequest, 0, 1, 2}, Epoch: epoch, Payload: AppendVerifyRequest(nil, 3)},
			"0500" + "0000" + "01000000" + "02000000" + "00000000" + "04030201" + "08070605" + "0c0b0a09" + "100f0e0d" + "0300000000000000",
		},
		{
			Message{Header: Header{Verify, 0, 1, 2}, Epoch: epoch, Payload: AppendVerify(nil, 3, sum)},
			"0600" + "0000" + "01000000" + "02000000" + "00000000" + "04030201" + "08070605" + "0c0b0a09" + "100f0e0d" + "0300000000000000" + hex.EncodeToString(sum[:]),
		},
	}
	for _, tt := range tests {
		if got := hex.EncodeToString(tt.m.Encode()); got != tt.want {
			t.Errorf("%v:\n got %s\nwant %s", tt.m.Type, got, tt.want)
		}
		if len(tt.m.Encode()) != tt.m.Size() {
			t.Errorf("%v: Size is %d", tt.m.Type, tt.m.Size())
		}
	}
	if id, got, err := DecodeVerify(tests[2].m.Payload); id != 3 || got != sum || err != nil {
		t.Errorf("DecodeVerify: %d %x %v", id, got, err)
	}
	if got := (Epoch{Counter: 3, Time: 9, NodeID: 1, PID: 123}).String(); got != "1/123/00000003" {
		t.Errorf("epoch prints as %q", got)
	}
}

func TestEveryTruncationIsRefusedOrLosesPayloadOnly(t *testing.T) {
	for _, typ := range []Type{Normal, SyncStart, State, Update, UpdateComplete, VerifyRequest, Verify, 7, 0xffff} {
		m := Message{Header: Header{Type: typ, Version: 1}, Payload: bytes.Repeat([]byte{0xee}, 50)}
		raw := m.Encode()
		head := len(raw) - 50
		for n := range raw {
			got, err := Decode(raw[:n:n])
			if short := n < head; short != errors.Is(err, ErrShort) {
				t.Fatalf("%v cut to %d of %d: %v", typ, n, head, err)
			}
			if err == nil && len(got.Payload) != n-head {
				t.Fatalf("%v cut to %d: payload of %d", typ, n, len(got.Payload))
			}
		}
	}
	for n := range verifySize {
		p := make([]byte, n)
		if _, _, err := DecodeVerify(p); !errors.Is(err, ErrShortVerify) {
			t.Errorf("verify of %d bytes: %v", n, err)
		}
		if _, err := DecodeVerifyRequest(p); (err != nil) != (n < verifyRequestSize) {
			t.Errorf("verify-request of %d bytes: %v", n, err)
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	raw := (&Message{Header: Header{Type: State}, Payload: make([]byte, 1<<20)}).Encode()
	if n := testing.AllocsPerRun(100, func() {
		if m, err := Decode(raw); err != nil || len(m.Payload) != 1<<20 {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range recordings(f) {
		f.Add(r.raw)
	}
	f.Add([]byte{})
	f.Add(make([]byte, HeaderSize))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Decode(raw)
		if err != nil {
			if !errors.Is(err, ErrShort) || len(raw) >= EpochHeaderSize {
				t.Fatalf("%d bytes: %v", len(raw), err)
			}
			return
		}
		want := bytes.Clone(raw)
		clear(want[12:16]) // reserved: sent as 0
		if got := m.Encode(); !bytes.Equal(got, want) {
			t.Fatalf("got %x\nwant %x", got, want)
		}
		if id, err := DecodeVerifyRequest(m.Payload); err == nil && !bytes.HasPrefix(m.Payload, AppendVerifyRequest(nil, id)) {
			t.Fatalf("verify-request id %d of %x", id, m.Payload)
		}
		if id, sum, err := DecodeVerify(m.Payload); err == nil && !bytes.HasPrefix(m.Payload, AppendVerify(nil, id, sum)) {
			t.Fatalf("verify id %d sum %x of %x", id, sum, m.Payload)
		}
	})
}
