package rrd

/*
// rrd_format.h, which rrd.h then includes, has the layout of the files.
#define RRD_EXPORT_DEPRECATED
#include <rrd.h>
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unsafe"
)

// Errors about an RRD file's header.
var (
	// ErrDamaged is wrapped by the error about one that does not make sense.
	ErrDamaged = errors.New("rrd: damaged file")
	// ErrFuture is wrapped by the error about a file that takes no sample, because its
	// last one is of the future.
	ErrFuture = errors.New("rrd: a file with samples of the future")
	// ErrUnsupported is wrapped by the error about a file that may be sound, but has what
	// ours never have.
	ErrUnsupported = errors.New("rrd: a file that is none of ours")
)

// Bounds of what a sane file has; ours have 19 data sources, 8 archives and 1440
// rows of 10,080 steps at most.
const (
	maxSources  = 256
	maxArchives = 64
	maxRows     = 1 << 24
	maxSteps    = 1 << 24
	maxStep     = 366 * 24 * 60 * 60 // seconds
	// maxFuture is how far ahead of our clock a file's last update may be: a file that is
	// not further ahead takes samples again soon.
	maxFuture = 10 * time.Minute
)

// checkHeader looks through the header of an RRD file of size bytes
// (rrd_format.h has its layout). librrd trusts what it finds there: a zero makes
// it divide by it, a row beyond the end makes it write there, and either ends the
// process. So whatever it computes with is checked to be in bounds before it may
// have the file. The error wraps one of those above, or is one of reading.
func checkHeader(f io.ReaderAt, size int64, now time.Time) error {
	damaged := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
	}
	unsupported := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
	}

	var head C.stat_head_t
	if err := readArray(f, 0, (*[1]C.stat_head_t)(unsafe.Pointer(&head))[:]); err != nil {
		return err
	}
	switch version := text(head.version[:]); {
	case text(head.cookie[:]) != C.RRD_COOKIE, head.float_cookie != C.FLOAT_COOKIE:
		return damaged("not an RRD file")
	case version != C.RRD_VERSION3 && version != C.RRD_VERSION4 && version != C.RRD_VERSION5:
		if digits(version, 4) {
			return unsupported("of version %s", version)
		}
		return damaged("not an RRD file")
	case head.ds_cnt < 1 || head.ds_cnt > maxSources, head.rra_cnt < 1 || head.rra_cnt > maxArchives:
		return damaged("%d data sources, %d archives", head.ds_cnt, head.rra_cnt)
	case head.pdp_step < 1 || head.pdp_step > maxStep:
		return damaged("a step of %d s", head.pdp_step)
	}

	sources := make([]C.ds_def_t, head.ds_cnt)
	archives := make([]C.rra_def_t, head.rra_cnt)
	live := make([]C.live_head_t, 1)
	pdps := make([]C.pdp_prep_t, head.ds_cnt)
	cdps := make([]C.cdp_prep_t, head.ds_cnt*head.rra_cnt)
	rows := make([]C.rra_ptr_t, head.rra_cnt)
	at := int64(C.sizeof_stat_head_t)
	for _, read := range []func() error{
		func() error { return readNext(f, &at, sources) },
		func() error { return readNext(f, &at, archives) },
		func() error { return readNext(f, &at, live) },
		func() error { return readNext(f, &at, pdps) },
		func() error { return readNext(f, &at, cdps) },
		func() error { return readNext(f, &at, rows) },
	} {
		if err := read(); err != nil {
			return err
		}
	}

	for i := range sources {
		switch typ := text(sources[i].dst[:]); {
		case text(sources[i].ds_nam[:]) == "" || !word(typ):
			return damaged("data source %d", i)
		case !slices.Contains([]string{"GAUGE", "DERIVE", "COUNTER", "ABSOLUTE", "DDERIVE", "DCOUNTER"}, typ):
			return unsupported("data source %d is a %s", i, typ)
		}
		unknown := *(*C.ulong)(unsafe.Pointer(&pdps[i].scratch[C.PDP_unkn_sec_cnt]))
		if !bytes.ContainsRune(chars(pdps[i].last_ds[:]), 0) || unknown > head.pdp_step {
			return damaged("state of data source %d", i)
		}
	}
	need := at
	for i, a := range archives {
		function := text(a.cf_nam[:])
		if word(function) && !slices.Contains([]string{"AVERAGE", "MAX", "MIN", "LAST"}, function) {
			return unsupported("archive %d is a %s", i, function)
		}
		if !word(function) || a.row_cnt < 1 || a.row_cnt > maxRows || a.pdp_cnt < 1 || a.pdp_cnt > maxSteps || rows[i].cur_row >= a.row_cnt {
			return damaged("archive %d", i)
		}
		for k := range sources {
			cdp := &cdps[i*len(sources)+k]
			if *(*C.ulong)(unsafe.Pointer(&cdp.scratch[C.CDP_unkn_pdp_cnt])) > a.pdp_cnt {
				return damaged("state of archive %d", i)
			}
		}
		need += int64(a.row_cnt) * int64(head.ds_cnt) * 8
	}
	if size < need {
		return damaged("%d bytes, %d are missing", size, need-size)
	}
	switch last := int64(live[0].last_up); {
	case last < 0 || live[0].last_up_usec < 0 || live[0].last_up_usec >= 1e6:
		return damaged("last update at %d", last)
	case last > now.Add(maxFuture).Unix():
		return fmt.Errorf("%w: last update %s", ErrFuture, time.Unix(last, 0).UTC().Format(time.RFC3339))
	}
	return nil
}

// word tells whether s could be the name of a type or a function of librrd.
func word(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') })
}

// readNext reads what comes at offset at into list, and moves at behind it.
func readNext[T any](f io.ReaderAt, at *int64, list []T) error {
	err := readArray(f, *at, list)
	*at += int64(len(list)) * int64(unsafe.Sizeof(list[0]))
	return err
}

// readArray reads C structures, which have neither pointers nor invalid values.
func readArray[T any](f io.ReaderAt, at int64, list []T) error {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&list[0])), uintptr(len(list))*unsafe.Sizeof(list[0]))
	_, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: its header ends early", ErrDamaged)
	}
	return err
}

// text is a string in an array of chars, or empty if it does not end in it.
func text(array []C.char) string {
	s, _, ok := bytes.Cut(chars(array), []byte{0})
	if !ok {
		return ""
	}
	return string(s)
}

func chars(array []C.char) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&array[0])), len(array))
}
