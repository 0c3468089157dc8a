package dcdb

import (
	"bytes"
	"reflect"
	"testing"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
	"pmxcfs/memdb"
)

// The seeds of all fuzzers are recorded messages.

func FuzzDecodeOp(f *testing.F) {
	for _, m := range messages(f, wire.Normal) {
		if len(m.Payload) < 1000 {
			f.Add(m.Subtype, m.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, subtype uint16, b []byte) {
		if path, digest, err := decodeUnlock(b); err == nil {
			again, d, err := decodeUnlock(encodeUnlock(path, digest))
			if err != nil || again != path || d != digest {
				t.Errorf("unlock %q %x becomes %q %x, %v", path, digest, again, d, err)
			}
		}
		if subtype < 1 || subtype > 6 {
			return
		}
		op, err := decodeOp(memdb.Kind(subtype), b)
		if err != nil {
			return
		}
		again, err := decodeOp(op.Kind, encodeOp(op))
		if err != nil {
			t.Fatal(err)
		}
		if len(op.Data) == 0 && len(again.Data) == 0 {
			op.Data, again.Data = nil, nil
		}
		if !reflect.DeepEqual(op, again) {
			t.Errorf("%+v becomes %+v", op, again)
		}
	})
}

func FuzzDecodeUpdate(f *testing.F) {
	for _, m := range messages(f, wire.Update) {
		if len(m.Payload) < 1000 {
			f.Add(m.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeUpdate(b)
		if err != nil {
			return
		}
		again, err := decodeUpdate(appendUpdate(nil, e))
		if err != nil || again.Digest() != e.Digest() || again.Type != e.Type {
			t.Errorf("%+v becomes %+v, %v", e, again, err)
		}
	})
}

// FuzzApply has a node apply any message: it may leave, but its file holds its
// tree.
func FuzzApply(f *testing.F) {
	for _, m := range messages(f, wire.Normal) {
		if len(m.Payload) < 1000 {
			f.Add(m.Subtype, m.Payload, []byte{})
		}
	}
	op := memdb.Op{Kind: memdb.OpRename, Path: "d/f", To: "d/g"}
	f.Add(uint16(4), encodeOp(&op), encodeOp(&op))
	f.Fuzz(func(t *testing.T, subtype uint16, a, b []byte) {
		node, file := emptyApp()
		dirs(t, node, "d", "e", "nodes", "nodes/n", "nodes/n/lxc", "priv", "priv/lock", "priv/lock/l")
		apply(t, node, opFrom(2, create("d/f")))
		node.ViewChanged([]dfsm.Member{{Node: 1, PID: 1}})
		batch := []dfsm.Message{from(2, subtype, a), from(1, subtype>>8, b)}
		if r := node.Apply(batch); r.Err == nil && r.Done != len(batch) || r.Done > len(batch) {
			t.Errorf("Apply: %+v", r)
		}
		if file.tree(t).Checksum() != node.tree.Checksum() {
			t.Error("the file does not hold the tree")
		}
	})
}

// FuzzSync has a member send any state and any update.
func FuzzSync(f *testing.F) {
	updates := messages(f, wire.Update)
	for i, m := range messages(f, wire.State)[:6] {
		f.Add(m.Payload, updates[i].Payload)
	}
	f.Fuzz(func(t *testing.T, state, update []byte) {
		node, file := emptyApp()
		dirs(t, node, "d", "e")
		own, err := node.State()
		if err != nil {
			t.Fatal(err)
		}
		s, err := node.ProcessStates([]dfsm.MemberState{
			{Member: dfsm.Member{Node: 1, PID: 1}, Self: true, State: own},
			{Member: dfsm.Member{Node: corosync.NodeID(2), PID: 1}, State: state},
		})
		if err != nil {
			return
		}
		if s.Leader {
			for p, ok := s.Updates.Next(); ok; p, ok = s.Updates.Next() {
				if _, err := decodeUpdate(p); err != nil {
					t.Fatal(err)
				}
			}
			return
		}
		if s.Synced[0] {
			return
		}
		if node.ApplyUpdates([][]byte{update}) == nil && node.Commit() == nil && !bytes.Equal(node.tree.Index(), state) {
			t.Error("committed another tree than the leader's")
		}
		if file.tree(t).Checksum() != node.tree.Checksum() {
			t.Error("the file does not hold the tree")
		}
	})
}
