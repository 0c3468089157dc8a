package cmap

// #cgo pkg-config: libcmap libcorosync_common
// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"errors"
	"runtime/cgo"
	"strings"
	"time"
	"unsafe"

	"pmxcfs/corosync"
	"pmxcfs/corosync/internal/session"
)

// Forever is the timeout of a Next that waits for as long as it takes.
const Forever = session.Forever

// Conn is a connection to corosync's cmap service. All methods but Next may be
// called from any goroutine.
type Conn struct {
	session *session.Session
	handle  C.cmap_handle_t
	self    cgo.Handle // of this Conn: the user data of its tracks

	// Only the goroutine in Next, and the callbacks in its dispatch:
	batch []Event
}

// Open connects. The caller owes a Close. ErrConnectionLost: no corosync runs;
// ErrTryAgain: it isn't ready.
//
//	cs_error_t cmap_initialize(cmap_handle_t *handle);
func Open() (*Conn, error) {
	c := &Conn{}
	if err := session.Err("cmap_initialize", code(C.cmap_initialize(&c.handle))); err != nil {
		return nil, err
	}
	var fd C.int
	err := session.Err("cmap_fd_get", code(C.cmap_fd_get(c.handle, &fd)))
	if err == nil {
		c.session, err = session.New(int(fd))
	}
	if err != nil {
		C.cmap_finalize(c.handle)
		return nil, err
	}
	c.self = cgo.NewHandle(c)
	return c, nil
}

// Close ends a running Next, which returns ErrClosed, and disconnects. Closing
// again does nothing.
//
//	cs_error_t cmap_finalize(cmap_handle_t handle);
func (c *Conn) Close() error {
	return c.session.Close("cmap_finalize", func() corosync.Code {
		defer c.self.Delete()
		return code(C.cmap_finalize(c.handle))
	})
}

// Get gives the value of a key. ErrNotExist: there is no such key.
//
//	cs_error_t cmap_get(cmap_handle_t handle, const char *key_name, void *value, size_t *value_len, cmap_value_types_t *type);
func (c *Conn) Get(key string) (Value, error) {
	name, err := cKey("cmap_get", key)
	if err != nil {
		return Value{}, err
	}
	defer C.free(unsafe.Pointer(name))
	var v Value
	err = c.session.Call("cmap_get", func() corosync.Code {
		for room := 256; ; {
			buf := make([]byte, room)
			n := C.size_t(room)
			var t C.cmap_value_types_t
			got := code(C.cmap_get(c.handle, name, unsafe.Pointer(&buf[0]), &n, &t))
			if got == corosync.ErrInvalidParam {
				// Too long, or wrong otherwise: ask for the length alone. It
				// may grow in between.
				if got = code(C.cmap_get(c.handle, name, nil, &n, &t)); got == corosync.OK && int(n) > room {
					room = int(n)
					continue
				}
				if got == corosync.OK {
					got = corosync.ErrInvalidParam
				}
			}
			if got != corosync.OK {
				return got
			}
			var fits bool
			if v, fits = decode(Type(t), buf[:min(int(n), room)]); !fits {
				return corosync.ErrMessage
			}
			return corosync.OK
		}
	})
	return v, err
}

// Keys lists the keys that begin with prefix, "" for all, in order of bytes.
//
//	cs_error_t cmap_iter_init(cmap_handle_t handle, const char *prefix, cmap_iter_handle_t *cmap_iter_handle);
//	cs_error_t cmap_iter_next(cmap_handle_t handle, cmap_iter_handle_t iter_handle, char key_name[], size_t *value_len, cmap_value_types_t *type);
//	cs_error_t cmap_iter_finalize(cmap_handle_t handle, cmap_iter_handle_t iter_handle);
func (c *Conn) Keys(prefix string) ([]string, error) {
	var cPrefix *C.char // NULL: all
	if prefix != "" {
		var err error
		if cPrefix, err = cKey("cmap_iter_init", prefix); err != nil {
			return nil, err
		}
		defer C.free(unsafe.Pointer(cPrefix))
	}
	var iter C.cmap_iter_handle_t
	err := c.session.Call("cmap_iter_init", func() corosync.Code {
		return code(C.cmap_iter_init(c.handle, cPrefix, &iter))
	})
	if err != nil {
		return nil, err
	}
	var keys []string
	err = c.session.Call("cmap_iter_next", func() corosync.Code {
		defer C.cmap_iter_finalize(c.handle, iter)
		var name [C.CMAP_KEYNAME_MAXLEN + 1]C.char
		for {
			switch got := code(C.cmap_iter_next(c.handle, iter, &name[0], nil, nil)); got {
			case corosync.OK:
				keys = append(keys, C.GoString(&name[0]))
			case corosync.ErrNoSections:
				return corosync.OK
			default:
				return got
			}
		}
	})
	return keys, err
}

