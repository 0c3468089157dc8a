package ipc

import (
	"encoding/json"
	"strings"
	"testing"

	"pmxcfs/memdb"
)

// FuzzRequest sends any bytes as any op: no panic, an error carries no data, a read-only
// client changes nothing and sees nothing private, answers that are JSON are valid.
func FuzzRequest(f *testing.F) {
	for _, s := range samples() {
		if len(s.data) < 1000 {
			f.Add(s.op, s.data)
		}
	}
	f.Fuzz(func(t *testing.T, op int32, data []byte) {
		site := sampleSite(t)
		before := string(data)
		for _, access := range []Access{ReadOnly, Full} {
			out, errno := site.direct(t, access).Serve(op, data)
			if errno != 0 && len(out) > 0 {
				t.Fatalf("%v with %q", errno, out)
			}
			if string(data) != before {
				t.Fatal("the request was changed")
			}
			if errno == 0 && (op == OpGuestProperty || op == OpGuestProperties) && !json.Valid(out) {
				t.Fatalf("%q", out)
			}
			if access == ReadOnly && (string(out) == "secret" || site.group.posted != nil) {
				t.Fatalf("a read-only client got %q", out)
			}
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, p := range []string{"", "/", "a", "/a//b/./c/", "..", "a/..", "nodes//x/priv/k", "./priv", ".../x", "a/\xff"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		clean, ok := cleanPath(path)
		if !ok {
			if clean != "" || !strings.Contains(path, "..") {
				t.Fatalf("%q refused", path)
			}
			return
		}
		for part := range strings.SplitSeq(clean, "/") {
			if part == "." || part == ".." || part == "" && clean != "" {
				t.Fatalf("%q became %q", path, clean)
			}
		}
		again, ok := cleanPath(clean)
		if !ok || again != clean || memdb.CleanPath(clean) != clean {
			t.Fatalf("%q is not canonical", clean)
		}
	})
}
