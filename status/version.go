package status

import (
	"pmxcfs/internal/jsontext"
	"slices"
	"strconv"
	"strings"
)

// versionText is a rendered .version and what it shows.
type versionText struct {
	text    []byte
	changes uint64
	guests  uint32
}

// Version returns the content of .version: JSON with one counter for everything
// that clients watch, and the versions of all nodes' values. It is made to be
// polled: without a change it costs nanoseconds. The result is shared: it must
// not be written to.
func (s *Store) Version() []byte {
	changes, guests := s.changes.Load(), s.tree.GuestsVersion()
	have := s.version.Load()
	if have != nil && have.changes == changes && have.guests == guests {
		return have.text
	}
	size := 2048
	if have != nil {
		size = len(have.text) + 64
	}
	clinfo, nodes := s.kvLines()
	b := make([]byte, 0, size)
	b = append(b, "{\n\"starttime\": "...)
	b = strconv.AppendInt(b, s.start, 10)
	b = append(b, ",\n\"clinfo\": "...)
	b = strconv.AppendUint(b, uint64(clinfo), 10)
	b = append(b, ",\n\"vmlist\": "...)
	b = strconv.AppendUint(b, uint64(guests), 10)
	for i, path := range watchedPaths {
		b = append(b, ",\n\""...)
		b = append(b, path...)
		b = append(b, "\": "...)
		b = strconv.AppendUint(b, uint64(s.versions[i].Load()), 10)
	}
	b = append(b, ",\n\"kvstore\": {\n"...)
	for i, line := range nodes {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = append(b, line...)
	}
	b = append(b, "\n}\n}\n"...)
	s.version.Store(&versionText{text: b, changes: changes, guests: guests})
	return b
}

// kvLines returns the cluster info's version and, for each node, its part of
// .version's kvstore: this node first, then the others that have set something,
// by name.
func (s *Store) kvLines() (clinfo uint32, lines [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	others := make([]*node, 0, len(s.nodes))
	for name, n := range s.nodes {
		if n != s.self && n.values.used && name != s.self.name {
			others = append(others, n)
		}
	}
	slices.SortFunc(others, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	lines = append(make([][]byte, 0, len(others)+1), s.self.versions())
	for _, n := range others {
		lines = append(lines, n.versions())
	}
	return s.clinfo, lines
}

// versions returns the node's part of .version's kvstore, which is kept until a
// value is set.
func (n *node) versions() []byte {
	if n.rendered != nil {
		return n.rendered
	}
	b := jsontext.AppendString(nil, n.name)
	b = append(b, ": {"...)
	for i, key := range n.values.keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '\n')
		b = jsontext.AppendString(b, key)
		b = append(b, ": "...)
		b = strconv.AppendUint(b, uint64(n.values.byKey[key].version), 10)
	}
	n.rendered = append(b, '}')
	return n.rendered
}
