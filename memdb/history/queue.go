package history

import "pmxcfs/memdb"

const (
	batchBytes = 256 << 10 // of content, and what changes cost beside it: they are stored at once
	queueBytes = 8 << 20   // what finds no room in the queue is not recorded
	changeCost = 128       // bytes, of a change beside its content
)

// A burst: more changes than anybody reads one by one come within a moment, of one path or of
// all. From there on, of each path only the last state is recorded, and how many were left out before
// it. Bounded work, then, whatever the rate.
const (
	burstTime = defaultDelay

	burstOfPath = 16      // states of one path within burstTime
	burstBytes  = 1 << 20 // of their content
	burstOfAll  = 1024    // of all paths
	burstTotal  = 4 << 20 // bytes of their content
	burstPaths  = 1 << 13 // whose states are counted
)

// item is a change set that waits to be stored.
type item struct {
	seq  int64        // of its first change
	at   int64        // milliseconds since 1970
	root *memdb.Entry // the tree's after it
	sync *catchUp     // not nil: instead of the following

	kind  Kind
	path  string
	to    string       // of a rename
	was   *memdb.Entry // what was at the path before; nil: nothing, or unknown
	e     *memdb.Entry // what is there now, or what was renamed; nil: nothing
	start *memdb.Entry // with which state the write has gone on; nil: with none, see goesOn

	omitted int64 // states of the path that it stands for, beside its own
	size    int   // in the queue
	burst   bool  // it is one of a burst, and so is the path's next one that takes its place
	dropped bool  // another one has taken its place
}

type catchUp struct {
	leader        uint32
	before, after *memdb.Entry
	list          []memdb.Difference
}

// rows is how many changes at most the set has.
func (i *item) rows() int64 {
	switch {
	case i.sync != nil:
		return 2 * int64(len(i.sync.list))
	case i.kind == Rename:
		return 2
	}
	return 1
}

// itemOf returns the item of a step; nil: it is of a kind that is not recorded.
func itemOf(s *memdb.Step, at int64) *item {
	_, root := s.Roots()
	i := &item{at: at, root: root, path: s.Path}
	n := len(s.Changes) - 2
	if n >= 0 {
		i.was, i.e = s.Changes[n].Old, s.Changes[n].New
	}
	switch s.Kind {
	case memdb.OpCreate:
		i.kind = Create
	case memdb.OpMkdir:
		i.kind = Mkdir
	case memdb.OpDelete:
		i.kind, i.e = Delete, nil
	case memdb.OpWrite:
		i.kind = Write
		if (s.Tail || i.was != nil && i.was.Size() == 0) && goesOn(i.was, i.e) {
			i.start = i.was
		}
	case memdb.OpRename:
		i.kind, i.to = Rename, s.To
		if temporary(s.Path) { // how Proxmox's tools write a file
			i.kind, i.path, i.to = Create, s.To, ""
			if n > 0 {
				i.kind = Write
			}
		}
	default:
		return nil
	}
	i.size = changeCost
	if i.e != nil {
		i.size += i.e.Size()
	}
	return i
}

// appendTime is the time, in seconds, in which what a node writes to a file piece by piece is
// one change: what it appends, and what it writes to a file that it has emptied before. (That is
// how open(2) with O_TRUNC may come, if the writer takes its time.)
const appendTime = 5

// goesOn reports whether a write, at the end of a file or to an empty one, goes on where another
// one of the same node has ended a moment before.
func goesOn(old, e *memdb.Entry) bool {
	switch {
	case old.Writer != e.Writer || old.Version == old.Inode || e.Size() <= old.Size():
		return false
	case old.Size() == 0:
		return e.MTime-old.MTime < appendTime
	}
	return old.MTime/appendTime == e.MTime/appendTime
}

// queue is what waits to be stored.
type queue struct {
	items   []*item
	dropped int // of items
	bytes   int // of those that are not
	pressed int // of those that are not in a burst
	round   int // counts the calls of take

	since  int64 // when the counting of the following has begun
	states int   // recorded since then, and not left out
	total  int   // bytes of their content
	paths  map[string]*recent
}

// recent is what has become of a path since then.
type recent struct {
	states, bytes int
	round         int   // in which the following are in the queue
	last          *item // the path's last; nil: another kind of change has come after it
	file          *item // in a burst, if the last one is a delete: what was deleted
}

