package memdb

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// wantGuests compares the VM list with guests, versions included.
func wantGuests(t *testing.T, tr *Tree, version uint32, guests ...Guest) {
	t.Helper()
	got, v := tr.Guests()
	if v != version || !slices.Equal(got, guests) || tr.GuestsVersion() != v {
		t.Errorf("the VM list is %v at version %d, want %v at %d", got, v, guests, version)
	}
	for _, g := range guests {
		if one, ok := tr.Guest(g.VMID); !ok || one != g {
			t.Errorf("guest %d is %v (%v)", g.VMID, one, ok)
		}
	}
}

// cluster is two nodes without guests.
var cluster = []string{
	"nodes/", "nodes/a/", "nodes/a/qemu-server/", "nodes/a/lxc/", "nodes/a/openvz/",
	"nodes/b/", "nodes/b/qemu-server/", "nodes/b/lxc/",
}

func TestCreateAndEachWriteRegisterAGuest(t *testing.T) {
	tr := plant(t, cluster...)
	wantGuests(t, tr, 0)
	do(t, tr, opCreate("nodes/a/qemu-server/100.conf"))
	wantGuests(t, tr, 1, Guest{100, "a", GuestQemu, 1})
	do(t, tr, opWrite("nodes/a/qemu-server/100.conf", 0, "x"))
	wantGuests(t, tr, 2, Guest{100, "a", GuestQemu, 2})
	do(t, tr, opCreate("nodes/b/lxc/99.conf"), opCreate("nodes/a/openvz/101.conf"))
	wantGuests(t, tr, 4, Guest{99, "b", GuestLXC, 3}, Guest{100, "a", GuestQemu, 2}, Guest{101, "a", GuestOpenVZ, 4})
	do(t, tr, opTruncate("nodes/a/qemu-server/100.conf", 0))
	wantGuests(t, tr, 5, Guest{99, "b", GuestLXC, 3}, Guest{100, "a", GuestQemu, 5}, Guest{101, "a", GuestOpenVZ, 4})
}

func TestOtherChangesRegisterNoGuest(t *testing.T) {
	tr := plant(t, append(cluster, "nodes/a/lxc/100.conf", "x")...)
	before := tr.GuestsVersion()
	do(t, tr, opMTime("nodes/a/lxc/100.conf", 5), opMkdir("nodes/a/lxc/200.conf"), opCreate("nodes/a/lxc/0.conf"),
		opCreate("nodes/a/lxc/300.conf.tmp"), opDelete("x"), opRename("nodes/b/lxc", "nodes/b/lxd"))
	if v := tr.GuestsVersion(); v != before {
		t.Errorf("the VM list went from version %d to %d", before, v)
	}
	wantGuests(t, tr, before, Guest{100, "a", GuestLXC, 1})
}

func TestDeleteRemovesTheGuest(t *testing.T) {
	tr := plant(t, append(cluster, "nodes/a/qemu-server/100.conf")...)
	do(t, tr, opDelete("nodes/a/qemu-server/100.conf"))
	wantGuests(t, tr, 2)
	if g, ok := tr.Guest(100); ok {
		t.Errorf("guest 100 is still %v", g)
	}
	do(t, tr, opCreate("nodes/b/lxc/100.conf")) // free for others
	wantGuests(t, tr, 3, Guest{100, "b", GuestLXC, 2})
}

func TestDeleteOfADirectoryCalledLikeAGuestRemovesTheGuest(t *testing.T) {
	// The protocol's rule goes by the path alone, whatever is there.
	tr := plant(t, append(cluster, "nodes/a/qemu-server/100.conf", "nodes/b/lxc/100.conf/")...)
	do(t, tr, opDelete("nodes/b/lxc/100.conf"))
	wantGuests(t, tr, 2)
}

