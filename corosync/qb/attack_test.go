package qb_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmxcfs/corosync/qb"
	"pmxcfs/corosync/qb/qbtest"
	"pmxcfs/internal/testutil"
)

// Where things are in a ring's header file, in bytes.
const (
	writePos   = 0
	readPos    = 4
	wordCount  = 8
	headerPath = 12
	dataPath   = headerPath + 4096
	refCount   = dataPath + 4096
	semaphore  = refCount + 4
)

// An attack is what a client does to its rings.
type attack struct {
	name string
	do   func(a *attacker)
}

type attacker struct {
	*qbtest.Client
	victims [2]string // files that are none of its business
}

// word sets a word of a ring's header.
func (a *attacker) word(ring string, offset int, value uint32) {
	a.Poke(ring, "header", offset, binary.NativeEndian.AppendUint32(nil, value))
}

// chunk puts a request into the request ring, with a length, a mark and a header of its choice, where
// the server looks next after so many requests of 16 bytes.
func (a *attacker) chunk(after int, length, mark uint32, id, size int32) {
	b := binary.NativeEndian.AppendUint32(nil, length)
	b = binary.NativeEndian.AppendUint32(b, mark)
	b = binary.NativeEndian.AppendUint64(b, uint64(uint32(id)))
	b = binary.NativeEndian.AppendUint64(b, uint64(uint32(size)))
	a.Poke("request", "data", after*24, b)
}

func (a *attacker) noise(ring, part string, offset, n int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	a.Poke(ring, part, offset, b)
}

// paths makes the headers name the victims.
func (a *attacker) paths() {
	for _, ring := range []string{"request", "response", "event"} {
		a.Poke(ring, "header", dataPath, append([]byte(a.victims[0]), 0))
		a.Poke(ring, "header", headerPath, append([]byte(a.victims[1]), 0))
	}
}

const written = 0xA1A1A1A1

// attacks are all that a client can write and take away.
func attacks() []attack {
	list := []attack{
		{"paths, then a good end", func(a *attacker) { a.paths(); a.Close() }},
		{"paths, then killed", func(a *attacker) { a.paths(); a.Kill() }},
		{"paths and no reference left", func(a *attacker) {
			a.paths()
			a.word("request", refCount, 0)
			a.word("response", refCount, 0)
			a.Kill()
		}},
		{"semaphores", func(a *attacker) {
			a.Poke("request", "header", semaphore, []byte(strings.Repeat("\xff", 32)))
			a.Poke("response", "header", semaphore, []byte(strings.Repeat("\xff", 32)))
		}},
		{"semaphore about to overflow", func(a *attacker) { a.word("response", semaphore, 1<<31-1) }},
		{"bells for nothing", func(a *attacker) { a.Bell(1) }},
		{"bells without end", func(a *attacker) {
			for range 20 {
				a.Bell(1 << 20)
			}
		}},
		{"a mark that is none", func(a *attacker) { a.chunk(0, 16, 0xA110CED0, opEcho, 16) }},
		{"too short for a header", func(a *attacker) { a.chunk(0, 15, written, opEcho, 16) }},
		{"of no length", func(a *attacker) { a.chunk(0, 0, written, opEcho, 16) }},
		{"all files gone", func(a *attacker) {
			for _, ring := range []string{"request", "response", "event"} {
				a.Cut(ring, "data", 0)
				a.Cut(ring, "header", 0)
			}
		}},
		{"files cut in the middle", func(a *attacker) {
			a.Cut("request", "data", 4096)
			a.Cut("response", "data", 4096)
			for i := range 300 { // beyond the first page
				a.chunk(i, 16, written, opEcho, 16)
			}
			a.Bell(300)
		}},
	}
	// Positions and lengths: small, near the ring's end, the end, beyond, and what overflows.
	for _, v := range []uint32{0, 1, 0x403ff, 0x40400, 0x40000000, 0x7fffffff, 0xffffffff} {
		for _, ring := range []string{"request", "response"} {
			for _, field := range []struct {
				name   string
				offset int
			}{{"write position", writePos}, {"read position", readPos}, {"length", wordCount}} {
				list = append(list, attack{
					fmt.Sprintf("%s %s %#x", ring, field.name, v),
					func(a *attacker) { a.word(ring, field.offset, v) },
				})
			}
			list = append(list, attack{
				fmt.Sprintf("%s endless, positions %#x", ring, v),
				func(a *attacker) {
					a.word(ring, wordCount, 0xffffffff)
					a.word(ring, readPos, v)
					a.word(ring, writePos, v)
				},
			})
		}
		list = append(list,
			attack{fmt.Sprintf("chunk length %#x", v), func(a *attacker) { a.chunk(0, v, written, opEcho, 16) }},
			attack{fmt.Sprintf("message length %#x", v), func(a *attacker) { a.chunk(0, 16, written, opEcho, int32(v)) }},
		)
	}
	for seed := range uint64(4) {
		list = append(list,
			attack{fmt.Sprintf("noise in the positions %d", seed), func(a *attacker) {
				a.noise("request", "header", 0, 12, seed)
				a.noise("response", "header", 0, 12, seed)
			}},
			attack{fmt.Sprintf("noise in the headers %d", seed), func(a *attacker) {
				a.noise("request", "header", 0, refCount+48, seed)
				a.noise("response", "header", 0, refCount+48, seed)
			}},
			attack{fmt.Sprintf("noise in the data %d", seed), func(a *attacker) {
				a.noise("request", "data", 0, 1<<20, seed)
				a.noise("response", "data", 0, 1<<20, seed)
			}},
		)
	}
	for _, c := range []struct {
		name, ring, part string
		offset           int
		a, b             uint32
	}{
		{"chunk length", "request", "data", 0, 16, 0x7ffffff0},
		{"message length", "request", "data", 16, 16, 0x7fffffff},
		{"mark", "request", "data", 4, written, 0},
		{"read position", "response", "header", readPos, 0, 0x40000},
		{"length of the ring", "response", "header", wordCount, 1, 0xffffffff},
		{"semaphore", "response", "header", semaphore, 0x7fffffff, 0},
	} {
		list = append(list, attack{c.name + " changes all the time", func(a *attacker) {
			a.Churn(c.ring, c.part, c.offset, c.a, c.b)
			for i := range 200 {
				a.chunk(i, 16, written, opEcho, 16)
				a.Bell(1)
			}
		}})
	}
	return list
}

