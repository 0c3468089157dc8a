package rrd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The header of a storage's file: 2 data sources, 8 archives; offsets as
// rrd_format.h gives them on 64-bit hosts.
const (
	storageHeader = 128 + 2*120 + 8*120 + 16 + 2*112 + 16*80 + 8*8
	storageSize   = storageHeader + 2*2*rowsPerArchiveSet*8

	headerCreated = 1700000000 // start of the file
)

// storageFile makes a storage's file and gives its content.
func storageFile(t testing.TB, file string) []byte {
	t.Helper()
	for _, f := range families() {
		if f.current != "pve-storage-9.0" {
			continue
		}
		if err := (librrd{}).create(file, step, time.Unix(headerCreated, 0), f.definitions()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil || len(b) != storageSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	return b
}

func TestHeadersOfAllFamiliesPass(t *testing.T) {
	for _, f := range families() {
		file := filepath.Join(t.TempDir(), "file")
		if err := (librrd{}).create(file, step, time.Unix(headerCreated, 0), f.definitions()); err != nil {
			t.Fatal(err)
		}
		sample := fmt.Sprint(headerCreated + 12345)
		for range f.sources {
			sample += ":12345678901234567"
		}
		for range 2 {
			if err := makeSafe(file, testNow); err != nil {
				t.Errorf("%s: %v", f.current, err)
			}
			_ = librrd{}.update(file, sample)
		}
	}
}

func TestDamagedHeadersAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	good := storageFile(t, file)
	const (
		sources  = 128
		archives = sources + 2*120
		live     = archives + 8*120
		pdps     = live + 16
		cdps     = pdps + 2*112
		rows     = cdps + 16*80
	)
	put := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.NativeEndian.PutUint64(b[at:], v)
			return b
		}
	}
	write := func(at int, s string) func([]byte) []byte {
		return func(b []byte) []byte {
			copy(b[at:], s)
			return b
		}
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	for name, damage := range map[string]func([]byte) []byte{
		"empty":                    cut(0),
		"ends in the head":         cut(100),
		"ends in the definitions":  cut(archives + 5),
		"ends in the state":        cut(rows + 5),
		"a byte is missing":        cut(storageSize - 1),
		"cookie":                   write(0, "RRE"),
		"version":                  write(4, "x009"),
		"float cookie":             put(16, 0),
		"no source":                put(24, 0),
		"very many sources":        put(24, 1<<40),
		"no archive":               put(32, 0),
		"very many archives":       put(32, 1<<63),
		"no step":                  put(40, 0),
		"huge step":                put(40, 1<<40),
		"source without a name":    write(sources, "\x00"),
		"name without end":         write(sources, "xxxxxxxxxxxxxxxxxxxx"),
		"type without end":         write(sources+20, "GAUGEGAUGEGAUGEGAUGE"),
		"archive without rows":     put(archives+24, 0),
		"archive with many rows":   put(archives+24, 1<<60),
		"row of no steps":          put(archives+32, 0),
		"row of many steps":        put(archives+32, 1<<63),
		"last update before time":  put(live, 1<<63),
		"negative microseconds":    put(live+8, 1<<63),
		"last value without end":   write(pdps, "000000000000000000000000000000"),
		"unknown longer than step": put(pdps+32, 61),
		"more unknown than steps":  put(cdps+8, 2),
		"row beyond the archive":   put(rows+7*8, 570),
	} {
		t.Run(name, func(t *testing.T) {
			b := damage(bytes.Clone(good))
			if err := checkHeader(bytes.NewReader(b), int64(len(b)), testNow); !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v, want ErrDamaged", err)
			}
		})
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   error
	}{
		"undamaged":                 {func(b []byte) []byte { return b }, nil},
		"a later version":           {write(4, "0009"), ErrUnsupported},
		"computed source":           {write(sources+20, "COMPUTE\x00"), ErrUnsupported},
		"predicting archive":        {write(archives, "HWPREDICT\x00"), ErrUnsupported},
		"last update soon":          {put(live, uint64(testNow.Unix())+600), nil},
		"last update in the future": {put(live, uint64(testNow.Unix())+601), ErrFuture},
		"last update far away":      {put(live, 1<<40), ErrFuture},
	} {
		b := c.change(bytes.Clone(good))
		if err := checkHeader(bytes.NewReader(b), int64(len(b)), testNow); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// updateIfSafe gives librrd a file if it passes: what it does then must not end
// the process.
func updateIfSafe(t testing.TB, file string) (passed bool) {
	t.Helper()
	now := time.Unix(headerCreated+1e5, 0)
	if err := makeSafe(file, now); err != nil {
		return false
	}
	for _, after := range []int{60, 70, 4000, 1e5} {
		_ = librrd{}.update(file, fmt.Sprintf("%d:1:2", headerCreated+after))
	}
	return true
}

func TestWhatPassesTheCheckDoesNotKillTheProcess(t *testing.T) {
	rnd := testRand(t)
	file := filepath.Join(t.TempDir(), "file")
	good := storageFile(t, file)
	passed, refused := 0, 0
	for range 1000 {
		b := bytes.Clone(good)
		for range 1 + rnd.IntN(3) {
			at := rnd.IntN(storageHeader)
			switch rnd.IntN(3) {
			case 0:
				b[at] = byte(rnd.IntN(256))
			case 1:
				b[at] = 0xff
			case 2: // a whole word, in which bytes are all ones or zero
				for i := range 8 {
					b[at&^7+i] = byte(0xff * rnd.IntN(2))
				}
			}
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if updateIfSafe(t, file) {
			passed++
		} else {
			refused++
		}
	}
	if passed == 0 || refused == 0 {
		t.Errorf("%d passed, %d refused", passed, refused)
	}
}

func testRand(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func FuzzCheckHeader(f *testing.F) {
	f.Add(storageFile(f, filepath.Join(f.TempDir(), "file"))[:storageHeader])
	f.Fuzz(func(t *testing.T, header []byte) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, header, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, max(storageSize, int64(len(header)))); err != nil {
			t.Fatal(err)
		}
		updateIfSafe(t, file)
	})
}
