package rrd

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Config is what a Writer is made of.
type Config struct {
	// Dir is the directory of the files: /var/lib/rrdcached/db on a host. It
	// must be an absolute path, but need not exist.
	Dir string
	// Socket is the path of rrdcached's socket, "unix:" before it or not:
	// /var/run/rrdcached.sock on a host. Empty means rrdcached is not used.
	Socket string
	// Now is the clock; its time zone says when a day begins.
	Now func() time.Time
	// Logger gets one line for each trouble, and one when it is over.
	Logger *slog.Logger
	// QueueLimit is how many samples may wait; more are dropped. 0 means 8192.
	QueueLimit int
	// Timeout is how long rrdcached may take for an answer. 0 means 10 s.
	Timeout time.Duration

	settled func() bool // whether Now is right; nil means as the kernel says
}

// Stats counts what a Writer has done since it was made.
type Stats struct {
	Cached  uint64 // samples handed to rrdcached
	Direct  uint64 // samples written to files
	Created uint64 // files made
	Renewed uint64 // files that took no sample, set aside and made anew
	Failed  uint64 // samples that could not be understood or written
	Dropped uint64 // samples for which there was no room in the queue
	Queued  int    // samples that wait now
}

// Writer writes samples to RRD files. Its methods may be called concurrently.
type Writer struct {
	limit int
	now   func() time.Time
	log   *slog.Logger

	mu       sync.Mutex // guards queue, flushes, dropping, closed
	queue    []submitted
	flushes  []chan struct{} // to be closed when the queue has been worked off
	dropping bool            // the queue was full when last looked at
	closed   bool

	wake    chan struct{} // has room for one: there is work, or it is over
	abandon chan struct{} // closed: leave what is queued
	done    chan struct{} // closed when the goroutine has ended
	once    sync.Once     // closes abandon

	cached, direct, created, renewed, failed, dropped atomic.Uint64

	queued atomic.Int64 // samples that are not written yet, in queue or taken from it

	// The goroutine's own.
	parser   *parser
	files    *files
	daemon   *rrdcached // nil means not used
	troubles *troubles
}

type submitted struct{ key, value string }

// New makes a Writer and starts its goroutine; Close ends it.
func New(cfg Config) (*Writer, error) { return newWriter(cfg, librrd{}) }

