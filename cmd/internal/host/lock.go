package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"pmxcfs/cmd/internal/plan"
)

const (
	// LockWait is how long a lock is waited for.
	LockWait = 10 * time.Second
	// workLimit is how long work under a cluster lock may take. The lock itself
	// expires after 120 s.
	workLimit = 60 * time.Second
)

// Flock holds a lock of this host while work runs.
func (h *Host) Flock(ctx context.Context, path string, work func() error) error {
	f, err := os.OpenFile(h.Path(path), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(ctx, LockWait)
	defer cancel()
	switch err := FlockFile(ctx, f); {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return plan.Fail(plan.Timeout, "locked", "wait until it ends", "another pvecm is at work on this host: it holds the lock %s", h.Path(path))
	case err != nil:
		return fmt.Errorf("lock %s: %w", h.Path(path), err)
	}
	return work()
}

// FlockWithin takes the lock of an open file, for which it waits so long at most.
func FlockWithin(f *os.File, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := FlockFile(ctx, f); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// FlockFile takes the lock of an open file, for which it waits until ctx is done. The error is
// the system call's or ctx's.
func FlockFile(ctx context.Context, f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ClusterLock holds a lock of the whole cluster while work runs, whose context ends
// before the lock can expire.
func (h *Host) ClusterLock(ctx context.Context, name string, work func(context.Context) error) (err error) {
	dir := h.Path(Mount + "/priv/lock")
	lock := dir + "/" + name
	deadline := h.Time().Add(LockWait)
	told := time.Time{}
	for {
		os.Mkdir(dir, 0o700) // it is there but in a new tree
		err := os.Mkdir(lock, 0o700)
		if err == nil {
			break
		}
		if !h.Quorate() {
			return h.NeedQuorum()
		}
		left := deadline.Sub(h.Time())
		if left <= 0 || ctx.Err() != nil {
			return plan.Fail(plan.Timeout, "locked", "wait until it ends; a lock whose holder died expires after two minutes", "another change of the cluster is under way: the lock %s is held (%v)", lock, err)
		}
		os.Chtimes(lock, time.Unix(0, 0), time.Unix(0, 0)) // asks for it, if it has expired
		if now := h.Time(); now.Sub(told) >= time.Second {
			fmt.Fprintf(h.Stderr, "waiting for the cluster lock %s\n", name)
			told = now
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(time.Second, max(100*time.Millisecond, left.Truncate(time.Second)/10))):
		}
	}
	defer func() {
		// The work may have cost the quorum for a moment. It is done: a lock that stays is no
		// failure of it.
		if e := giveBack(lock, os.Remove); e != nil {
			h.Warnf("the cluster lock %s can't be given back, and expires within two minutes: %v", name, e)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, workLimit)
	defer cancel()
	return work(ctx)
}

// giveBack removes a cluster lock, for which it waits for quorum, but not for long.
func giveBack(lock string, remove func(string) error) error {
	for end := time.Now().Add(LockWait); ; time.Sleep(50 * time.Millisecond) {
		err := remove(lock)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil // or it had expired
		}
		if !errors.Is(err, fs.ErrPermission) || time.Now().After(end) {
			return err
		}
	}
}
