package qb_test

import (
	"testing"
	"time"

	"pmxcfs/corosync/qb/qbclient"
)

// BenchmarkConnect measures connecting and disconnecting: libqb makes and clears three rings,
// and nobody else is served meanwhile.
func BenchmarkConnect(b *testing.B) {
	srv := serve(b, nil)
	go func() {
		for range srv.peers {
		}
	}()
	b.Cleanup(func() { close(srv.peers) })
	b.Cleanup(srv.Stop)
	for b.Loop() {
		c, err := qbclient.Dial(srv.name)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// BenchmarkRoundTrip measures a Go client's request to a Go handler, on the loop's thread and
// on a goroutine.
func BenchmarkRoundTrip(b *testing.B) {
	srv := serve(b, nil)
	c := dial(b, srv.name)
	data := pattern(100)
	for name, op := range map[string]int32{"quick": opEcho, "goroutine": opSlow} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.SendRecv(op, data, 10*time.Second); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
