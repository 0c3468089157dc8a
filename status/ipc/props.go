package ipc

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"pmxcfs/internal/jsontext"
	"pmxcfs/memdb"
)

// A property is a line NAME: VALUE of a guest's configuration, as offsets into it.
type property struct {
	name, nameEnd, value, valueEnd uint32
}

// parseProperties finds the properties of a guest's configuration: in the lines before
// the first that begins with '[', what is before the first colon and, without the
// white space around it, what is after. A line without a value is none.
func parseProperties(conf []byte) []property {
	var props []property
	for pos := 0; pos < len(conf); {
		line := conf[pos:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
		}
		start := pos
		pos += len(line) + 1
		if len(line) == 0 {
			continue
		}
		if line[0] == '[' {
			break
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			continue
		}
		from, to := colon+1, len(line)
		for from < to && isSpace(line[from]) {
			from++
		}
		for to > from && isSpace(line[to-1]) {
			to--
		}
		if from == to {
			continue
		}
		props = append(props, property{
			name: uint32(start), nameEnd: uint32(start + colon),
			value: uint32(start + from), valueEnd: uint32(start + to),
		})
	}
	return props
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// appendGuest appends a guest's line of the answer, or nothing if it has none of the properties.
// Of several lines of one property the last one counts.
func appendGuest(dst []byte, g guest, props []string) []byte {
	found := parseProperties(g.conf)
	any := false
	for _, name := range props {
		for i := len(found) - 1; i >= 0; i-- {
			q := found[i]
			if string(g.conf[q.name:q.nameEnd]) != name {
				continue
			}
			if any {
				dst = append(dst, ',')
			} else {
				dst = append(dst, '\n', '"')
				dst = strconv.AppendUint(dst, uint64(g.vmid), 10)
				dst = append(dst, `": {`...)
				any = true
			}
			dst = jsontext.AppendString(dst, name)
			dst = append(dst, ':')
			dst = jsontext.AppendString(dst, g.conf[q.value:q.valueEnd])
			break
		}
	}
	if any {
		dst = append(dst, '}')
	}
	return dst
}

// oneGuest answers for a single guest.
func oneGuest(g guest, props []string) []byte {
	return closeObject(appendGuest([]byte{'{'}, g, props))
}

func closeObject(dst []byte) []byte { return append(dst, "\n}\n"...) }

// propCache keeps the last answers about all guests: an answer holds until the configurations
// change, and then the lines of those guests that have not changed are taken from it.
type propCache struct {
	mu      sync.Mutex // guards all below; nobody but queries for properties takes it
	answers []*propAnswer
	asked   uint64
}

// maxAnswers is for how many sets of properties the answer is kept: Proxmox's daemons ask for a
// few.
const maxAnswers = 8

// maxKept is the length in bytes from which on an answer is not kept: no client gets it.
const maxKept = 1 << 20

// propAnswer is the answer to one question.
type propAnswer struct {
	props   []string
	asked   uint64 // when, by propCache.asked
	changes uint64 // the tree's number of changes before the guests were read
	text    []byte // never written to again
	guests  []guest
	lines   []span // each guest's in text
	spare   []guest
}

type span struct{ from, to int }

// isSame reports whether two contents are the same. One array of one length has one content, as
// nobody changes it.
func isSame(a, b []byte) bool {
	return len(a) == len(b) && (unsafe.SliceData(a) == unsafe.SliceData(b) || bytes.Equal(a, b))
}

// all returns the answer for all guests there are.
func (c *propCache) all(tree *memdb.Tree, props []string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.find(props)
	if a == nil {
		a = c.add(props)
	}
	changes := tree.Changes()
	if a.text == nil || a.changes != changes {
		a.renew(appendGuests(a.spare[:0], tree))
		a.changes = changes
	}
	text := a.text
	if len(text) > maxKept {
		*a = propAnswer{props: props, asked: a.asked}
	}
	return text
}

// find returns the answer about props, or nil. The lock is held.
func (c *propCache) find(props []string) *propAnswer {
	c.asked++
	for _, a := range c.answers {
		if slices.Equal(a.props, props) {
			a.asked = c.asked
			return a
		}
	}
	return nil
}

// add makes room for an answer, in the place of the one that was asked for the longest time ago.
// The lock is held.
func (c *propCache) add(props []string) *propAnswer {
	a := &propAnswer{props: props, asked: c.asked}
	if len(c.answers) < maxAnswers {
		c.answers = append(c.answers, a)
		return a
	}
	oldest := 0
	for i, b := range c.answers {
		if b.asked < c.answers[oldest].asked {
			oldest = i
		}
	}
	c.answers[oldest] = a
	return a
}

// renew makes the answer anew from the guests, ascending by VMID.
func (a *propAnswer) renew(guests []guest) {
	text := append(make([]byte, 0, len(a.text)+len(a.text)/8+64), '{')
	lines := make([]span, 0, len(guests))
	old := 0
	for _, g := range guests {
		for old < len(a.guests) && a.guests[old].vmid < g.vmid {
			old++
		}
		from := len(text)
		if from > 1 {
			text = append(text, ',')
		}
		line := len(text)
		if old < len(a.guests) && a.guests[old].vmid == g.vmid && isSame(a.guests[old].conf, g.conf) {
			text = append(text, a.text[a.lines[old].from:a.lines[old].to]...)
		} else {
			text = appendGuest(text, g, a.props)
		}
		if len(text) == line {
			text = text[:from] // no comma for nothing
			line = from
		}
		lines = append(lines, span{line, len(text)})
	}
	clear(a.guests) // those that are gone need not be kept
	a.text, a.guests, a.lines, a.spare = closeObject(text), guests, lines, a.guests
}
