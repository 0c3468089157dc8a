package history

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	files = 4  // files that everybody overwrites and reads
	locks = 2  // locks at a time
	turns = 40 // names that each lock has, one after the other
)

func fileName(i int) string       { return fmt.Sprintf("files/f%d", i) }
func lockName(i, turn int) string { return fmt.Sprintf("priv/lock/l%d-%d", i, turn) }
func guardedName(i, t int) string { return fmt.Sprintf("files/g%d-%d", i, t) }

// valueSize is the length of all values: with one length for all, a read that
// gets a part, or two, can't look right.
const valueSize = 24

func value(client, i int) string {
	return fmt.Sprintf("%-*s", valueSize, fmt.Sprintf("c%d-%d", client, i))
}

// recorder takes what clients have to tell. mu guards history.
type recorder struct {
	begin time.Time
	mu    sync.Mutex
	history
}

func (r *recorder) now() time.Duration { return time.Since(r.begin) }

func (r *recorder) add(o op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, o)
}

func (r *recorder) window(w window) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.windows = append(r.windows, w)
}

// client makes calls on one node, one at a time. They are plain system calls:
// the os package repeats those that are interrupted.
type client struct {
	id     int
	n      *node
	r      *recorder
	rng    *rand.Rand
	values int
	stop   <-chan struct{}
	turn   *[locks]atomic.Int64 // which name each lock has at present
}

// each calls f again and again, at its pace, until the client is to stop.
func (c *client) each(pace time.Duration, f func()) {
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(time.Duration(c.rng.Int64N(int64(2 * pace)))):
			f()
		}
	}
}

// record makes a call and tells of it.
func (c *client) record(o op, call func() error) bool {
	o.node, o.client, o.call = c.n.Host.ID(), c.id, c.r.now()
	err := call()
	o.ret = c.r.now()
	if err != nil {
		o.failed, o.err = true, err.Error()
	} else {
		c.n.acked.Add(1)
	}
	c.r.add(o)
	return err == nil
}

func (c *client) next() string {
	c.values++
	return value(c.id, c.values)
}

// write overwrites a file. It makes none: while nothing is mounted there would
// be one below the mount point.
//
// It doesn't truncate. The clients are in another pid name space than the daemon,
// which then can't tell the truncation of an open from another one, so that a
// reader may be shown the empty file in between (docs/kernel-cache.md). With all
// values of one size, what is written replaces what was there all the same.
func (c *client) write(path string) bool {
	v := c.next()
	return c.record(op{kind: write, path: path, value: v}, func() error {
		return overwrite(c.n.Path(path), syscall.O_WRONLY, v)
	})
}

func overwrite(path string, flags int, v string) error {
	fd, err := syscall.Open(path, flags, 0o640)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if _, err := syscall.Write(fd, []byte(v)); err != nil {
		_ = syscall.Close(fd)
		return fmt.Errorf("write: %w", err)
	}
	if err := syscall.Close(fd); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// read reads a file in one call.
func (c *client) read(k kind, path string) error {
	o := op{kind: k, node: c.n.Host.ID(), client: c.id, path: path, call: c.r.now()}
	fd, err := syscall.Open(c.n.Path(path), syscall.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	buf := make([]byte, 4*valueSize)
	size, err := syscall.Read(fd, buf)
	if err != nil {
		return err
	}
	o.value, o.ret = string(buf[:size]), c.r.now()
	c.r.add(o)
	return nil
}

func (c *client) readOrWrite() {
	path := fileName(c.rng.IntN(files))
	if c.rng.IntN(3) == 0 {
		c.write(path)
	} else {
		_ = c.read(read, path)
	}
}

// create makes an entry of its own. The directory is in the tree only.
func (c *client) create() {
	v := c.next()
	c.record(op{kind: create, path: "set", value: v}, func() error {
		return overwrite(c.n.Path("set/"+v), syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, v)
	})
}

// lock tries to get a lock, uses it and gives it back. After a failure nobody
// knows who holds it: its next name is used from then on.
func (c *client) lock() {
	i := c.rng.IntN(locks)
	turn := c.turn[i].Load()
	if turn >= turns {
		return
	}
	o := op{kind: acquire, node: c.n.Host.ID(), client: c.id, path: lockName(i, int(turn))}
	// A lock that doesn't come free was given back on a node that was alone.
	for begin := time.Now(); ; time.Sleep(time.Duration(c.rng.Int64N(int64(4 * time.Millisecond)))) {
		o.call = c.r.now()
		err := syscall.Mkdir(c.n.Path(o.path), 0o755)
		o.ret = c.r.now()
		if err == nil {
			break
		}
		if err != syscall.EEXIST {
			o.failed, o.err = true, err.Error()
			c.r.add(o)
			c.giveUp(i, turn)
			return
		}
		if time.Since(begin) > 3*time.Second {
			c.turn[i].CompareAndSwap(turn, turn+1)
		}
		if c.turn[i].Load() != turn {
			return
		}
	}
	c.n.acked.Add(1)
	c.r.add(o)
	path := guardedName(i, int(turn))
	ok := c.read(guarded, path) == nil && c.write(path) && c.read(guarded, path) == nil
	ok = ok && c.record(op{kind: release, path: o.path}, func() error { return syscall.Rmdir(c.n.Path(o.path)) })
	if !ok {
		c.giveUp(i, turn)
	}
}

// giveUp leaves a lock as it is and waits until others can do something here.
func (c *client) giveUp(i int, turn int64) {
	c.turn[i].CompareAndSwap(turn, turn+1)
	for before := c.n.acked.Load(); c.n.acked.Load() == before; {
		select {
		case <-c.stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}
