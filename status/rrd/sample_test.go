package rrd

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recorded is what three stock daemons were given and kept in .rrd.
const (
	recordedKey   = "pve-node-9.0/node2"
	recordedValue = "100:1:1795251028:0.5:4:0.1:0.01:8000:4000:1000:10:50000:20000:100:200:3000:0:0.1:0.2:0.3:0.4:0.5"
)

var testNow = time.Unix(1795251100, 0)

func TestSamplesAreMappedToFilesAndColumns(t *testing.T) {
	const (
		node12 = "1:2:3:4:5:6:7:8:9:10:11:12"
		node19 = node12 + ":13:14:15:16:17:18:19"
		vm10   = "1:2:3:4:5:6:7:8:9:10"
		vm17   = vm10 + ":11:12:13:14:15:16:17"
	)
	tests := []struct{ name, key, value, file, update string }{
		{"recorded", recordedKey, recordedValue, "pve-node-9.0/node2",
			"1795251028:0.5:4:0.1:0.01:8000:4000:1000:10:50000:20000:100:200:3000:0:0.1:0.2:0.3:0.4:0.5"},
		{"old node", "pve2-node/a-1", "up:sub:100:" + node12, "pve-node-9.0/a-1", "100:" + node12 + ":U:U:U:U:U:U:U"},
		{"old node, more columns", "pve2-node/n", "up:sub:100:" + node19, "pve-node-9.0/n", "100:" + node12 + ":U:U:U:U:U:U:U"},
		{"newer node", "pve-node-9.1/n", "up:sub:100:" + node19 + ":20:21", "pve-node-9.0/n", "100:" + node19},
		{"much newer node", "pve-node-10.0/n", "up:sub:100:" + node19 + ":20", "pve-node-9.0/n", "100:" + node19},
		{"newer node, as many columns", "pve-node-12.34/n", "up:sub:100:" + node19, "pve-node-9.0/n", "100:" + node19},
		{"vm", "pve-vm-9.0/100", "10:name:running:0:100:" + vm17, "pve-vm-9.0/100", "100:" + vm17},
		{"old vm", "pve2.3-vm/999999999", "10:name:running:0:100:" + vm10, "pve-vm-9.0/999999999", "100:" + vm10 + ":U:U:U:U:U:U:U"},
		{"newer vm", "pve-vm-9.7/100", "10:name:running:0:100:" + vm17 + ":18", "pve-vm-9.0/100", "100:" + vm17},
		{"storage", "pve-storage-9.0/node1/local-lvm", "100:5:3", "pve-storage-9.0/node1/local-lvm", "100:5:3"},
		{"old storage", "pve2-storage/node1/local", "100:5:3", "pve-storage-9.0/node1/local", "100:5:3"},
		{"newer storage", "pve-storage-11.0/n/s", "100:5:3:x:y", "pve-storage-9.0/n/s", "100:5:3"},
		{"number formats", "pve-storage-9.0/n/s", "100:1.5e+10:-.5E-3", "pve-storage-9.0/n/s", "100:1.5e+10:-.5E-3"},
		{"unknown", "pve-storage-9.0/n/s", "100:U:", "pve-storage-9.0/n/s", "100:U:U"},
		{"not a number", "pve-storage-9.0/n/s", "100:NaN:-inf", "pve-storage-9.0/n/s", "100:U:U"},
		{"derive is whole", "pve-vm-9.0/100", "a:b:c:d:100:1:2:3:4:5:6:7.9:1e+3:-8:1e30:1:2:3:4:5:6:7", "pve-vm-9.0/100",
			"100:1:2:3:4:5:6:7:1000:-8:U:1:2:3:4:5:6:7"},
	}
	p := newParser()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := p.parse(tt.key, tt.value, testNow)
			if err != nil {
				t.Fatal(err)
			}
			if file := strings.Join(s.file, "/"); file != tt.file || s.update != tt.update {
				t.Errorf("%s %s, want\n%s %s", file, s.update, tt.file, tt.update)
			}
		})
	}
}

