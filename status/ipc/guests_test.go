package ipc

import (
	"encoding/json"
	"reflect"
	"testing"

	"pmxcfs/memdb"
)

func TestGuestsProperties(t *testing.T) {
	s := newSite(t)
	c := s.direct(t, ReadOnly)
	s.write(t, confOf(100), "name: web\ncores: 4\n[snap]\nname: old\n")
	s.write(t, "nodes/two/lxc/101.conf", "hostname: db\nlock: backup\n")
	s.write(t, "nodes/two/lxc/102.conf", "")
	type answer = map[string]map[string]string
	expect := func(op int32, data []byte, want answer) {
		t.Helper()
		out, errno := c.Serve(op, data)
		var got answer
		if err := json.Unmarshal(out, &got); err != nil || errno != 0 {
			t.Fatalf("%v, %v in %q", errno, err, out)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	all := func(prop string) []byte { return cat(u(0), prop, 0) }
	expect(OpGuestProperty, all("lock"), answer{"101": {"lock": "backup"}})
	expect(OpGuestProperties, cat(u(0), 2, "name", 0, "hostname", 0), answer{"100": {"name": "web"}, "101": {"hostname": "db"}})
	expect(OpGuestProperty, cat(u(100), "cores", 0), answer{"100": {"cores": "4"}})
	// A guest that moves keeps its properties, and has them once.
	s.apply(t, memdb.Op{Kind: memdb.OpRename, Path: confOf(100), To: "nodes/two/qemu-server/100.conf"})
	expect(OpGuestProperty, all("name"), answer{"100": {"name": "web"}})
	s.remove(t, "nodes/two/qemu-server/100.conf")
	expect(OpGuestProperty, all("name"), answer{})
}

func TestAGuestThatMovesWhileAllAreReadIsNotMissing(t *testing.T) {
	s := newSite(t)
	s.write(t, confOf(100), "name: web\n")
	list, _ := s.tree.Guests()
	s.apply(t, memdb.Op{Kind: memdb.OpRename, Path: confOf(100), To: "nodes/two/qemu-server/100.conf"})
	if conf, ok := guestConf(s.tree, list[0]); !ok || string(conf) != "name: web\n" {
		t.Errorf("moved: %q, %v", conf, ok)
	}
	s.remove(t, "nodes/two/qemu-server/100.conf")
	if conf, ok := guestConf(s.tree, list[0]); ok {
		t.Errorf("deleted: %q", conf)
	}
}

func TestAGuestsConfigurationIsTheSameSliceUntilItChanges(t *testing.T) {
	s := newSite(t)
	s.write(t, confOf(100), "a: 1\n")
	first, _ := findGuest(s.tree, 100)
	if again := appendGuests(nil, s.tree)[0]; &again.conf[0] != &first.conf[0] {
		t.Error("another slice without a change")
	}
	s.write(t, confOf(100), "a: 2\n")
	if string(first.conf) != "a: 1\n" {
		t.Errorf("what was given away has become %q", first.conf)
	}
}