func (q *queue) empty() bool { return len(q.items) == 0 }
func (q *queue) len() int    { return len(q.items) - q.dropped }

// urgent reports whether so much is queued that it is to be stored at once.
func (q *queue) urgent() bool { return q.pressed >= batchBytes || q.bytes >= queueBytes/2 }

// take empties the queue.
func (q *queue) take() []*item {
	q.compact()
	items := q.items
	q.items, q.bytes, q.pressed = nil, 0, 0
	q.round++
	return items
}

func (q *queue) compact() {
	kept := q.items[:0]
	for _, i := range q.items {
		if !i.dropped {
			kept = append(kept, i)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.dropped = kept, 0
}

// push puts an item into the queue, as the one with that seq, and takes out those that it makes
// needless. It reports whether the queue is urgent now and was not before; not ok: there
// was no room.
func (q *queue) push(i *item, seq int64) (urgent, ok bool) {
	was := q.urgent()
	i.seq = seq
	if i.at-q.since >= burstTime.Milliseconds() || i.at < q.since {
		q.forget()
		q.since, q.states, q.total = i.at, 0, 0
	}
	switch {
	case i.sync != nil:
		q.forget()
		q.pressed += i.size
	case i.kind == Rename:
		q.end(q.of(i.path))
		q.end(q.of(i.to))
		q.states += 2
		q.pressed += i.size
	default:
		q.replace(i)
	}
	if q.bytes+i.size > queueBytes {
		return false, false
	}
	if q.dropped > 64 && q.dropped > len(q.items)/2 {
		q.compact()
	}
	q.items = append(q.items, i)
	q.bytes += i.size
	return q.urgent() && !was, true
}

// replace takes out of the queue what an item makes needless.
func (q *queue) replace(i *item) {
	p := q.of(i.path)
	last, file := p.last, p.file
	p.last, p.file = i, nil
	if i.start != nil && last != nil && last.kind == Write && last.e == i.start {
		q.drop(last, i)
		i.start, i.burst = last.start, last.burst
		if !i.burst {
			more := i.e.Size() - last.e.Size()
			p.bytes += more
			q.total += more
		} else {
			i.size = changeCost
		}
		return
	}
	if p.states < burstOfPath && p.bytes < burstBytes && q.states < burstOfAll && q.total < burstTotal {
		more := i.size
		if i.start != nil { // it takes the place of a state in the file
			more -= i.start.Size()
		} else {
			p.states++
			q.states++
		}
		p.bytes += more
		q.total += more
		q.pressed += more
		return
	}
	// Its content is the tree's own as long as it is the last: it takes no room.
	i.burst, i.size = true, changeCost
	switch {
	case last == nil || !last.burst:
	case i.kind == Delete && last.e != nil && !last.e.IsDir():
		q.charge(last) // the last content of a file stays
		p.file = last
	default:
		q.drop(last, i)
		i.omitted++
		if file != nil {
			q.drop(file, i)
			i.omitted++
		}
	}
}

// of returns what has lately become of a path.
func (q *queue) of(path string) *recent {
	p := q.paths[path]
	if p == nil {
		if len(q.paths) >= burstPaths {
			q.forget()
		}
		p = &recent{}
		q.paths[path] = p
	}
	if p.round != q.round {
		p.round, p.last, p.file = q.round, nil, nil
	}
	return p
}

// end says that nothing takes the place of a path's last item any more.
func (q *queue) end(p *recent) {
	if p.round == q.round && p.last != nil && p.last.burst {
		q.charge(p.last)
	}
	p.last, p.file = nil, nil
}

// forget ends all paths, and their counting.
func (q *queue) forget() {
	for _, p := range q.paths {
		q.end(p)
	}
	q.paths = map[string]*recent{}
}

// charge counts the content of an item that has not been counted.
func (q *queue) charge(i *item) {
	if i.e != nil {
		i.size += i.e.Size()
		q.bytes += i.e.Size()
	}
}

// drop takes an item out of the queue, in whose place another one comes.
func (q *queue) drop(i, by *item) {
	i.dropped = true
	q.dropped++
	q.bytes -= i.size
	by.omitted += i.omitted
}
