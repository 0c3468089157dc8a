package clusterlog

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestJSONIsEscapedOnlyWhereItMustBe(t *testing.T) {
	tests := []struct{ in, want string }{
		{`plain`, `plain`},
		{`a\"b`, `a\"b`},
		{`\\ \/ \b \f \n \r \t`, `\\ \/ \b \f \n \r \t`},
		{`\u00f6\u00F6`, `\u00f6\u00F6`},
		{`a"b`, `a\"b`},
		{`a\`, `a\\`},
		{`a\\`, `a\\`},
		{`a\\\`, `a\\\\`},
		{`hello \\"quoted\\"`, `hello \\\"quoted\\\"`},
		{`C:\dir`, `C:\\dir`},
		{`\u12`, `\\u12`},
		{`\u12g4`, `\\u12g4`},
		{`\u+123`, `\\u+123`},
		{`\u`, `\\u`},
		{`\ud83d\ude00`, `\ud83d\ude00`},
		{`\ud83d`, `\\ud83d`},
		{`\ud83d\u0041`, `\\ud83d\u0041`},
		{`\ud83d\ud83d\ude00`, `\\ud83d\ud83d\ude00`},
		{`\ude00`, `\\ude00`},
		{"a\nb\x01\x7f", `a\u000ab\u0001\u007f`},
		{"wörld \U0001f600", "wörld \U0001f600"},
		{"\xff\xc3", "\ufffd\ufffd"},
	}
	for _, tt := range tests {
		got := string(appendJSON(nil, []byte(tt.in)))
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
		if !json.Valid([]byte(`"` + got + `"`)) {
			t.Errorf("%q: %q is not valid", tt.in, got)
		}
	}
}

type dumped struct {
	Data []struct {
		UID, Time, PID       uint32
		Pri                  uint8
		Tag, Node, User, Msg string
	}
}

func parseDump(t *testing.T, b []byte) dumped {
	t.Helper()
	var d dumped
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	return d
}

func newTestLog(t testing.TB, node string) (*Log, *time.Time) {
	t.Helper()
	now := time.Unix(1000, 0)
	l, err := New(Config{Node: node, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return l, &now
}

func TestEmptyLogDumpsAsAnEmptyList(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	if d := parseDump(t, l.Dump(0, "")); d.Data == nil || len(d.Data) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestDumpIsNewestFirstAndLimited(t *testing.T) {
	l, now := newTestLog(t, "node1")
	for range 60 {
		*now = now.Add(time.Second)
		l.Add(Message{Priority: 5, PID: 9, Ident: "root@pam", Tag: "tag", Text: `it's "me"`})
	}
	for limit, want := range map[int]int{0: 50, -1: 50, 1: 1, 7: 7, 60: 60, 1000: 60} {
		d := parseDump(t, l.Dump(limit, ""))
		if len(d.Data) != want {
			t.Errorf("limit %d: %d entries, want %d", limit, len(d.Data), want)
		}
		for i, e := range d.Data {
			if e.UID != uint32(60-i) || e.Time != uint32(1060-i) || e.Pri != 5 || e.PID != 9 ||
				e.Node != "node1" || e.User != "root@pam" || e.Tag != "tag" || e.Msg != `it's "me"` {
				t.Fatalf("limit %d: entry %d is %+v", limit, i, e)
			}
		}
	}
}

func TestDumpOfOneUserHasThatUsersEntriesOnly(t *testing.T) {
	l, _ := newTestLog(t, "node1")
	long := strings.Repeat("u", 300)
	for i := range 200 {
		l.Add(Message{Ident: []string{"root@pam", "joe@pve", long, "root"}[i%4], Text: "x"})
	}
	for _, user := range []string{"root@pam", "joe@pve", "root", long} {
		d := parseDump(t, l.Dump(40, user))
		if len(d.Data) != 40 {
			t.Errorf("%s: %d entries", user, len(d.Data))
		}
		for _, e := range d.Data {
			if e.User != cutName(user) {
				t.Errorf("%s: an entry of %s", user, e.User)
			}
		}
	}
	if d := parseDump(t, l.Dump(0, "nobody")); len(d.Data) != 0 {
		t.Errorf("%d entries of nobody", len(d.Data))
	}
}
