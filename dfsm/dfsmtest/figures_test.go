package dfsmtest

import (
	"fmt"
	"testing"
	"time"
)

// prepare makes a cluster whose hosts have all daemons but the last, the same
// entries, and are synced.
func prepare(t testing.TB, hosts, entries, size int) (*Cluster, []*Disk) {
	disks := make([]*Disk, hosts)
	full := NewDisk(entries)
	for i := range full.Entries {
		value := make([]byte, size)
		copy(value, fmt.Sprint(i))
		full.History = append(full.History, OpID{Count: uint64(i + 1)})
		full.Entries[i] = Entry{Version: uint64(i + 1), Value: value}
	}
	for i := range disks {
		disks[i] = NewDisk(entries)
		if i < hosts-1 {
			copy(disks[i].Entries, full.Entries)
			disks[i].History = append([]OpID(nil), full.History...)
		}
	}
	c := NewCluster(Config{
		Hosts: hosts, Version: 1, Checksums: true,
		NewApp: func(p *Process) App { return NewModel(disks[p.host.ID-1]) },
	})
	for _, h := range c.hosts {
		h.Up = true
	}
	c.Rearrange([][]*Host{c.hosts}, CutSafe, nil)
	for _, h := range c.hosts[:hosts-1] {
		c.Start(h)
	}
	if !c.Settle(1 << 20) {
		t.Fatal("no end")
	}
	return c, disks
}

// TestJoinCostsOneStatePerMemberAndOneUpdatePerEntry gives the figures of a
// join into a large group: an empty node comes to 99 others.
func TestJoinCostsOneStatePerMemberAndOneUpdatePerEntry(t *testing.T) {
	for _, tt := range []struct{ hosts, entries, size int }{{3, 10_000, 700}, {100, 10_000, 700}, {3, 100_000, 700}} {
		if (testing.Short() || raced) && tt.hosts*tt.entries > 100_000 {
			continue
		}
		t.Run(fmt.Sprintf("%dnodes/%dentries", tt.hosts, tt.entries), func(t *testing.T) {
			c, disks := prepare(t, tt.hosts, tt.entries, tt.size)
			messages, bytes := c.Traffic()
			start := time.Now()
			p := c.Start(c.hosts[tt.hosts-1])
			if !c.Settle(1 << 20) {
				t.Fatal("no end")
			}
			took := time.Since(start)
			m, b := c.Traffic()
			m, b = m-messages, b-bytes
			state := len(disks[0].State()) + 32
			t.Logf("join: %d messages, %.1f MB, of which states %.1f MB; %v of computing on all nodes together",
				m, float64(b)/1e6, float64((tt.hosts-1)*state)/1e6, took.Round(time.Millisecond))
			// sync-start, states, root, entries, update-complete
			if want := 1 + tt.hosts + 1 + tt.entries + 1; m != want {
				t.Errorf("%d messages, want %d", m, want)
			}
			if _, synced := p.Machine.Members(); synced != tt.hosts {
				t.Errorf("%d members synced", synced)
			}
			if string(disks[0].State()) != string(disks[tt.hosts-1].State()) {
				t.Error("the newcomer has another state")
			}
		})
	}
}
