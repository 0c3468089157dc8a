package rrd

/*
#cgo pkg-config: librrd
#include <rrd.h>
#include <stdlib.h>
#include <string.h>

// librrd keeps the text of an error per thread. Each wrapper therefore does its
// call and fetches the text in one go: a cgo call stays on its thread, the
// next one may be on another. err is cut to size and ends in a NUL.
static int take_error(int failed, char *err, size_t size)
{
	if (failed) {
		strncpy(err, rrd_test_error() ? rrd_get_error() : "unknown error", size - 1);
		err[size - 1] = '\0';
		rrd_clear_error();
	}
	return failed;
}

static int create_file(const char *path, unsigned long step, time_t start,
		       int argc, const char **argv, char *err, size_t size)
{
	rrd_clear_error();
	return take_error(rrd_create_r2(path, step, start, 1, NULL, NULL, argc, argv) != 0, err, size);
}

static int update_file(const char *path, const char *sample, char *err, size_t size)
{
	rrd_clear_error();
	return take_error(rrd_update_r(path, NULL, 1, &sample) != 0, err, size);
}
*/
import "C"

import (
	"time"
	"unsafe"
)

// LibraryError is what librrd says about a call that failed. Its text is for
// people: librrd has no error codes.
type LibraryError struct {
	Text string
}

func (e *LibraryError) Error() string { return "librrd: " + e.Text }

// librrd works on RRD files directly. It uses only the functions that rrd.h
// calls thread-safe, and of rrd_update_r only what is: times in digits. Calls
// on different files may run at the same time.
type librrd struct{}

// create makes the RRD file path, which must not exist, with definitions of
// data sources and archives as rrdcreate(1) has them. The file's last update is
// start. C: int rrd_create_r2(const char *filename, unsigned long pdp_step,
// time_t last_up, int no_overwrite, const char **sources, const char *template,
// int argc, const char **argv).
func (librrd) create(path string, step time.Duration, start time.Time, definitions []string) error {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	argv := (*[1 << 16]*C.char)(C.calloc(C.size_t(len(definitions)+1), C.size_t(unsafe.Sizeof(cpath))))
	defer C.free(unsafe.Pointer(argv))
	for i, d := range definitions {
		argv[i] = C.CString(d)
		defer C.free(unsafe.Pointer(argv[i]))
	}
	var text [errorSize]C.char
	if C.create_file(cpath, C.ulong(step/time.Second), C.time_t(start.Unix()),
		C.int(len(definitions)), &argv[0], &text[0], errorSize) != 0 {
		return &LibraryError{C.GoString(&text[0])}
	}
	return nil
}

// update adds one sample (seconds since 1970, then one value for each data
// source, separated by colons) to the RRD file path. C: int rrd_update_r(const
// char *filename, const char *template, int argc, const char **argv).
func (librrd) update(path, sample string) error {
	cpath, csample := C.CString(path), C.CString(sample)
	defer C.free(unsafe.Pointer(cpath))
	defer C.free(unsafe.Pointer(csample))
	var text [errorSize]C.char
	if C.update_file(cpath, csample, &text[0], errorSize) != 0 {
		return &LibraryError{C.GoString(&text[0])}
	}
	return nil
}

// errorSize is the size in bytes of librrd's own buffer for an error's text.
const errorSize = 4096
