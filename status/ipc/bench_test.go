package ipc

import (
	"encoding/json"
	"fmt"
	"testing"
)

// ordinaryConf is a configuration of ordinary size.
func ordinaryConf(vmid int) string {
	return fmt.Sprintf(`#A guest of the benchmark.
agent: 1
boot: order=scsi0;ide2;net0
cores: 4
cpu: x86-64-v2-AES
ide2: none,media=cdrom
memory: 8192
meta: creation-qemu=9.0.2,ctime=1720000000
name: guest-%d
net0: virtio=BC:24:11:%02X:%02X:01,bridge=vmbr0,firewall=1
numa: 0
onboot: 1
ostype: l26
scsi0: local-lvm:vm-%d-disk-0,iothread=1,size=32G
scsihw: virtio-scsi-single
smbios1: uuid=00000000-0000-4000-8000-%012d
sockets: 1
tags: production;web
vmgenid: 11111111-0000-4000-8000-%012d

[before-upgrade]
memory: 4096
name: guest-%d
`, vmid, vmid>>8&255, vmid&255, vmid, vmid, vmid, vmid)
}

func benchSite(t testing.TB, guests int) *site {
	s := newSite(t)
	for i := range guests {
		s.write(t, confOf(uint32(100+i)), ordinaryConf(100+i))
	}
	return s
}

// BenchmarkProperties measures the making of the answer alone, over 1,000 guests.
func BenchmarkProperties(b *testing.B) {
	s := benchSite(b, 1000)
	props := []string{"name", "tags", "memory"}
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d/new", n), func(b *testing.B) {
			for b.Loop() {
				var c propCache
				c.all(s.tree, props[:n])
			}
		})
		b.Run(fmt.Sprintf("%d/one-changed", n), func(b *testing.B) {
			var c propCache
			for b.Loop() {
				s.write(b, confOf(500), ordinaryConf(500))
				c.all(s.tree, props[:n])
			}
		})
		b.Run(fmt.Sprintf("%d/ready", n), func(b *testing.B) {
			var c propCache
			c.all(s.tree, props[:n])
			for b.Loop() {
				c.all(s.tree, props[:n])
			}
		})
	}
}

func BenchmarkGuests1000(b *testing.B) {
	s := benchSite(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if len(appendGuests(nil, s.tree)) != 1000 {
			b.Fatal("guests are missing")
		}
	}
}

// BenchmarkServe measures the making of answers, without libqb.
func BenchmarkServe(b *testing.B) {
	s := benchSite(b, 1000)
	s.write(b, "storage.cfg", "dir: local")
	s.set(b, "k", "v")
	c := s.direct(b, Full)
	for _, r := range []struct {
		name string
		op   int32
		data []byte
	}{
		{"version", OpVersion, nil},
		{"guest-list", OpGuestList, nil},
		{"get-status", OpGetStatus, cat(name256("k"), name256(""))},
		{"set-status", OpSetStatus, cat(name256("k"), "v")},
		{"get-config", OpGetConfig, cat("storage.cfg", 0)},
		{"property", OpGuestProperty, cat(u(500), "name", 0)},
		{"property-of-all", OpGuestProperty, cat(u(0), "name", 0)},
	} {
		b.Run(r.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, errno := c.Serve(r.op, r.data); errno != 0 {
					b.Fatal(errno)
				}
			}
		})
	}
}

func TestPropertiesOfAThousandGuests(t *testing.T) {
	s := benchSite(t, 1000)
	out, errno := s.direct(t, ReadOnly).Serve(OpGuestProperties, cat(u(0), 3, "name", 0, "tags", 0, "memory", 0))
	if errno != 0 {
		t.Fatal(errno)
	}
	var got map[string]map[string]string
	if err := json.Unmarshal(out, &got); err != nil || len(got) != 1000 {
		t.Fatalf("%d guests, %v", len(got), err)
	}
	for i := range 1000 {
		id := fmt.Sprint(100 + i)
		want := map[string]string{"name": "guest-" + id, "tags": "production;web", "memory": "8192"}
		if fmt.Sprint(got[id]) != fmt.Sprint(want) {
			t.Fatalf("guest %s: %v", id, got[id])
		}
	}
}
