package corosync

import (
	"errors"
	"fmt"
)

// Code is a cs_error_t other than CS_OK, and an error by itself: errors.Is(err,
// corosync.ErrTryAgain) tells whether err is or wraps that code. corotypes.h.
type Code uint32

// OK is the code of success. It is no error: nothing here returns it as one.
const OK Code = 1

// The codes of corotypes.h.
const (
	ErrLibrary           Code = 2
	ErrVersion           Code = 3
	ErrInit              Code = 4
	ErrTimeout           Code = 5
	ErrTryAgain          Code = 6
	ErrInvalidParam      Code = 7
	ErrNoMemory          Code = 8
	ErrBadHandle         Code = 9
	ErrBusy              Code = 10
	ErrAccess            Code = 11
	ErrNotExist          Code = 12
	ErrNameTooLong       Code = 13
	ErrExist             Code = 14
	ErrNoSpace           Code = 15
	ErrInterrupt         Code = 16
	ErrNameNotFound      Code = 17
	ErrNoResources       Code = 18
	ErrNotSupported      Code = 19
	ErrBadOperation      Code = 20
	ErrFailedOperation   Code = 21
	ErrMessage           Code = 22
	ErrQueueFull         Code = 23
	ErrQueueNotAvailable Code = 24
	ErrBadFlags          Code = 25
	ErrTooBig            Code = 26
	ErrNoSections        Code = 27
	ErrContextNotFound   Code = 28
	ErrTooManyGroups     Code = 30
	ErrSecurity          Code = 100
)

// Error says what the code means, in corosync's terms.
func (c Code) Error() string {
	if text := c.text(); text != "" {
		return text
	}
	return fmt.Sprintf("unknown error %d", uint32(c))
}

func (c Code) text() string {
	switch c {
	case OK:
		return "success"
	case ErrLibrary:
		return "library error (is corosync running?)"
	case ErrVersion:
		return "version mismatch"
	case ErrInit:
		return "initialisation failed"
	case ErrTimeout:
		return "timeout"
	case ErrTryAgain:
		return "try again"
	case ErrInvalidParam:
		return "invalid parameter"
	case ErrNoMemory:
		return "out of memory"
	case ErrBadHandle:
		return "bad handle"
	case ErrBusy:
		return "busy"
	case ErrAccess:
		return "access denied"
	case ErrNotExist:
		return "does not exist"
	case ErrNameTooLong:
		return "name too long"
	case ErrExist:
		return "exists"
	case ErrNoSpace:
		return "no space"
	case ErrInterrupt:
		return "interrupted"
	case ErrNameNotFound:
		return "name not found"
	case ErrNoResources:
		return "no resources"
	case ErrNotSupported:
		return "not supported"
	case ErrBadOperation:
		return "bad operation"
	case ErrFailedOperation:
		return "failed operation"
	case ErrMessage:
		return "message error"
	case ErrQueueFull:
		return "queue full"
	case ErrQueueNotAvailable:
		return "queue not available"
	case ErrBadFlags:
		return "bad flags"
	case ErrTooBig:
		return "too big"
	case ErrNoSections:
		return "no sections"
	case ErrContextNotFound:
		return "context not found"
	case ErrTooManyGroups:
		return "too many groups"
	case ErrSecurity:
		return "security error"
	}
	return ""
}

// Error is a failed call of a corosync library.
type Error struct {
	Op   string // the C function, "cpg_join"
	Code Code
}

func (e *Error) Error() string { return e.Op + ": " + e.Code.Error() }

// Unwrap gives the code, for errors.Is.
func (e *Error) Unwrap() error { return e.Code }

var (
	// ErrConnectionLost means that corosync is gone, or was never there: the
	// connection is of no more use. It wraps the code that told, if one did.
	ErrConnectionLost = errors.New("corosync: connection lost")

	// ErrClosed means that the caller has closed the connection.
	ErrClosed = errors.New("corosync: connection closed")
)
