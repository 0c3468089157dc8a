package ipc

import "pmxcfs/memdb"

// guest is a guest's configuration.
type guest struct {
	vmid uint32
	conf []byte // the tree's: the same slice until it changes
}

// readFile returns the content of the regular file at a clean path.
func readFile(tree *memdb.Tree, path string) ([]byte, bool) {
	e, ok := tree.Lookup(path)
	if !ok || e.IsDir() {
		return nil, false
	}
	return e.Data(), true
}

// appendGuests appends all guests, ascending by VMID.
func appendGuests(guests []guest, tree *memdb.Tree) []guest {
	for g, e := range tree.GuestFiles {
		if e != nil {
			guests = append(guests, guest{g.VMID, e.Data()})
		} else if conf, ok := guestConf(tree, g); ok {
			guests = append(guests, guest{g.VMID, conf})
		}
	}
	return guests
}

// findGuest returns one guest.
func findGuest(tree *memdb.Tree, vmid uint32) (guest, bool) {
	g, ok := tree.Guest(vmid)
	if !ok {
		return guest{}, false
	}
	conf, ok := guestConf(tree, g)
	return guest{vmid, conf}, ok
}

// guestConf returns the configuration of a guest that was in the VM list a moment ago.
// If the guest has moved to another node since, it is looked for there, a few times: a guest
// that exists all the time must not be missing from an answer.
func guestConf(tree *memdb.Tree, g memdb.Guest) ([]byte, bool) {
	for range 8 {
		if conf, ok := readFile(tree, g.Path()); ok {
			return conf, true
		}
		var ok bool
		if g, ok = tree.Guest(g.VMID); !ok {
			break
		}
	}
	return nil, false
}
