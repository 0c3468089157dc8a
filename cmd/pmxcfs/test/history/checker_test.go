package history

import (
	"testing"
	"time"
)

// story tells a history in which the calls follow one another, a second each.
func story(ops ...op) *history {
	h := &history{initial: map[string]string{"f": "0"}, present: map[string]bool{}}
	for i, o := range ops {
		if o.ret == 0 {
			o.call = time.Duration(i+1) * time.Second
			o.ret = o.call + time.Second/2
		}
		h.ops = append(h.ops, o)
	}
	return h
}

func w(node int, value string) op { return op{kind: write, node: node, path: "f", value: value} }
func r(node int, value string) op { return op{kind: read, node: node, path: "f", value: value} }
func g(node int, value string) op { return op{kind: guarded, node: node, path: "f", value: value} }
func end(node int, value string) op {
	return op{kind: final, node: node, path: "f", value: value}
}
func get(client int) op { return op{kind: acquire, node: client, client: client, path: "l"} }
func put(client int) op { return op{kind: release, node: client, client: client, path: "l"} }
func made(node int, name string) op {
	return op{kind: create, node: node, path: "set", value: name}
}
func failed(o op) op { o.failed = true; return o }
func at(call, ret time.Duration, o op) op {
	o.call, o.ret = call*time.Second, ret*time.Second
	return o
}

func (h *history) with(w ...window) *history { h.windows = append(h.windows, w...); return h }
func (h *history) has(names ...string) *history {
	for _, n := range names {
		h.present[n] = true
	}
	return h
}

func TestCheckerTellsPossibleFromImpossible(t *testing.T) {
	alone := window{node: 1, from: 0, to: 10 * time.Second, alone: true}
	killed := window{node: 1, from: 2900 * time.Millisecond, to: 10 * time.Second, killed: true}
	const possible, excused, impossible = "possible", "excused", "impossible"
	for name, c := range map[string]struct {
		h    *history
		want string
	}{
		"nothing happens":                 {story(r(1, "0"), end(2, "0")), possible},
		"a write is read":                 {story(w(1, "1"), r(1, "1"), end(2, "1")), possible},
		"another node is behind":          {story(w(1, "1"), r(2, "0"), r(2, "1"), end(2, "1")), possible},
		"a write is lost":                 {story(w(1, "1"), end(2, "0")), impossible},
		"the last write is lost":          {story(w(1, "1"), w(2, "2"), end(3, "1")), impossible},
		"the writer is behind":            {story(w(1, "1"), r(1, "0"), end(2, "1")), impossible},
		"a reader goes back":              {story(w(1, "1"), w(1, "2"), r(2, "2"), r(2, "1"), end(2, "2")), impossible},
		"a reader goes back to the first": {story(w(1, "1"), r(2, "1"), r(2, "0"), end(2, "1")), impossible},
		"two readers differ in order": {story(at(1, 9, w(1, "1")), at(1, 9, w(2, "2")),
			at(2, 3, r(1, "1")), at(4, 5, r(1, "2")), at(2, 3, r(2, "2")), at(4, 5, r(2, "1"))), impossible},
		"a reader sees two at once come and go": {story(at(1, 9, w(1, "1")), at(1, 9, w(2, "2")),
			at(2, 3, r(3, "1")), at(4, 5, r(3, "2")), at(6, 7, r(3, "1"))), impossible},
		"a reader sees two at once":            {story(at(1, 9, w(1, "1")), at(1, 9, w(2, "2")), at(2, 3, r(3, "1")), at(4, 5, r(3, "2")), at(10, 11, end(3, "2"))), possible},
		"what nobody wrote":                    {story(w(1, "1"), r(2, "x")), impossible},
		"an empty file":                        {story(w(1, "1"), r(2, "")), impossible},
		"an empty file after a failure":        {story(failed(w(1, "1")), r(2, ""), r(2, "0")), possible},
		"what is not written yet":              {story(r(2, "1"), w(1, "1")), impossible},
		"a failed write is not there":          {story(failed(w(1, "1")), r(1, "0"), end(2, "0")), possible},
		"a failed write comes later":           {story(failed(w(1, "1")), r(2, "0"), r(2, "1"), end(1, "1")), possible},
		"a failed write comes and goes":        {story(failed(w(1, "1")), r(2, "1"), end(1, "0")), impossible},
		"nodes differ at the end":              {story(failed(w(1, "1")), end(1, "1"), end(2, "0")), impossible},
		"a write of a cut node is lost":        {story(w(1, "1"), r(1, "1"), w(2, "2"), r(1, "2"), end(2, "2")).with(alone), possible},
		"the last write of a cut node":         {story(w(1, "1"), r(1, "1"), end(1, "0"), end(2, "0")).with(alone), excused},
		"it was shown elsewhere":               {story(w(1, "1"), r(2, "1"), end(1, "0"), end(2, "0")).with(alone), impossible},
		"it was another node that was cut":     {story(w(2, "1"), r(2, "1"), end(1, "0"), end(2, "0")).with(alone), impossible},
		"a killed node is behind, then synced": {story(w(2, "1"), r(1, "1"), r(1, "0"), r(1, "1"), end(1, "1")).with(killed), possible},
		"a killed node goes back twice":        {story(w(2, "1"), r(1, "1"), r(1, "1"), r(1, "0"), end(1, "1")).with(killed), impossible},
		"a killed node is synced and behind":   {story(w(2, "1"), r(1, "1"), at(11, 12, r(1, "0")), at(13, 14, end(1, "1"))).with(killed), impossible},
		"a holder sees the one before":         {story(w(1, "1"), g(2, "1"), end(1, "1")), possible},
		"a holder is behind":                   {story(w(1, "1"), g(2, "0"), end(1, "1")), impossible},
		"a lock goes round":                    {story(get(1), put(1), get(2), put(2), get(1)), possible},
		"a lock is held twice":                 {story(get(1), get(2)), impossible},
		"a lock is held twice at once":         {story(at(1, 5, get(1)), at(2, 4, get(2)), at(6, 7, put(1)), at(6, 7, put(2))), impossible},
		"it is got before it is given back":    {story(get(1), at(3, 4, get(2)), at(5, 6, put(1))), impossible},
		"it may have been given back":          {story(get(1), failed(put(1)), get(2)), possible},
		"it was given back once":               {story(get(1), failed(put(1)), get(2), get(3)), impossible},
		"who failed to get it may have it":     {story(failed(get(1)), get(2), put(2)), possible},
		"a lock is given back by another":      {story(get(1), put(2)), impossible},
		"a cut node got a lock alone":          {story(get(1), get(2)).with(alone), excused},
		"a created entry is lost":              {story(made(2, "a"), made(2, "b")).has("b"), impossible},
		"a created entry of a cut node":        {story(made(1, "a")).with(alone), excused},
		"a failed creation":                    {story(failed(made(2, "a"))), possible},
	} {
		t.Run(name, func(t *testing.T) {
			v := c.h.check()
			got := possible
			switch {
			case len(v.violations) > 0:
				got = impossible
			case len(v.excused) > 0:
				got = excused
			}
			if got != c.want {
				t.Errorf("the checker finds it %s, want %s: %q %q", got, c.want, v.violations, v.excused)
			}
		})
	}
}
