package history

import (
	"context"
	"time"

	"pmxcfs/memdb"
)

// Event is what happens to one who follows: a change set, or a gap.
type Event struct {
	Changes []Change `json:"changes,omitempty"` // of one set
	Gap     *Gap     `json:"gap,omitempty"`
}

// Follower follows the changes, each as it is stored in the database. It is for one goroutine.
type Follower struct {
	r      *Recorder
	seq    int64 // the last one that was seen
	reader *Reader
}

// Now is the version from which one follows who wants nothing of the past.
const Now = ^uint64(0)

// Follow returns a follower of what comes after a version of the tree. If part of that is
// not in the history any more, a gap says so first.
func (r *Recorder) Follow(ctx context.Context, since uint64) (*Follower, []Event, error) {
	f := &Follower{r: r}
	if since == Now {
		r.mu.Lock()
		f.seq = r.seq
		r.mu.Unlock()
		return f, nil, nil
	}
	if err := r.Flush(ctx); err != nil {
		return nil, nil, err
	}
	if err := f.open(); err != nil {
		return nil, nil, err
	}
	seq, gap, err := f.reader.after(since)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	f.seq = seq
	if gap != nil {
		return f, []Event{{Gap: gap}}, nil
	}
	return f, nil, nil
}

func (f *Follower) open() (err error) {
	if f.reader == nil {
		f.reader, err = Open(f.r.cfg.Path)
	}
	return err
}

// Close ends the following.
func (f *Follower) Close() {
	if f.reader != nil {
		f.reader.Close()
		f.reader = nil
	}
}

// followed is how many changes are read from the file at a time.
const followed = 512

// Next returns what has come since the last call, and waits until there is something.
func (f *Follower) Next(ctx context.Context) ([]Event, error) {
	r := f.r
	for {
		r.mu.Lock()
		stored := r.stored
		var list []Event
		if f.seq >= stored {
			list = r.pending(f.seq)
		}
		fresh := r.fresh
		wait := f.seq >= stored && len(list) == 0
		if wait {
			r.followed++
		} else if f.seq >= stored {
			f.seq = r.seqOf()
		}
		r.mu.Unlock()
		switch {
		case wait:
			err := f.await(ctx, fresh)
			if err != nil {
				return nil, err
			}
		case f.seq < stored:
			if err := f.open(); err != nil {
				return nil, err
			}
			list, last, err := f.reader.events(f.seq, stored, followed)
			if err != nil {
				return nil, err
			}
			f.seq = last
			if len(list) > 0 {
				return list, nil
			}
		default:
			f.Close() // no old file is held while nothing is read
			return list, nil
		}
	}
}

func (f *Follower) await(ctx context.Context, fresh chan struct{}) error {
	defer func() {
		f.r.mu.Lock()
		f.r.followed--
		f.r.mu.Unlock()
	}()
	f.Close()
	select {
	case <-fresh:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-f.r.done:
		return ErrClosed
	}
}

// seqOf returns the last seq that the queue has. mu is held.
func (r *Recorder) seqOf() int64 {
	last := r.stored
	for _, list := range [][]*item{r.storing, r.queue.items} {
		if n := len(list); n > 0 {
			last = max(last, list[n-1].seq+list[n-1].rows()-1)
		}
	}
	return last
}

// pending returns what is queued after seq. mu is held.
func (r *Recorder) pending(seq int64) (events []Event) {
	for _, list := range [][]*item{r.storing, r.queue.items} {
		for _, i := range list {
			if i.seq <= seq || i.dropped {
				continue
			}
			if changes := r.describe(i); len(changes) > 0 {
				events = append(events, Event{Changes: changes})
			}
		}
	}
	return events
}

// describe says what a queued change set does, as a Reader would.
func (r *Recorder) describe(i *item) []Change {
	c := collector{r: r}
	f := file{cfg: &r.cfg, sink: &c}
	if err := f.item(i); err != nil {
		return nil // it stores nothing
	}
	return c.list
}

// collector takes changes in the place of a file.
type collector struct {
	r    *Recorder
	list []Change
}

func (c *collector) change(e *entry) {
	d := Change{
		Seq: e.seq, Set: e.first, Tree: e.tree, Version: e.by.Version, Time: time.UnixMilli(e.at), MTime: time.Unix(int64(e.by.MTime), 0),
		NodeID: e.by.Writer, Node: c.r.cfg.NodeName(e.by.Writer), Kind: e.kind, Path: e.path, Omitted: e.omitted,
	}
	if e.e != nil {
		d.State, d.Size = State(e.e.Type), int64(e.e.Size())
	}
	d.other(e.other)
	c.list = append(c.list, d)
}

// other takes in the other end of a rename.
func (d *Change) other(path string) {
	switch {
	case path == "":
	case d.State == Absent:
		d.To = path
	default:
		d.From = path
	}
}

func (c *collector) catchUp(s *catchUp) {
	for i := range c.list {
		c.list[i].CatchUp = &CatchUp{Leader: c.r.cfg.NodeName(s.leader), LeaderID: s.leader, From: s.before.Version, To: s.after.Version}
	}
}

// Head returns the version of the tree up to which everything was told.
func (r *Recorder) Head() *memdb.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.root
}
