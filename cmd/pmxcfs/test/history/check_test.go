package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkTime is how long one path may take to check.
const checkTime = 30 * time.Second

// verdict is what is to be said of a history.
type verdict struct {
	violations []string
	excused    []string // what only the limits of agreed delivery explain
}

// check judges a history by the rules of the package.
func (h *history) check() (v verdict) {
	paths := map[string][]op{}
	locks := map[string]bool{}
	for _, o := range h.ops {
		if o.kind == create {
			h.checkCreated(o, &v)
			continue
		}
		paths[o.path] = append(paths[o.path], o)
		if o.kind == acquire {
			locks[o.path] = true
		}
	}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		ops := paths[path]
		judge := h.checkFile
		if locks[path] {
			judge = h.checkLock
		}
		problem := judge(path, ops, false)
		if problem == "" {
			continue
		}
		if judge(path, ops, true) == "" {
			v.excused = append(v.excused, problem)
		} else {
			v.violations = append(v.violations, problem)
		}
	}
	return v
}

func (h *history) checkCreated(o op, v *verdict) {
	switch {
	case o.failed || h.present[o.value]:
	case h.alone(o):
		v.excused = append(v.excused, "lost: "+o.String())
	default:
		v.violations = append(v.violations, "lost: "+o.String())
	}
}

// step is an op as the model of a file takes it.
type step struct {
	kind   kind
	value  string
	reader int // whose reads may not go back
}

// own is a step of the time at which a write returned: from now on the node
// shows it or something later.
const own kind = "own"

// checkFile judges what was done to one file. lenient: what may have reached no
// other node and was shown by none may not have happened.
func (h *history) checkFile(path string, ops []op, lenient bool) string {
	first := h.initial[path]
	writes := map[string]*op{}
	for i := range ops {
		if o := ops[i]; o.kind == write {
			if writes[o.value] != nil || o.value == first {
				return fmt.Sprintf("%s: written twice: %v", path, o)
			}
			writes[o.value] = &o
		}
	}
	// What was read, by whom, and when it was known at the latest.
	type sight struct {
		at     time.Duration
		others bool
	}
	seen := map[string]sight{}
	for _, o := range ops {
		if o.kind == write || o.value == first {
			continue
		}
		w := writes[o.value]
		switch {
		case w == nil && o.value == "" && failedBefore(ops, o.ret):
			continue // it had truncated and not yet written when it failed
		case w == nil:
			return fmt.Sprintf("%s: nobody wrote what is read: %v", path, o)
		case w.call > o.ret:
			return fmt.Sprintf("%s: read before it was written: %v\n%v", path, *w, o)
		}
		s, ok := seen[o.value]
		if !ok || o.ret < s.at {
			s.at = o.ret
		}
		s.others = s.others || o.node != w.node
		seen[o.value] = s
	}
	dropped := func(value string) bool {
		w := writes[value]
		if w == nil {
			return value != first // truncated by who then failed
		}
		s, ok := seen[value]
		return w.failed && !ok || lenient && !s.others && h.alone(*w)
	}

	readers := map[string]int{}
	reader := func(name string) int {
		if _, ok := readers[name]; !ok {
			readers[name] = len(readers)
		}
		return readers[name]
	}
	var steps []porcupine.Operation
	var ordered []op // the same as ops, for the messages
	add := func(o op, s step) {
		steps = append(steps, porcupine.Operation{ClientId: o.client, Input: s, Call: int64(o.call), Return: int64(o.ret)})
		ordered = append(ordered, o)
	}
	for _, o := range ops {
		if dropped(o.value) {
			continue
		}
		name, full := h.reader(o)
		r := reader(name)
		switch o.kind {
		case write:
			if s, ok := seen[o.value]; o.failed && ok {
				o.ret = max(o.call, s.at)
			}
			add(o, step{kind: write, value: o.value})
			if !o.failed {
				o.call, o.ret = o.ret+1, o.ret+1
				o.kind = own
				add(o, step{kind: own, value: o.value, reader: r})
			}
		case guarded:
			k := guarded
			if !full || lenient && h.alone(o) {
				k = read
			}
			add(o, step{kind: k, value: o.value, reader: r})
		default:
			add(o, step{kind: o.kind, value: o.value, reader: r})
		}
	}
	if problem := backwards(steps, ordered, first); problem != "" {
		return path + ": " + problem
	}
	model := fileModel(first, len(readers))
	return explain(path, model, steps, ordered)
}

// failedBefore tells whether a write that had begun by then has failed.
func failedBefore(ops []op, at time.Duration) bool {
	return slices.ContainsFunc(ops, func(o op) bool { return o.kind == write && o.failed && o.call <= at })
}

// reader names the one whose reads go forward that a call belongs to, and tells
// whether it shows all that the node has ever shown.
func (h *history) reader(o op) (name string, full bool) {
	name = fmt.Sprint("node", o.node)
	for i, w := range h.windows {
		if !w.killed || !w.overlaps(o) {
			continue
		}
		if o.call < w.from { // served before the kill or after: nobody knows
			return fmt.Sprint(name, " at ", o.call), false
		}
		return fmt.Sprint(name, " after kill ", i), false
	}
	return name, true
}

