package load

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// Small is the size in bytes of a guest's configuration, the usual file.
	Small = 700

	large     = 512 << 10
	chunk     = 4 << 10
	listed    = 1000 // entries of the directory that is listed
	perBatch  = 200  // operations between two clearings, per client
	perClient = 16   // files that a client overwrites or reads in turn
)

// op is one kind of operation. Files are prepared by setup, once; before and
// after, if there are any, clear the way for each batch, outside of the time
// that is measured.
type op struct {
	name   string
	setup  func(*worker)
	before func(*worker)
	run    func(w *worker, i int)
	after  func(*worker)
}

// batched reports whether the operation uses something up.
func (o *op) batched() bool { return o.before != nil || o.after != nil }

// ops are all operations, in the order of the report.
func ops() []op {
	return []op{
		{name: "create", run: func(w *worker, i int) { w.create(w.names[i], w.small) }, after: deleteNames},
		{name: "overwrite", setup: makeFiles, run: func(w *worker, i int) { w.overwrite(w.files[i%perClient], w.small, Small) }},
		{name: "temp-rename", setup: makeFiles, run: func(w *worker, i int) {
			w.create(w.temp, w.small)
			rename(w.temp, w.files[i%perClient])
		}},
		{name: "read", setup: makeReadFiles, run: func(w *worker, i int) { w.readAll(w.files[i%perClient], Small) }},
		{name: "stat", run: func(w *worker, i int) { fstatat(w.listed[i%listed], &w.stat) }},
		{name: "getattr", run: func(w *worker, i int) {
			// What stat costs when the kernel's cache does not answer.
			statx(w.listed[i%listed], unix.AT_STATX_FORCE_SYNC, &w.statx)
		}},
		{name: "readdir", run: func(w *worker, i int) {
			fd := open(w.listDir, unix.O_RDONLY|unix.O_DIRECTORY)
			if n := getdents(fd, w.listDir, w.buf); n < listed*24 {
				panic(failure{fmt.Errorf("getdents %s: only %d bytes", w.listDir, n)})
			}
			closeFD(fd, w.listDir)
		}},
		{name: "read-version", run: func(w *worker, i int) { w.readAll(w.version, 1) }},
		{name: "mkdir-rmdir", run: func(w *worker, i int) {
			mkdir(w.temp)
			unlink(w.temp, unix.AT_REMOVEDIR)
		}},
		{name: "512K-in-4K", setup: makeFiles, run: func(w *worker, i int) { w.overwrite(w.files[i%2], w.large, chunk) }},
		{name: "512K-in-1", setup: makeFiles, run: func(w *worker, i int) { w.overwrite(w.files[i%2], w.large, large) }},
		{name: "delete", before: createNames, run: func(w *worker, i int) { unlink(w.names[i], 0) }},
	}
}

// Ops returns the names of all operations.
func Ops() []string {
	var names []string
	for _, o := range ops() {
		names = append(names, o.name)
	}
	return names
}

func findOp(name string) (op, error) {
	if name == Churn {
		return op{name: name, run: func(w *worker, _ int) { w.churnOnce() }}, nil
	}
	all := ops()
	i := slices.IndexFunc(all, func(o op) bool { return o.name == name })
	if i < 0 {
		return op{}, fmt.Errorf("there is no operation %q", name)
	}
	return all[i], nil
}

func makeFiles(w *worker) {
	for _, f := range w.files {
		w.create(f, w.small)
	}
}

// makeReadFiles has the kernel keep what is in the files, too.
func makeReadFiles(w *worker) {
	makeFiles(w)
	for _, f := range w.files {
		w.readAll(f, Small)
	}
}

func createNames(w *worker) {
	for _, n := range w.names {
		w.create(n, w.small)
	}
}

func deleteNames(w *worker) {
	for _, n := range w.names[:w.done] {
		unlink(n, 0)
	}
}

// create makes a file, or empties it, and writes b to it at once.
func (w *worker) create(p path, b []byte) {
	w.stamp(b)
	fd := open(p, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	write(fd, p, b)
	closeFD(fd, p)
}

// overwrite replaces a file's content by b, in writes of size bytes.
func (w *worker) overwrite(p path, b []byte, size int) {
	w.stamp(b)
	fd := open(p, unix.O_WRONLY|unix.O_TRUNC)
	for ; len(b) > 0; b = b[min(size, len(b)):] {
		write(fd, p, b[:min(size, len(b))])
	}
	closeFD(fd, p)
}

func (w *worker) readAll(p path, atLeast int) {
	fd := open(p, unix.O_RDONLY)
	if n := read(fd, p, w.buf); n < atLeast {
		panic(failure{fmt.Errorf("read %s: only %d bytes", p, n)})
	}
	closeFD(fd, p)
}