func TestKeysOfOtherShapesAreRefused(t *testing.T) {
	long := strings.Repeat("n", 256)
	for _, key := range []string{
		"", "/", "pve-node-9.0", "pve-node-9.0/", "pve-node-9.0/a/b", "/pve-node-9.0/a", "pve-node-9.0//a",
		"pve-node-9.0/..", "pve-node-9.0/.", "pve-node-9.0/../../etc/passwd", "../pve-node-9.0/a", "pve-node-9.0/.hidden",
		"pve-node-9.0/a b", "pve-node-9.0/a\nUPDATE x 1:1", "pve-node-9.0/a\x00b", "pve-node-9.0/a:b", `pve-node-9.0/a\b`,
		"pve-node-9.0/-x", "pve-node-9.0/ö", "pve-node-9.0/" + long,
		"pve-node-8.4/a", "pve-node-9/a", "pve-node-09.0/a", "pve-node-9.x/a", "pve-node--9.0/a", "pve-node-9.0.1/a", "pve-node-99999.0/a",
		"pve-node-/a", "pve3-node/a", "pve2-vm/100", "pve2-nodes/a",
		"pve-vm-9.0/abc", "pve-vm-9.0/0100", "pve-vm-9.0/-1", "pve-vm-9.0/12345678901", "pve2.3-vm/../100", "pve-vm-9.0/100/x",
		"pve-storage-9.0/node1", "pve-storage-9.0/node1/a/b", "pve-storage-9.0/../local", "pve-storage-9.0/node1/..", "pve2-storage//x",
	} {
		_, _, file, err := newParser().parseKey(key)
		if !errors.Is(err, ErrKey) {
			t.Errorf("%q: file %v, error %v, want ErrKey", key, file, err)
		}
	}
}

func TestMalformedValuesAreRefused(t *testing.T) {
	for name, value := range map[string]string{
		"empty":                  "",
		"a column short":         "100:1",
		"timestamp empty":        ":1:2",
		"timestamp now":          "N:1:2",
		"timestamp at-style":     "now@1:1:2",
		"timestamp negative":     "-5:1:2",
		"timestamp with point":   "100.5:1:2",
		"timestamp overflows":    "99999999999999999999:1:2",
		"not a number":           "100:abc:2",
		"hex":                    "100:0x10:2",
		"another command":        "100:1:2\nFORGET x",
		"a second sample":        "100:1 200:2:3",
		"number without end":     "100:1:" + strings.Repeat("9", 41),
		"sign only":              "100:+-1:2",
		"exponent without digit": "100:1e:2",
	} {
		if s, err := newParser().parse("pve-storage-9.0/n/s", value, testNow); !errors.Is(err, ErrValue) {
			t.Errorf("%s: update %q, error %v, want ErrValue", name, s.update, err)
		}
	}
}

// TestSamplesOfTheFutureAreMeasuredNow has the clock of another node be ahead.
func TestSamplesOfTheFutureAreMeasuredNow(t *testing.T) {
	now := testNow.Unix()
	for at, want := range map[int64]int64{now - 100: now - 100, now: now, now + 60: now + 60, now + 61: now, now + 1e9: now, 999999999999: now} {
		s, err := newParser().parse("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:2", at), testNow)
		if err != nil || s.update != fmt.Sprintf("%d:1:2", want) {
			t.Errorf("%d: %q, %v, want %d", at, s.update, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(recordedKey, recordedValue)
	f.Add("pve2-node/n", "a:b:100:1:2:3:4:5:6:7:8:9:10:11:12")
	f.Add("pve2.3-vm/100", "10:name:running:0:100:1:2:3:4:5:6:7:8:9:10")
	f.Add("pve-vm-9.1/100", "10:name:running:0:100:1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18")
	f.Add("pve-storage-9.0/../..", "100:1:2")
	p := newParser()
	f.Fuzz(func(t *testing.T, key, value string) {
		s, err := p.parse(key, value, testNow)
		if err != nil {
			if !errors.Is(err, ErrKey) && !errors.Is(err, ErrValue) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		d := &files{dir: "/base"}
		path := d.path(&s)
		rel, err := filepath.Rel("/base", path)
		if err != nil || !filepath.IsLocal(rel) || strings.Count(rel, "/") != len(s.file)-1 || len(s.file) < 2 {
			t.Errorf("%q leads to %s", key, path)
		}
		if n := strings.Count(s.update, ":"); n != len(s.family.sources) {
			t.Errorf("%d columns", n)
		}
		line := command(path, s.update)
		if strings.Count(line, "\n") != 1 || strings.Count(line, " ") != 2 || strings.ContainsAny(line, "\\\x00\r") {
			t.Errorf("command %q", line)
		}
	})
}