func newWriter(cfg Config, lib library) (*Writer, error) {
	if !filepath.IsAbs(cfg.Dir) || cfg.Now == nil || cfg.Logger == nil {
		return nil, errors.New("rrd: an absolute directory, a clock and a logger are needed")
	}
	if strings.ContainsAny(cfg.Dir, "\n\x00") {
		return nil, errors.New("rrd: a line feed or NUL in the directory's name")
	}
	if cfg.QueueLimit <= 0 {
		cfg.QueueLimit = 8192
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.settled == nil {
		cfg.settled = clockSettled()
	}
	w := &Writer{
		limit:    cfg.QueueLimit,
		now:      cfg.Now,
		log:      cfg.Logger,
		wake:     make(chan struct{}, 1),
		abandon:  make(chan struct{}),
		done:     make(chan struct{}),
		parser:   newParser(),
		files:    &files{dir: filepath.Clean(cfg.Dir), lib: lib, now: cfg.Now, settled: cfg.settled},
		troubles: &troubles{log: cfg.Logger, now: cfg.Now, open: make(map[string]trouble)},
	}
	if socket := strings.TrimPrefix(cfg.Socket, "unix:"); socket != "" {
		w.daemon = &rrdcached{socket: socket, timeout: cfg.Timeout, now: cfg.Now}
	}
	go w.run()
	return w, nil
}

// Submit has the value of a key (what follows "rrd/"; the text that Text gives)
// written. It never waits: when too many samples are queued, or after Close, the
// sample is dropped, and it answers false. What is wrong with a key or a value is
// found out, and logged, later.
func (w *Writer) Submit(key, text string) bool {
	s := submitted{strings.Clone(key), strings.Clone(text)}
	w.mu.Lock()
	full := w.queued.Load() >= int64(w.limit)
	first := full && !w.dropping
	w.dropping = full
	if !full && !w.closed {
		w.queue = append(w.queue, s)
		w.queued.Add(1)
	}
	closed := w.closed
	w.mu.Unlock()

	if full || closed {
		w.dropped.Add(1)
		if first {
			w.log.Warn("RRD: samples come faster than they can be written, dropping some", "queued", w.limit)
		}
		return false
	}
	w.signal()
	return true
}

// Flush waits until all that was submitted before has been written or refused.
// Samples in rrdcached's memory count as written. The error is ctx's.
func (w *Writer) Flush(ctx context.Context) error {
	c := make(chan struct{})
	w.mu.Lock()
	w.flushes = append(w.flushes, c)
	w.mu.Unlock()
	w.signal()
	select {
	case <-c:
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Close writes the queued samples and ends the goroutine. When ctx is over it drops
// what is left and gives ctx's error; the goroutine then ends as soon as the
// disk lets go of it.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		w.once.Do(func() { close(w.abandon) })
		return ctx.Err()
	}
}

// Stats gives the counters. It takes no lock.
func (w *Writer) Stats() Stats {
	return Stats{
		Cached:  w.cached.Load(),
		Direct:  w.direct.Load(),
		Created: w.created.Load(),
		Renewed: w.renewed.Load(),
		Failed:  w.failed.Load(),
		Dropped: w.dropped.Load(),
		Queued:  int(w.queued.Load()),
	}
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// batchSize is how many samples are worked off at a time.
const batchSize = 256

// run is the goroutine.
func (w *Writer) run() {
	defer close(w.done)
	if w.daemon != nil {
		defer w.daemon.close()
	}
	for range w.wake {
		w.mu.Lock()
		queue, flushes, closed := w.queue, w.flushes, w.closed
		w.queue, w.flushes = nil, nil
		w.mu.Unlock()
		for len(queue) > 0 {
			select {
			case <-w.abandon:
				w.mu.Lock()
				w.dropped.Add(uint64(len(queue) + len(w.queue)))
				w.queue = nil
				w.queued.Store(0)
				w.mu.Unlock()
				return
			default:
			}
			n := min(batchSize, len(queue))
			w.write(queue[:n])
			queue = queue[n:]
			w.queued.Add(-int64(n))
		}
		for _, c := range flushes {
			close(c)
		}
		if closed {
			return
		}
	}
}

// pending is a sample on its way into its file.
type pending struct {
	sample
	key  string
	path string
}

// write works off one batch.
func (w *Writer) write(batch []submitted) {
	if err := w.files.check(); err != nil {
		w.failed.Add(uint64(len(batch)))
		w.troubles.set(scopeDirectory, "RRD: nothing can be written", err, err)
		return
	}
	w.troubles.clear(scopeDirectory, "RRD: the directory is there")
	list := make([]pending, 0, len(batch))
	for _, s := range batch {
		parsed, err := w.parser.parse(s.key, s.value, w.now())
		if err != nil {
			w.fail(s.key, scopeKey, err)
			continue
		}
		p := pending{parsed, s.key, w.files.path(&parsed)}
		if w.ensure(&p) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return
	}
	for _, p := range w.throughDaemon(list) {
		err := w.files.update(&p.sample)
		if err != nil && w.renew(&p) {
			err = w.files.update(&p.sample)
		}
		if err != nil {
			w.fail(p.key, scopeUpdate, err)
			continue
		}
		w.direct.Add(1)
		w.troubles.clear(scopeUpdate, "RRD: writing to files works again")
		w.succeed(p.key)
	}
}

// ensure makes sure that the file exists.
func (w *Writer) ensure(p *pending) bool {
	created, err := w.files.ensure(&p.sample)
	if err != nil {
		w.fail(p.key, scopeCreate+p.family.current, err)
		return false
	}
	if created {
		w.created.Add(1)
		w.troubles.clear(scopeCreate+p.family.current, "RRD: making files works again", "family", p.family.current)
	}
	return true
}

// renew begins a file anew that will never take a sample again, and tells whether it
// did.
func (w *Writer) renew(p *pending) bool {
	cause := w.files.spoilt(&p.sample)
	if cause == nil {
		return false
	}
	aside, err := w.files.setAside(&p.sample)
	if err != nil {
		w.troubles.set(scopeKey+p.key, "RRD: cannot set a damaged file aside", err, err, "key", p.key, "path", p.path)
		return false
	}
	if _, err := w.files.ensure(&p.sample); err != nil {
		w.troubles.set(scopeKey+p.key, "RRD: cannot replace a damaged file", err, err, "key", p.key, "path", p.path)
		return false
	}
	w.renewed.Add(1)
	w.log.Warn("RRD: a file that can't take samples any more was replaced by a new one", "key", p.key, "path", p.path, "set_aside", aside, "error", cause)
	return true
}

// afresh makes a file take samples that rrdcached refuses one for, if that is the
// file's fault, or that of what rrdcached has in memory for it.
func (w *Writer) afresh(p *pending, refusal *RefusedError) bool {
	last, early := refusal.last()
	if !w.renew(p) && !(early && last.After(w.now().Add(maxFuture)) && w.files.settled()) {
		return false
	}
	// Else it would go by the old file, and write what it holds for that one.
	if err := w.daemon.forget(p.path); err != nil {
		w.troubles.set(scopeDaemon, "RRD: rrdcached does not answer, writing to the files directly", err, err)
	}
	return true
}

// throughDaemon hands the samples to rrdcached and gives those that are to be
// written directly.
func (w *Writer) throughDaemon(list []pending) (direct []pending) {
	if w.daemon == nil {
		return list
	}
	var handed []pending
	var commands []string
	for _, p := range list {
		if line := command(p.path, p.update); len(line) <= maxCommand {
			handed, commands = append(handed, p), append(commands, line)
		} else {
			direct = append(direct, p)
		}
	}
	if len(commands) == 0 {
		return direct
	}
	refused, err := w.daemon.update(commands)
	if err != nil {
		if !errors.Is(err, errPaused) { // which the log has the reason of
			w.troubles.set(scopeDaemon, "RRD: rrdcached does not answer, writing to the files directly", err, err)
		}
		return list
	}
	w.troubles.clear(scopeDaemon, "RRD: rrdcached answers again")
	for i, p := range handed {
		err := refused[i]
		var r *RefusedError
		switch {
		case err == nil:
			w.cached.Add(1)
			w.succeed(p.key)
		case errors.As(err, &r) && r.foreign():
			direct = append(direct, p)
		case !exists(p.path):
			// Removed since it was looked at: once more, directly.
			if w.ensure(&p) {
				direct = append(direct, p)
			}
		case errors.As(err, &r) && w.afresh(&p, r):
			direct = append(direct, p)
		default:
			w.fail(p.key, scopeKey, err)
		}
	}
	return direct
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Scopes of troubles. Making files and updating them are told apart, for on a
// full disk the former fails while the latter goes on; and so are the families'
// files, for the last small file may find room where a large one does not.
const (
	scopeDirectory = "directory"
	scopeCreate    = "create " // and the family
	scopeUpdate    = "update"
	scopeDaemon    = "rrdcached"
	scopeKey       = "key " // and the key
)

// fail notes a sample that is lost. If the cause concerns all files alike it is
// a trouble of scope, otherwise of the key.
func (w *Writer) fail(key, scope string, err error) {
	w.failed.Add(1)
	if kind := hostTrouble(err); kind != nil && scope != scopeKey {
		w.troubles.set(scope, "RRD: cannot write to files", kind, err)
		return
	}
	w.troubles.set(scopeKey+key, "RRD: cannot write a sample", err, err, "key", key)
}

// succeed notes a sample that is written.
func (w *Writer) succeed(key string) {
	w.troubles.clear(scopeKey+key, "RRD: writing samples works again", "key", key)
}

// hostTrouble gives the cause of err if it concerns all files alike.
func hostTrouble(err error) error {
	for _, e := range [...]error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, e) {
			return e
		}
	}
	return nil
}
