package rrd

/*
#cgo LDFLAGS: -ldl
#cgo pkg-config: --cflags librrd
#define RRD_EXPORT_DEPRECATED
#include <rrd.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The library is loaded when it is first needed, which it is not while rrdcached
// runs: it brings fifty others along, for graphs, and eight megabytes.
#define LIBRRD "librrd.so.8"

// The part of it that is used; checked against rrd.h.
static __typeof__(rrd_test_error) *test_error;
static __typeof__(rrd_get_error) *get_error;
static __typeof__(rrd_clear_error) *clear_error;
static __typeof__(rrd_create_r2) *create_r2;
static __typeof__(rrd_update_r) *update_r;

// load_librrd loads the library. err is cut to size and ends in a NUL.
static int load_librrd(char *err, size_t size)
{
	void *lib = dlopen(LIBRRD, RTLD_NOW | RTLD_LOCAL);
	if (lib != NULL) {
		test_error = dlsym(lib, "rrd_test_error");
		get_error = dlsym(lib, "rrd_get_error");
		clear_error = dlsym(lib, "rrd_clear_error");
		create_r2 = dlsym(lib, "rrd_create_r2");
		update_r = dlsym(lib, "rrd_update_r");
		if (test_error && get_error && clear_error && create_r2 && update_r)
			return 0;
	}
	const char *why = dlerror();
	snprintf(err, size, "%s", why ? why : LIBRRD " lacks a function");
	return -1;
}

// librrd keeps the text of an error per thread. Each wrapper therefore does its
// call and fetches the text in one go: a cgo call stays on its thread, the
// next one may be on another. err is cut to size and ends in a NUL.
static int take_error(int failed, char *err, size_t size)
{
	if (failed) {
		strncpy(err, test_error() ? get_error() : "unknown error", size - 1);
		err[size - 1] = '\0';
		clear_error();
	}
	return failed;
}

static int create_file(const char *path, unsigned long step, time_t start,
		       int argc, const char **argv, char *err, size_t size)
{
	clear_error();
	return take_error(create_r2(path, step, start, 1, NULL, NULL, argc, argv) != 0, err, size);
}

static int update_file(const char *path, const char *sample, char *err, size_t size)
{
	clear_error();
	return take_error(update_r(path, NULL, 1, &sample) != 0, err, size);
}
*/
import "C"

import (
	"sync"
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

// load loads the library.
var load = sync.OnceValue(func() error {
	var text [errorSize]C.char
	if C.load_librrd(&text[0], errorSize) != 0 {
		return &LibraryError{C.GoString(&text[0])}
	}
	return nil
})

// create makes the RRD file path, which must not exist, with definitions of
// data sources and archives as rrdcreate(1) has them. The file's last update is
// start. C: int rrd_create_r2(const char *filename, unsigned long pdp_step,
// time_t last_up, int no_overwrite, const char **sources, const char *template,
// int argc, const char **argv).
func (librrd) create(path string, step time.Duration, start time.Time, definitions []string) error {
	if err := load(); err != nil {
		return err
	}
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
	if err := load(); err != nil {
		return err
	}
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
