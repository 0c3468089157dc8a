package diagnosis

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

// Locks returns the locks that are held.
func (h *Host) Locks(ctx context.Context) ([]inspect.Lock, error) {
	d, err := ask(ctx, h, (*inspect.Client).Locks)
	if err != nil {
		return nil, err
	}
	return d.Locks, nil
}

// Lock returns one lock.
func (h *Host) Lock(ctx context.Context, name string) (*inspect.Lock, error) {
	list, err := h.Locks(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i], nil
		}
	}
	return nil, fmt.Errorf("no lock %q is held (pmxcfs locks lists those that are)", name)
}

// breakTime is how long breaking may take: the nodes agree on it by two messages.
const breakTime = 10 * time.Second

// errNoQuorum is the error of a lock that only a majority may break.
var errNoQuorum = errors.New("this node has no quorum, and nothing can be changed here: break the lock on a node of the majority (pmxcfs status)")

// errNotBroken is the error of a lock that is still there.
var errNotBroken = errors.New("the lock is still there: the node with the lowest number does not find it expired yet; try again in two minutes")

// BreakLock breaks a lock that is still as it was seen. One that has expired is
// broken as any client would do it, by setting its time to zero: then the nodes
// agree on whether it is so. Another one is removed.
func (h *Host) BreakLock(ctx context.Context, seen *inspect.Lock) error {
	if err := h.quorate(ctx); err != nil {
		return err
	}
	// The last thing before it is done: nobody shall lose a lock who has just got it.
	now, err := h.Lock(ctx, seen.Name)
	if err != nil {
		return err
	}
	if now.Version != seen.Version {
		return renewed(now)
	}
	path := filepath.Join(h.MountPoint, memdb.LockDir, seen.Name)
	if !now.Expired {
		_, err := within(breakTime, func() (struct{}, error) { return struct{}{}, os.Remove(path) })
		return ignoreGone(err)
	}
	_, err = within(breakTime, func() (struct{}, error) { return struct{}{}, os.Chtimes(path, time.Time{}, time.Unix(0, 0)) })
	// Of a lock of another node, the request is made all the same.
	if err = ignoreGone(err); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, breakTime)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		locks, lerr := h.Locks(ctx)
		switch {
		case asked.Err() != nil:
			return asked.Err()
		case ctx.Err() != nil:
			if qerr := h.quorate(asked); qerr != nil {
				return qerr // it was lost meanwhile
			}
			return errors.Join(errNotBroken, err)
		case lerr != nil:
			return lerr
		}
		i := slices.IndexFunc(locks, func(l inspect.Lock) bool { return l.Name == seen.Name })
		if i < 0 {
			return nil
		}
		if l := &locks[i]; l.Version != seen.Version {
			return renewed(l)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// quorate finds out whether changes are possible here, and where the daemon has mounted.
func (h *Host) quorate(ctx context.Context) error {
	status, err := ask(ctx, h, (*inspect.Client).Status)
	if err != nil {
		return err
	}
	h.MountPoint = status.Daemon.MountPoint
	if status.Cluster != nil && !status.Cluster.Quorate {
		return errNoQuorum
	}
	return nil
}

func renewed(l *inspect.Lock) error {
	return fmt.Errorf("the lock %q has just been taken or renewed by %s: it was left alone", l.Name, or(l.Holder, "another node"))
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// LockWarning says what breaking a lock means.
func (p *Painter) LockWarning(l *inspect.Lock, now time.Time) {
	holder := or(clean(l.Holder), fmt.Sprintf("node %d", l.ID))
	p.printf("The lock %q is held by %s; it was taken or renewed %s ago.\n", clean(l.Name), holder, duration(now.Sub(l.Since)))
	if l.Expired {
		p.printf("It has expired: it was not renewed for more than %s.\n", duration(memdb.LockTimeout))
		return
	}
	p.printf("%s It has NOT expired. If its holder is still at work, two will be at the same thing,\n", p.paint(red, "Warning:"))
	p.printf("and may damage what the lock protects. It expires by itself in %s, unless it is renewed.\n", duration(memdb.LockTimeout-now.Sub(l.Since)))
}