// Whatever a client does to the memory that it shares with the server, only the client is hurt.
func TestAttacksOnTheRings(t *testing.T) {
	peer := qbtest.Build(t)
	for name, as := range map[string]*qbtest.As{"own user": nil, "www-data": {Uid: 33, Gid: 33}} {
		t.Run(name, func(t *testing.T) {
			testutil.NoLeaks(t)
			srv := serve(t, func(c *qb.Config) { c.SlowLimit = 200 * time.Millisecond })
			go func() {
				for range srv.peers {
				}
			}()
			t.Cleanup(func() { srv.Stop(); close(srv.peers) })
			other := dial(t, srv.name)
			dir := t.TempDir() // 0700: the test's own
			var victims [2]string
			for i := range victims {
				victims[i] = filepath.Join(dir, fmt.Sprint("victim", i))
			}
			for _, attack := range attacks() {
				for _, v := range victims {
					if err := os.WriteFile(v, []byte("precious"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				c := peer.Connect(t, srv.name, 0, as)
				if c.Refused != 0 {
					t.Fatal(c.Refused)
				}
				attack.do(&attacker{c, victims})
				// Whatever is in the ring now, and what an honest client would send. The
				// client may not live that long.
				if c.Alive() {
					c.Bell(3)
					c.StartRaw(opEcho, 16, nil, 5)
				}
				mustEcho(t, other, opEcho, pattern(100))
				c.Kill()
				testutil.WaitFor(t, attack.name+": disconnected", func() bool { return srv.open.Load() == 1 })
				for _, v := range victims {
					if b, err := os.ReadFile(v); err != nil || string(b) != "precious" {
						t.Fatalf("%s: a file of somebody else's: %q, %v", attack.name, b, err)
					}
				}
				if t.Failed() {
					t.Fatal(attack.name)
				}
			}
			mustEcho(t, dial(t, srv.name), opEcho, pattern(5000))
		})
	}
}
