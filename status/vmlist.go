package status

import (
	"strconv"
	"sync"

	"pmxcfs/internal/jsontext"
	"pmxcfs/memdb"
)

// vmlist keeps the VM list rendered. Only its readers take its lock, and hold it
// while one of them renders for all.
type vmlist struct {
	mu      sync.Mutex // guards all below
	text    []byte
	version uint32
}

// VMList returns the content of .vmlist. The result is shared: it must not be
// written to.
func (s *Store) VMList() []byte {
	l := &s.vmlist
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text == nil || s.tree.GuestsVersion() != l.version {
		guests, version := s.tree.Guests()
		l.text, l.version = renderGuests(guests, version), version
	}
	return l.text
}

func renderGuests(guests []memdb.Guest, version uint32) []byte {
	b := make([]byte, 0, 64+64*len(guests))
	b = append(b, "{\n\"version\": "...)
	b = strconv.AppendUint(b, uint64(version), 10)
	for i, g := range guests {
		if i == 0 {
			b = append(b, ",\n\"ids\": {\n"...)
		} else {
			b = append(b, ",\n"...)
		}
		b = append(b, '"')
		b = strconv.AppendUint(b, uint64(g.VMID), 10)
		b = append(b, "\": { \"node\": "...)
		b = jsontext.AppendString(b, g.Node)
		b = append(b, ", \"type\": "...)
		b = jsontext.AppendString(b, g.Type.String())
		b = append(b, ", \"version\": "...)
		b = strconv.AppendUint(b, uint64(g.Version), 10)
		b = append(b, " }"...)
	}
	if len(guests) > 0 {
		b = append(b, "}\n"...)
	}
	return append(b, "\n}\n"...)
}