func TestRenameMovesAGuestBetweenNodesAndTypes(t *testing.T) {
	tr := plant(t, append(cluster, "nodes/a/qemu-server/100.conf=x")...)
	inode, _ := tr.Lookup("nodes/a/qemu-server/100.conf")
	do(t, tr, opRename("nodes/a/qemu-server/100.conf", "nodes/b/qemu-server/100.conf"))
	wantGuests(t, tr, 4, Guest{100, "b", GuestQemu, 3}) // write, remove, register
	do(t, tr, opRename("nodes/b/qemu-server/100.conf", "nodes/b/lxc/100.conf"))
	wantGuests(t, tr, 6, Guest{100, "b", GuestLXC, 4})
	if e, ok := tr.Lookup("nodes/b/lxc/100.conf"); !ok || e.Inode != inode.Inode {
		t.Errorf("the configuration is %+v", e.Entry)
	}
	do(t, tr, opCreate("nodes/a/lxc/101.conf"))
	op := opCreate("nodes/a/qemu-server/100.conf")
	if _, err := tr.Apply(&op); err == nil {
		t.Error("the guest's old place can be taken")
	}
}

func TestRenameChangesAVMID(t *testing.T) {
	tr := plant(t, append(cluster, "nodes/a/lxc/100.conf")...)
	do(t, tr, opRename("nodes/a/lxc/100.conf", "nodes/a/lxc/101.conf"))
	wantGuests(t, tr, 3, Guest{101, "a", GuestLXC, 2})
}

func TestRenameInAndOutOfTheVMList(t *testing.T) {
	tr := plant(t, append(cluster, "draft", "dir/")...)
	do(t, tr, opRename("draft", "nodes/a/lxc/100.conf"))
	wantGuests(t, tr, 1, Guest{100, "a", GuestLXC, 1})
	do(t, tr, opRename("nodes/a/lxc/100.conf", "nodes/a/lxc/100.conf.old"))
	wantGuests(t, tr, 2)
	do(t, tr, opRename("dir", "nodes/a/lxc/100.conf"))
	wantGuests(t, tr, 2) // a directory is no guest
}

func TestRenameOntoAGuestReplacesIt(t *testing.T) {
	tr := plant(t, append(cluster, "nodes/a/lxc/100.conf", "nodes/a/lxc/100.conf.new=x")...)
	do(t, tr, opRename("nodes/a/lxc/100.conf.new", "nodes/a/lxc/100.conf"))
	wantGuests(t, tr, 3, Guest{100, "a", GuestLXC, 2}) // removed, registered
	// Another VMID's configuration onto one that the same node and type has.
	do(t, tr, opCreate("nodes/a/lxc/200.conf"), opRename("nodes/a/lxc/200.conf", "nodes/a/lxc/100.conf"))
	wantGuests(t, tr, 7, Guest{100, "a", GuestLXC, 4})
}

func TestRefusedOperationsLeaveTheVMListAlone(t *testing.T) {
	tr := plant(t, append(cluster, "nodes/a/lxc/100.conf")...)
	for _, op := range []Op{
		opCreate("nodes/b/lxc/100.conf"), opWrite("nodes/a/lxc/101.conf", 0, "x"),
		opRename("nodes/a/lxc/100.conf", "absent/x"), opDelete("nodes/b/lxc/100.conf"),
	} {
		if _, err := tr.Apply(&op); err == nil {
			t.Errorf("%v %s succeeds", op.Kind, op.Path)
		}
	}
	wantGuests(t, tr, 1, Guest{100, "a", GuestLXC, 1})
}

func TestAnEmptyVMListIsNotNewAfterARebuild(t *testing.T) {
	tr := plant(t, "x")
	tr.Replace(plant(t, "y"))
	wantGuests(t, tr, 0)
	tr.Replace(plant(t, append(cluster, "nodes/a/lxc/100.conf")...))
	wantGuests(t, tr, 1, Guest{100, "a", GuestLXC, 1})
	tr.Replace(plant(t, "y"))
	wantGuests(t, tr, 2)
	tr.Replace(plant(t, append(cluster, "nodes/a/lxc/100.conf")...))
	wantGuests(t, tr, 3, Guest{100, "a", GuestLXC, 2})
}

