package ipc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
)

// guestConf is a configuration of ordinary size.
func guestConf(vmid int) []byte {
	return fmt.Appendf(nil, `#A guest of the benchmark.
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

func benchFakes(guests int) *fakes {
	f := newFakes()
	f.version = bytes.Repeat([]byte("v"), 2000)
	f.vmlist = bytes.Repeat([]byte("l"), 60*guests)
	f.files["small"] = bytes.Repeat([]byte("c"), 1024)
	f.files["large"] = bytes.Repeat([]byte("c"), 1<<20-24)
	f.values[[2]string{"", "k"}] = bytes.Repeat([]byte("s"), 512)
	for i := range guests {
		f.guests[uint32(100+i)] = guestConf(100 + i)
	}
	return f
}

// BenchmarkProperties measures the making of the answer alone, over 1,000 guests.
func BenchmarkProperties(b *testing.B) {
	f := benchFakes(1000)
	props := []string{"name", "tags", "memory"}
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d/new", n), func(b *testing.B) {
			for b.Loop() {
				var c propCache
				c.all(f, props[:n])
			}
		})
		b.Run(fmt.Sprintf("%d/one-changed", n), func(b *testing.B) {
			var c propCache
			for b.Loop() {
				f.setGuest(500, guestConf(500))
				c.all(f, props[:n])
			}
		})
		b.Run(fmt.Sprintf("%d/ready", n), func(b *testing.B) {
			var c propCache
			c.all(f, props[:n])
			for b.Loop() {
				c.all(f, props[:n])
			}
		})
	}
}

func TestPropertiesOfAThousandGuests(t *testing.T) {
	f := benchFakes(1000)
	out, errno := f.direct(t, ReadOnly).Serve(OpGuestProperties, cat(u(0), 3, "name", 0, "tags", 0, "memory", 0))
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