// backwards finds a reader that was shown something older than before, by real
// time alone: the later write began after the older one was known.
func backwards(steps []porcupine.Operation, ops []op, first string) string {
	written := map[string]porcupine.Operation{first: {Call: -1, Return: -1}}
	byReader := map[int][]int{}
	for i, s := range steps {
		switch in := s.Input.(step); in.kind {
		case write:
			written[in.value] = s
		default:
			byReader[in.reader] = append(byReader[in.reader], i)
		}
	}
	value := func(i int) porcupine.Operation { return written[steps[i].Input.(step).value] }
	for _, calls := range byReader {
		returns := slices.Clone(calls)
		slices.SortFunc(calls, func(a, b int) int { return int(steps[a].Call - steps[b].Call) })
		slices.SortFunc(returns, func(a, b int) int { return int(steps[a].Return - steps[b].Return) })
		newest := -1
		for _, i := range calls {
			for len(returns) > 0 && steps[returns[0]].Return < steps[i].Call {
				if newest < 0 || value(returns[0]).Call > value(newest).Call {
					newest = returns[0]
				}
				returns = returns[1:]
			}
			// own says that something at least as new is there, not that it is shown.
			if steps[i].Input.(step).kind != own && newest >= 0 && value(i).Return < value(newest).Call {
				return fmt.Sprintf("a node goes back:\n%v\n%v", ops[newest], ops[i])
			}
		}
	}
	return ""
}

// entry is the end of a sequence of writes.
type entry struct {
	value string
	depth int
	prev  *entry
}

// find looks for a value that is not older than depth.
func (e *entry) find(value string, depth int) *entry {
	for ; e != nil && e.depth >= depth; e = e.prev {
		if e.value == value {
			return e
		}
	}
	return nil
}

// file is the writes so far, and how many of them each reader has surely got.
type file struct {
	head  *entry
	shown []int
}

func (f file) equal(g file) bool {
	if f.head.depth != g.head.depth || !slices.Equal(f.shown, g.shown) {
		return false
	}
	least := slices.Min(f.shown) // what is before it nobody can read any more
	for a, b := f.head, g.head; a != b && a.depth >= least; a, b = a.prev, b.prev {
		if a.value != b.value {
			return false
		}
	}
	return true
}

// fileModel is a file that has one sequence of writes, of which each reader sees
// a prefix that grows.
func fileModel(first string, readers int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return file{&entry{value: first}, make([]int, max(readers, 1))} },
		Step: func(state, input, _ any) (bool, any) {
			f, in := state.(file), input.(step)
			if in.kind == write {
				return true, file{&entry{in.value, f.head.depth + 1, f.head}, f.shown}
			}
			least := f.shown[in.reader]
			switch in.kind {
			case own:
				least = 0
			case guarded, final:
				least = f.head.depth
			}
			e := f.head.find(in.value, least)
			if e == nil {
				return false, f
			}
			if e.depth > f.shown[in.reader] {
				f.shown = slices.Clone(f.shown)
				f.shown[in.reader] = e.depth
			}
			return true, f
		},
		Equal: func(a, b any) bool { return a.(file).equal(b.(file)) },
	}
}

// checkLock judges who got and gave back one lock.
func (h *history) checkLock(path string, ops []op, lenient bool) string {
	var end time.Duration
	for _, o := range ops {
		end = max(end, o.ret)
	}
	var steps []porcupine.Operation
	var ordered []op
	for _, o := range ops {
		o.failed = o.failed || lenient && h.alone(o)
		if o.failed {
			o.ret = end + 1
		}
		steps = append(steps, porcupine.Operation{ClientId: o.client, Input: o, Call: int64(o.call), Return: int64(o.ret)})
		ordered = append(ordered, o)
	}
	return explain(path, lockModel(), steps, ordered)
}

// lockModel is a lock; its state is the holder, or nobody.
func lockModel() porcupine.Model {
	const nobody = -1
	return porcupine.Model{
		Init: func() any { return nobody },
		Step: func(state, input, _ any) (bool, any) {
			holder, o := state.(int), input.(op)
			switch {
			case o.kind == acquire && holder == nobody:
				return true, o.client
			case o.kind == release && holder == o.client:
				return true, nobody
			}
			return o.failed, holder // it has had no effect
		},
	}
}

// explain says why a history is impossible; "": it isn't. It shows the end of
// the shortest beginning that is.
func explain(path string, model porcupine.Model, steps []porcupine.Operation, ops []op) string {
	switch porcupine.CheckOperationsTimeout(model, steps, checkTime) {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return path + ": it takes too long to check"
	}
	ends := make([]int64, 0, len(steps))
	for _, s := range steps {
		ends = append(ends, s.Return)
	}
	slices.Sort(ends)
	// Changes that have begun may have been seen; what hasn't returned may not
	// have seen them.
	until := func(end int64) (some []porcupine.Operation, which []op) {
		for i, s := range steps {
			changes := false
			switch in := s.Input.(type) {
			case step:
				changes = in.kind == write
			case op:
				changes = in.kind == release || in.failed
			}
			if s.Return <= end || changes && s.Call <= end {
				some, which = append(some, s), append(which, ops[i])
			}
		}
		return some, which
	}
	i, _ := slices.BinarySearchFunc(ends, true, func(end int64, _ bool) int {
		some, _ := until(end)
		if porcupine.CheckOperationsTimeout(model, some, checkTime) == porcupine.Ok {
			return -1
		}
		return 0
	})
	_, which := until(ends[min(i, len(ends)-1)])
	slices.SortStableFunc(which, func(a, b op) int { return int(a.ret - b.ret) })
	var b strings.Builder
	fmt.Fprintf(&b, "%s: impossible; the end of the shortest such beginning:", path)
	for _, o := range which[max(0, len(which)-40):] {
		fmt.Fprintf(&b, "\n\t%v", o)
	}
	return b.String()
}