// List lists the keys that begin with prefix with their values. A key that goes
// away meanwhile may be missing; there is no moment at which all this was so.
func (c *Conn) List(prefix string) ([]Entry, error) {
	keys, err := c.Keys(prefix)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(keys))
	for _, key := range keys {
		v, err := c.Get(key)
		if errors.Is(err, corosync.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, Entry{Key: key, Value: v})
	}
	return entries, nil
}

// Track asks for an event for each of these happenings to a key. Corosync
// knows no value of before for some changes of its own: Old is none then.
//
//	cs_error_t cmap_track_add(cmap_handle_t handle, const char *key_name, int32_t track_type, cmap_notify_fn_t notify_fn, void *user_data, cmap_track_handle_t *cmap_track_handle);
func (c *Conn) Track(key string, ops Op) (TrackID, error) {
	return c.track(key, C.int32_t(ops&OpAll))
}

// TrackPrefix is Track for all keys that begin with prefix, also those to come.
func (c *Conn) TrackPrefix(prefix string, ops Op) (TrackID, error) {
	return c.track(prefix, C.int32_t(ops&OpAll)|C.CMAP_TRACK_PREFIX)
}

func (c *Conn) track(key string, flags C.int32_t) (TrackID, error) {
	name, err := cKey("cmap_track_add", key)
	if err != nil {
		return 0, err
	}
	defer C.free(unsafe.Pointer(name))
	var id C.cmap_track_handle_t
	err = c.session.Call("cmap_track_add", func() corosync.Code {
		return code(C.pmx_cmap_track_add(c.handle, name, flags, C.uintptr_t(c.self), &id))
	})
	return TrackID(id), err
}

// Untrack ends a Track. Events that are on their way may still come.
//
//	cs_error_t cmap_track_delete(cmap_handle_t handle, cmap_track_handle_t track_handle);
func (c *Conn) Untrack(id TrackID) error {
	return c.session.Call("cmap_track_delete", func() corosync.Code {
		return code(C.cmap_track_delete(c.handle, C.cmap_track_handle_t(id)))
	})
}

// Next waits for events of tracked keys and appends those that have come to
// into, in their order. It is for one goroutine, the connection's owner.
// timeout < 0 waits forever, 0 not at all. Without an error there may be no
// event: at the timeout, or after a Wake.
//
//	cs_error_t cmap_dispatch(cmap_handle_t handle, cs_dispatch_flags_t dispatch_types);
func (c *Conn) Next(into []Event, timeout time.Duration) ([]Event, error) {
	c.batch = into
	err := c.session.Next(timeout, "cmap_dispatch", func() corosync.Code {
		return code(C.cmap_dispatch(c.handle, C.CS_DISPATCH_ALL))
	})
	into, c.batch = c.batch, nil
	return into, err
}

// Wake makes the Next that waits now, or else the next one, return at once.
func (c *Conn) Wake() { c.session.Wake() }

// cKey gives a key as a C string, which the caller frees.
func cKey(op, key string) (*C.char, error) {
	if key == "" || strings.IndexByte(key, 0) >= 0 {
		return nil, &corosync.Error{Op: op, Code: corosync.ErrInvalidParam}
	}
	if len(key) > C.CMAP_KEYNAME_MAXLEN {
		return nil, &corosync.Error{Op: op, Code: corosync.ErrNameTooLong}
	}
	return C.CString(key), nil
}

func code(c C.cs_error_t) corosync.Code { return corosync.Code(c) }
