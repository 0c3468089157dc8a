package jsontext

import (
	"encoding/json"
	"testing"
)

func TestStringsAreValidJSONWhateverTheyHold(t *testing.T) {
	for value, want := range map[string]string{
		`plain`:                 `plain`,
		"a\"b\\c":               "a\"b\\c",
		"\x00\x01\x1f\x7f\ta\n": "\x00\x01\x1f\x7f\ta\n",
		"grün 日本 🐧":             "grün 日本 🐧",
		"\xff\xc3x\xe6\x97":     "\ufffd\ufffdx\ufffd\ufffd",
		"\ufffd":                "\ufffd",
		"\u2028</script>":       "\u2028</script>",
	} {
		var got string
		out := AppendString(nil, []byte(value))
		if err := json.Unmarshal(out, &got); err != nil || got != want {
			t.Errorf("%q: %s: got %q, %v", value, out, got, err)
		}
		if same := AppendString(nil, value); string(same) != string(out) {
			t.Errorf("%q: string and bytes differ: %s, %s", value, same, out)
		}
	}
}

func FuzzAppendStringIsJSON(f *testing.F) {
	for _, seed := range []string{"", "node1", "a\"b", "a\\b", "\x00\x1f\t", "\xff\xfe", "ü☃"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		b := AppendString(nil, s)
		if err := json.Unmarshal(b, &got); err != nil || got != string([]rune(s)) { // which makes a byte that is not UTF-8 U+FFFD
			t.Errorf("%q became %s: %q, %v", s, b, got, err)
		}
	})
}