func TestParseGuest(t *testing.T) {
	good := map[string]Guest{
		"nodes/a/qemu-server/100.conf":    {VMID: 100, Node: "a", Type: GuestQemu},
		"nodes/pve-1/lxc/1.conf":          {VMID: 1, Node: "pve-1", Type: GuestLXC},
		"nodes/A1/openvz/4294967295.conf": {VMID: math.MaxUint32, Node: "A1", Type: GuestOpenVZ},
		"nodes/1/lxc/999999999.conf":      {VMID: 999999999, Node: "1", Type: GuestLXC},
		"nodes/a--b/qemu-server/10.conf":  {VMID: 10, Node: "a--b", Type: GuestQemu},
	}
	for path, want := range good {
		if g, ok := ParseGuest(path); !ok || g != want || g.Path() != path {
			t.Errorf("%s: %v, %v", path, g, ok)
		}
	}
	for _, path := range []string{
		"", "nodes", "nodes/", "nodes/a", "nodes/a/lxc", "nodes/a/lxc/", "nodes/a/lxc/.conf",
		"/nodes/a/lxc/100.conf", "nodes//lxc/100.conf", "nodes/a/lxc/100.conf/", "nodes/a/lxc/x/100.conf",
		"nodes/a/lxc/100.conf/x.conf", "nodes/a/lxc/100", "nodes/a/lxc/100.conf.tmp", "nodes/a/lxc/100.CONF",
		"nodes/a/lxc/0.conf", "nodes/a/lxc/0100.conf", "nodes/a/lxc/+100.conf", "nodes/a/lxc/-100.conf",
		"nodes/a/lxc/1_0.conf", "nodes/a/lxc/0x10.conf", "nodes/a/lxc/10a.conf", "nodes/a/lxc/ 10.conf",
		"nodes/a/lxc/4294967296.conf", "nodes/a/lxc/18446744073709551617.conf", "nodes/a/lxc/٣.conf",
		"nodes/a/qemu/100.conf", "nodes/a/LXC/100.conf", "nodes/a/priv/100.conf",
		"nodes/-a/lxc/100.conf", "nodes/a-/lxc/100.conf", "nodes/a.b/lxc/100.conf", "nodes/a_b/lxc/100.conf",
		"nodes/ä/lxc/100.conf", "nodes/a b/lxc/100.conf", "node/a/lxc/100.conf", "nodes/a/b/lxc/100.conf",
	} {
		if g, ok := ParseGuest(path); ok {
			t.Errorf("%q is taken for %v", path, g)
		}
	}
	if s := GuestType(9).String(); s != "unknown" {
		t.Errorf("a type that there is not is called %q", s)
	}
}

// guestPattern is the specification's definition, written down once more.
var guestPattern = regexp.MustCompile(`^nodes/([A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)/(qemu-server|lxc|openvz)/([1-9][0-9]*)\.conf$`)

func FuzzParseGuest(f *testing.F) {
	for _, path := range []string{"", "nodes/a/lxc/100.conf", "nodes/a-b/qemu-server/4294967296.conf", "nodes/-/openvz/1.conf",
		"nodes/a/lxc/1/2.conf", "nodes/a/lxc/100.conf\n", "priv/lock/x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		g, ok := ParseGuest(path)
		m := guestPattern.FindStringSubmatch(path)
		if m != nil {
			if id, err := strconv.ParseUint(m[3], 10, 64); err != nil || id > math.MaxUint32 {
				m = nil
			}
		}
		switch {
		case ok != (m != nil):
			t.Fatalf("%q: guest %v, by the pattern %v", path, ok, m != nil)
		case ok && (g.Path() != path || g.Node != m[1] || g.Type.Dir() != m[2]):
			t.Fatalf("%q is taken for %+v", path, g)
		}
	})
}
