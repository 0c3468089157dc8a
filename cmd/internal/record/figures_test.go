package record

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/memdb/history"
)

// A tree of 10,000 guests, and a week in which HA's manager writes its state every ten
// seconds. The times are of a machine that does other things, too; what they must stay below
// are several times the goals of 50 ms and 2 s.
func TestAWeekOfHAOnALargeClusterStaysSmallAndFast(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	tree := memdb.New()
	apply := func(op memdb.Op) memdb.Step {
		op.Writer, op.MTime = 1, uint32(now.Unix())
		res, err := tree.Apply(&op)
		if err != nil {
			t.Fatal(err)
		}
		return memdb.StepOf(&op, res.Changes)
	}
	guest := func(i, cores int) string {
		return fmt.Sprintf("boot: order=scsi0;net0\ncores: %d\nmemory: %d\nname: guest-%d\nnet0: virtio=BC:24:11:%02X:%02X:%02X,bridge=vmbr0,firewall=1\nnuma: 0\nostype: l26\nscsi0: ceph:vm-%d-disk-0,discard=on,iothread=1,size=%dG\nscsihw: virtio-scsi-single\nsmbios1: uuid=%08x-1f0c-4f2c-9f2e-%012x\nsockets: 1\nvmgenid: %08x-8a7c-4d07-b5de-%012x\n",
			cores, 1024*(1+i%16), i, i>>16, i>>8&255, i&255, i, 16+i%100, i*2654435761, i*40503, i*97, i*31337)
	}
	apply(memdb.Op{Kind: memdb.OpMkdir, Path: "ha"})
	apply(memdb.Op{Kind: memdb.OpMkdir, Path: "nodes"})
	for n := range 20 {
		apply(memdb.Op{Kind: memdb.OpMkdir, Path: fmt.Sprintf("nodes/n%d", n)})
		apply(memdb.Op{Kind: memdb.OpMkdir, Path: fmt.Sprintf("nodes/n%d/qemu-server", n)})
	}
	path := func(i int) string { return fmt.Sprintf("nodes/n%d/qemu-server/%d.conf", i%20, 100+i) }
	for i := range 10_000 {
		apply(memdb.Op{Kind: memdb.OpCreate, Path: path(i)})
		apply(memdb.Op{Kind: memdb.OpWrite, Path: path(i), Data: []byte(guest(i, 2)), Truncate: true})
	}
	file := filepath.Join(t.TempDir(), history.FileName)
	r := history.Start(history.Config{Path: file, Tree: tree, Clock: func() time.Time { return now }, Delay: time.Hour, Size: 64 << 20, Age: 90 * 24 * time.Hour})
	closed := false
	defer func() {
		if !closed {
			r.Close()
		}
	}()
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin := r.Status()
	const rewrites = 60_000
	var steps []memdb.Step
	for i := range rewrites {
		now = now.Add(10 * time.Second)
		status := fmt.Sprintf(`{"manager_node":"n1","master_node":"n1","node_status":{"n1":"online","n2":"online","n3":"online"},"service_status":{"vm:100":{"node":"n1","state":"started","uid":"abc%d"}},"timestamp":%d}`, i/1000, now.Unix())
		tmp := fmt.Sprintf("ha/manager_status.tmp.%d", 4711)
		steps = append(steps, apply(memdb.Op{Kind: memdb.OpCreate, Path: tmp}),
			apply(memdb.Op{Kind: memdb.OpWrite, Path: tmp, Data: []byte(status), Truncate: true}),
			apply(memdb.Op{Kind: memdb.OpRename, Path: tmp, To: "ha/manager_status"}))
		if i%60 == 0 { // somebody works, too
			steps = append(steps, apply(memdb.Op{Kind: memdb.OpWrite, Path: path(i / 60), Data: []byte(guest(i/60, 4)), Truncate: true}))
		}
		r.Stored(steps)
		steps = steps[:0:0]
		if i%2000 == 0 { // the clock is set forward faster than anybody could store
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := r.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	end := r.Status()
	if end.Gaps > 0 {
		t.Errorf("%d gaps", end.Gaps)
	}
	r.Close()
	closed = true
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	measure := func(f func(*history.Reader) error) time.Duration {
		t.Helper()
		best := time.Hour
		for range 3 {
			begin := time.Now()
			h, err := history.Open(file)
			if err == nil {
				err = f(h)
			}
			if err != nil {
				t.Fatal(err)
			}
			h.Close()
			best = min(best, time.Since(begin))
		}
		return best
	}
	list := func(path string) (took time.Duration, n int) {
		took = measure(func(h *history.Reader) error {
			n = 0
			return h.List(history.Query{Path: path}, func(history.Change) bool { n++; return true })
		})
		return took, n
	}
	busy, states := list("ha/manager_status")
	quiet, _ := list(path(500))
	made := measure(func(h *history.Reader) error {
		p, err := h.AtTime(now.Add(-3 * 24 * time.Hour))
		if err != nil {
			return err
		}
		tree, err := Tree(h, p)
		if err == nil && tree.Stats(now).Entries < 10_000 {
			err = fmt.Errorf("only %d entries", tree.Stats(now).Entries)
		}
		return err
	})
	t.Logf("file %d KiB (%d KiB before the week), %d changes (%d before); of %d rewrites %d states are left, listed in %v; a guest's in %v; a whole tree in %v",
		st.Size()>>10, begin.Bytes>>10, end.Changes, begin.Changes, rewrites, states, busy, quiet, made)
	if st.Size() > 64<<20 || busy > 250*time.Millisecond || quiet > 250*time.Millisecond || made > 10*time.Second {
		t.Error("too large or too slow")
	}
}
