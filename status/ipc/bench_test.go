package ipc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/corosync/qb/qbtest"
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

// A placement says where clients and servers run. A round trip is two wake-ups, and those
// cost several times as much between CPUs as on one: left to the scheduler, a single
// client's rate is the one or the other by chance.
type placement struct {
	name             string
	clients          int
	server, clientOn uint64 // masks of CPUs; 0: all
}

func placements() []placement {
	const first, second = 1, 2
	return []placement{
		{"clients=1/on=sameCPU", 1, first, first},
		{"clients=1/on=otherCPU", 1, first, second},
		{"clients=8/on=any", 8, 0, 0},
	}
}

// pin lets all threads of this process run on the CPUs of the mask only.
func pin(b *testing.B, mask uint64) {
	b.Helper()
	var set unix.CPUSet
	for i := range min(runtime.NumCPU(), 64) {
		if mask == 0 || mask>>i&1 == 1 {
			set.Set(i)
		}
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		b.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			b.Fatal(err)
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			b.Fatal(err)
		}
	}
}

// BenchmarkRequests measures requests per second of client processes in C and, in turns with
// it, those that a bare libqb server in C answers with messages of the same lengths: medians
// of the turns. ns/op is the service's alone.
func BenchmarkRequests(b *testing.B) {
	f := benchFakes(1000)
	plain := start(b, f)
	cfg := f.config()
	cfg.Name, cfg.Status = qbtest.Name(), &tryFakes{fakes: f}
	startWith(b, cfg)
	direct := f.direct(b, Full)
	peer := qbtest.Build(b)
	for _, r := range []struct {
		name string
		op   int32
		data []byte
	}{
		{"1version", OpVersion, nil},
		{"3vmlist", OpGuestList, nil},
		{"4setstatus", OpSetStatus, cat(name256("k"), bytes.Repeat([]byte("s"), 512))},
		{"4trysetstatus", OpSetStatus, cat(name256("k"), bytes.Repeat([]byte("s"), 512))},
		{"5getstatus", OpGetStatus, cat(name256("k"), name256(""))},
		{"6config1K", OpGetConfig, cat("small", 0)},
		{"6config1M", OpGetConfig, cat("large", 0)},
		{"11property", OpGuestProperty, cat(u(0), "name", 0)},
		{"13properties", OpGuestProperties, cat(u(0), 3, "name", 0, "tags", 0, "memory", 0)},
	} {
		name := plain
		if r.name == "4trysetstatus" {
			name = cfg.Name
		}
		out, errno := direct.Serve(r.op, r.data)
		if errno != 0 {
			b.Fatal(errno)
		}
		// The echo server's request carries the length of its answer, and is
		// as long as the service's but for that.
		echoed := cat(uint32(len(out)), bytes.Repeat([]byte{0}, max(0, len(r.data)-4)))
		for _, at := range placements() {
			b.Run(fmt.Sprintf("op=%s/%s", r.name, at.name), func(b *testing.B) {
				echo := qbtest.Name()
				peer.CPUs = at.server
				peer.Echo(b, echo)
				pin(b, at.server)
				defer pin(b, 0)
				peer.CPUs = at.clientOn
				const turns = 9
				each := max(1, b.N/at.clients/turns)
				rate := func(took time.Duration) float64 { return float64(each*at.clients) / took.Seconds() }
				var ours, theirs []float64
				for range turns {
					ours = append(ours, rate(peer.Bench(b, name, at.clients, each, r.op, r.data)))
					theirs = append(theirs, rate(peer.Bench(b, echo, at.clients, each, 1, echoed)))
				}
				slices.Sort(ours)
				slices.Sort(theirs)
				mine, echos := ours[turns/2], theirs[turns/2]
				b.ReportMetric(1e9/mine, "ns/op")
				b.ReportMetric(mine, "req/s")
				b.ReportMetric(echos, "echo-req/s")
				b.ReportMetric(100*mine/echos, "%ofecho")
			})
		}
	}
}

// BenchmarkProperties measures the making of the answer alone, over 1,000 guests.
func BenchmarkProperties(b *testing.B) {
	f := benchFakes(1000)
	guests := f.Guests()
	props := []string{"name", "tags", "memory"}
	b.Run("parsed", func(b *testing.B) {
		var c propCache
		took := make([]time.Duration, 0, 1<<16)
		for b.Loop() {
			start := time.Now()
			c.all(guests, props[:1])
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	})
	b.Run("parsed3", func(b *testing.B) {
		var c propCache
		for b.Loop() {
			c.all(guests, props)
		}
	})
	b.Run("unparsed", func(b *testing.B) {
		for b.Loop() {
			var c propCache
			c.all(guests, props[:1])
		}
	})
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
