package rrd

import (
	"log/slog"
	"strings"
	"time"
)

// maxTroubles bounds how many keys' troubles are remembered. While there are
// more, those of further keys go unlogged.
const maxTroubles = 1000

// troubleKeptFor is after which time without the trouble it counts as new.
const troubleKeptFor = time.Hour

// troubles logs what goes wrong once, and again when it changes. It is for one
// goroutine.
type troubles struct {
	log  *slog.Logger
	now  func() time.Time
	open map[string]trouble // by scope
	full bool               // was logged
}

type trouble struct {
	text string
	seen time.Time
}

// set notes that scope has trouble err, and logs msg with attrs if it did not
// have that trouble before. Whether it is the same is told by kind.
func (t *troubles) set(scope, msg string, kind, err error, attrs ...any) {
	now := t.now()
	text := squash(kind.Error())
	known, ok := t.open[scope]
	if !ok && len(t.open) >= maxTroubles {
		for s, old := range t.open {
			if now.Sub(old.seen) > troubleKeptFor {
				delete(t.open, s)
			}
		}
		if len(t.open) >= maxTroubles {
			if !t.full {
				t.full = true
				t.log.Warn("RRD: trouble with further keys is not logged", "keys", maxTroubles)
			}
			return
		}
		t.full = false
	}
	t.open[scope] = trouble{text, now}
	if !ok || known.text != text || now.Sub(known.seen) > troubleKeptFor {
		t.log.Warn(msg, append(attrs, "error", err)...)
	}
}

// clear notes that scope has no trouble, and logs msg if it had.
func (t *troubles) clear(scope, msg string, attrs ...any) {
	if _, ok := t.open[scope]; ok {
		delete(t.open, scope)
		t.log.Info(msg, attrs...)
	}
}

// squash takes the digits out of an error's text, for times and counts in it do
// not make it another error.
func squash(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}
