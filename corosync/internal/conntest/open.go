package conntest

import (
	"errors"
	"time"

	"pmxcfs/corosync"
)

// patience is how long a corosync may be busy: for a machine under load.
const patience = 30 * time.Second

// Retry calls f again while corosync says so.
func Retry(f func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // what the libraries ask for
		if err := f(); !errors.Is(err, corosync.ErrTryAgain) || time.Now().After(deadline) {
			return err
		}
	}
}

// Open opens a connection by open, again while corosync says so.
func Open[C any](open func() (C, error)) (c C, err error) {
	err = Retry(func() (err error) { c, err = open(); return err })
	return c, err
}
