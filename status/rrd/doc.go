// Package rrd keeps the nodes' measurements: the newest value of each key for .rrd
// (Values), and the samples in RRD files (Writer).
//
// # How samples reach the files
//
// A Writer accepts samples without blocking: Submit copies them into a bounded
// queue, which one goroutine drains. A hung disk or an rrdcached that does not
// answer costs samples; the store never waits for them.
//
// Updates go through rrdcached while it answers, otherwise to the files.
// rrdcached is spoken to in its own text protocol (rrdcached(1), PROTOCOL) over
// its Unix socket rather than through librrd's client functions: those block in
// C without a deadline when rrdcached hangs, and send one update per round trip,
// where the protocol's BATCH takes hundreds. The protocol is a few lines of text
// and has been stable since rrdcached exists.
//
// Creating files, and updating them while rrdcached is away, is librrd's work,
// through cgo (librrd.go): the file format is its own business. Of librrd only
// the functions that rrd.h calls thread-safe are used, and each call fetches its
// error text on the same thread, where librrd keeps it. librrd trusts a file's
// header, and one that is damaged makes it divide by zero or write out of bounds;
// and it maps files into memory, where a page that the disk has no room for is a
// SIGBUS. Either would end the process, so files.go lets librrd have a file only
// after its header was checked (header.go) and an update needs no room.
//
// A file that will never take a sample again (empty after a power cut, damaged, or with
// a last sample of the future) is set aside as NAME.damaged, and begun anew.
//
// # Validation
//
// Keys and values come from peers. A key must have one of the known shapes, and
// its parts must be plain names, so no key can lead out of the directory or into
// another command of rrdcached's protocol. Columns must be numbers: a single
// column that is not a number makes rrdcached lose all samples that it has collected for
// the file.
package rrd
