package datacenter

import (
	"encoding/json"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// document is a configuration as the recordings show it.
func (c *Config) document() map[string]any {
	d := map[string]any{"description": c.Description, "mac_prefix": defaultMACPrefix}
	for key, value := range c.values {
		switch key {
		case "migration", "replication", "next-id", "ha":
			standard := "type"
			if key == "next-id" {
				standard = ""
			}
			p, _ := properties(value, standard)
			m := map[string]any{}
			for k, v := range p {
				m[k] = v
			}
			d[key] = m
		case "migration_unsecure":
			n, _ := strconv.Atoi(value)
			d[key] = float64(n)
		default:
			d[key] = value
		}
	}
	return d
}

func TestFilesAreReadAndWrittenAsRecorded(t *testing.T) {
	b, err := os.ReadFile("testdata/datacenter.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Input      *string
		Parsed     map[string]any
		Written    string
		Warnings   int
		WriteError bool `json:"write_error"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		input := ""
		if v.Input != nil {
			input = *v.Input
		}
		c := Parse([]byte(input))
		if got := c.document(); !reflect.DeepEqual(got, v.Parsed) {
			t.Errorf("%q: %v, want %v", input, got, v.Parsed)
		}
		if (len(c.Warnings) > 0) != (v.Warnings > 0) {
			t.Errorf("%q: warnings %q, recorded %d", input, c.Warnings, v.Warnings)
		}
		text, err := c.Print()
		if (err != nil) != v.WriteError {
			t.Errorf("%q: %v", input, err)
			continue
		}
		// What the stock tool has not understood it drops: here it stays, at the end.
		kept := ""
		for _, l := range c.kept {
			kept += l + "\n"
		}
		if err == nil && string(text) != v.Written+kept {
			t.Errorf("%q: written %q, want %q", input, text, v.Written+kept)
		}
	}
	if len(all) < 30 {
		t.Errorf("only %d recordings", len(all))
	}
}

func TestNextIDIsTheLowestFreeOneInItsRange(t *testing.T) {
	used := map[int]bool{100: true, 101: true, 103: true, 200: true}
	for _, test := range []struct {
		r    NextID
		want int
		says string
	}{
		{NextID{DefaultLower, DefaultUpper}, 102, ""},
		{NextID{103, 1000}, 104, ""},
		{NextID{200, 202}, 201, ""},
		{NextID{10, 1000}, 102, ""},
		{NextID{200, 201}, 0, "no id from 200 to 200 is free"},
		{NextID{300, 300}, 0, "holds no id"},
	} {
		got, err := test.r.Free(func(id int) bool { return used[id] })
		if got != test.want || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%+v: %d, %v; want %d, %q", test.r, got, err, test.want, test.says)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("# x\nmigration: secure,network=10.0.0.0/24\nnext-id: lower=200,upper=5000\nkeyboard de\n"))
	f.Add([]byte("migration_unsecure: 1\nmac_prefix: 02:00\ncrs:\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := Parse(b)
		text, err := c.Print()
		if err != nil {
			return
		}
		again := Parse(text)
		if second, err := again.Print(); err != nil || string(second) != string(text) {
			t.Errorf("%q is printed as %q, and that as %q, %v", b, text, second, err)
		}
	})
}
