package ipc

import (
	"bytes"
	"strconv"
	"sync"
	"unsafe"
)

// A property is a line NAME: VALUE of a guest's configuration, as offsets into it.
type property struct {
	name, nameEnd, value, valueEnd uint32
}

// parseProperties finds the properties of a guest's configuration: in the lines before
// the first that begins with '[', what is before the first colon and, without the
// white space around it, what is after. A name begins with a–z: a line of another kind is a
// comment.
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
		if colon < 0 || !isPropertyName(line) {
			continue
		}
		from, to := colon+1, len(line)
		for from < to && isSpace(line[from]) {
			from++
		}
		for to > from && isSpace(line[to-1]) {
			to--
		}
		props = append(props, property{
			name: uint32(start), nameEnd: uint32(start + colon),
			value: uint32(start + from), valueEnd: uint32(start + to),
		})
	}
	return props
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// parsedGuest is a configuration and what was found in it.
type parsedGuest struct {
	conf  []byte
	props []property
	round uint64 // of the query that last saw the guest
}

// is reports whether conf is the content that was parsed. The same array of the same
// length has the same content, as nobody changes it.
func (p *parsedGuest) is(conf []byte) bool {
	return len(p.conf) == len(conf) &&
		(unsafe.SliceData(p.conf) == unsafe.SliceData(conf) || bytes.Equal(p.conf, conf))
}

// find returns the value of a property: of several lines, the last one's.
func (p *parsedGuest) find(name string) ([]byte, bool) {
	for i := len(p.props) - 1; i >= 0; i-- {
		q := p.props[i]
		if int(q.nameEnd-q.name) == len(name) && string(p.conf[q.name:q.nameEnd]) == name {
			return p.conf[q.value:q.valueEnd], true
		}
	}
	return nil, false
}

// append appends the guest's line of the answer, or nothing if it has none of
// the properties.
func (p *parsedGuest) append(dst []byte, vmid uint32, props []string) []byte {
	any := false
	for _, name := range props {
		value, ok := p.find(name)
		if !ok {
			continue
		}
		if any {
			dst = append(dst, ',')
		} else {
			if dst[len(dst)-1] == '}' {
				dst = append(dst, ',')
			}
			dst = append(dst, '\n', '"')
			dst = strconv.AppendUint(dst, uint64(vmid), 10)
			dst = append(dst, `": {`...)
			any = true
		}
		dst = appendJSONString(dst, name)
		dst = append(dst, ':')
		dst = appendJSONString(dst, value)
	}
	if any {
		dst = append(dst, '}')
	}
	return dst
}

// propCache keeps what was parsed from the guests' configurations, until they change or
// are gone. The lock guards all of it; nobody but queries for properties takes it.
type propCache struct {
	mu     sync.Mutex
	guests map[uint32]*parsedGuest
	round  uint64
	size   int // of the last answer about all guests, bytes
}

// get returns the parsed configuration of a guest. The lock is held.
func (c *propCache) get(g Guest) *parsedGuest {
	if p := c.guests[g.VMID]; p != nil && p.is(g.Conf) {
		return p
	}
	return &parsedGuest{conf: g.Conf, props: parseProperties(g.Conf)}
}

// one answers for a single guest. It keeps nothing: only all knows which guests there are.
func (c *propCache) one(g Guest, props []string) []byte {
	c.mu.Lock()
	p := c.get(g)
	c.mu.Unlock()
	return closeObject(p.append([]byte{'{'}, g.VMID, props))
}

// all answers for all guests there are.
func (c *propCache) all(guests []Guest, props []string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.round++
	dst := append(make([]byte, 0, c.size+c.size/8+64), '{')
	if c.guests == nil {
		c.guests = make(map[uint32]*parsedGuest, len(guests))
	}
	for _, g := range guests {
		p := c.get(g)
		p.round = c.round
		c.guests[g.VMID] = p
		dst = p.append(dst, g.VMID, props)
	}
	if len(c.guests) > len(guests) {
		for vmid, p := range c.guests {
			if p.round != c.round {
				delete(c.guests, vmid)
			}
		}
	}
	c.size = len(dst)
	return closeObject(dst)
}

func closeObject(dst []byte) []byte { return append(dst, "\n}\n"...) }
