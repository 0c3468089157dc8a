package peers

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/status/inspect"
)

const (
	// attempts is how often all members are asked for a state that all share.
	attempts = 8
	// firstLead is how far ahead, in time at the present rate of changes, the first
	// version lies that all are asked for; twice as far each time.
	firstLead = 50 * time.Millisecond
	// looks is how often trees that differ are looked at, to find what stays.
	looks = 4
	// firstRanges is in how many ranges the trees are compared first.
	firstRanges = 256
)

// Compare compares the trees of all members; names are the nodes' by id. While
// changes go on, the members are asked for a version that lies a little ahead. A
// difference counts only if a second look finds it, too. It fails with ErrAlone, or
// inspect.ErrBusy.
func (s *Service) Compare(ctx context.Context, names map[uint32]string) (*inspect.Comparison, error) {
	if !s.comparing.TryLock() {
		return nil, inspect.ErrBusy
	}
	defer s.comparing.Unlock()
	begin := time.Now()
	result, err := settle(func() (*inspect.Comparison, error) { return s.compare(ctx, names) })
	if err != nil {
		return nil, err
	}
	result.Time, result.Took = begin, time.Since(begin).Seconds()
	return result, nil
}

// settle looks until trees are equal, or differ in the same entries as the look before.
func settle(look func() (*inspect.Comparison, error)) (*inspect.Comparison, error) {
	var result, earlier *inspect.Comparison
	for range looks {
		var err error
		if result, err = look(); err != nil {
			return nil, err
		}
		seen := *result
		seen.Differences = slices.Clone(result.Differences)
		if earlier != nil {
			confirm(result, earlier)
		}
		if result.Equal || compared(result) < 2 || earlier != nil && len(result.Differences) > 0 {
			break
		}
		earlier = &seen // all that it found: the next look may confirm any of it
	}
	return result, nil
}

// compared is how many nodes were.
func compared(c *inspect.Comparison) (n int) {
	for i := range c.Nodes {
		if c.Nodes[i].State == inspect.NodeCompared {
			n++
		}
	}
	return n
}

// confirm leaves only what an earlier comparison has found, too.
func confirm(c, earlier *inspect.Comparison) {
	if c.Omitted || earlier.Omitted {
		return // so many are no passing thing
	}
	known := make(map[uint64]bool, len(earlier.Differences))
	for i := range earlier.Differences {
		known[earlier.Differences[i].Inode] = true
	}
	c.Differences = slices.DeleteFunc(c.Differences, func(d inspect.Difference) bool { return !known[d.Inode] })
	c.AtLeast = len(c.Differences)
}

// run is one comparison under way.
type run struct {
	s     *Service
	id    uint64 // of the questions about the states that are kept
	names map[uint32]string
	of    []dfsm.Member // who is compared, ascending
	lost  []dfsm.Member // who was, and has not answered all questions
	snaps map[dfsm.Member]snapshot
}

func (s *Service) compare(ctx context.Context, names map[uint32]string) (*inspect.Comparison, error) {
	r := &run{s: s, names: names}
	all, err := r.agree(ctx)
	if err != nil {
		return nil, err
	}
	c := &inspect.Comparison{Differences: []inspect.Difference{}}
	if len(r.of) > 1 && !r.alike() {
		if err := r.narrow(ctx, c); err != nil {
			return nil, err
		}
	}
	// A member that was lost on the way is not compared, and differs from no other.
	if c.Nodes = r.nodes(all); len(r.of) < 2 || r.alike() {
		c.Equal = len(r.of) > 1
		c.Differences, c.Omitted, c.AtLeast = []inspect.Difference{}, false, 0
	}
	return c, nil
}

// alike tells whether all who are compared hold the same.
func (r *run) alike() bool {
	return !slices.ContainsFunc(r.of, func(m dfsm.Member) bool { return r.snaps[m].Digest != r.snaps[r.of[0]].Digest })
}

// agree has all members keep the same state of the tree. It fills in who has, and
// returns all members.
func (r *run) agree(ctx context.Context) ([]dfsm.Member, error) {
	s := r.s
	tree := s.cfg.Tree
	began, from := time.Now(), tree.Root().Version
	var target uint64
	var before map[dfsm.Member]snapshot
	var all []dfsm.Member
	for attempt := range attempts {
		if all = s.members(); len(all) == 0 {
			return nil, ErrAlone
		}
		r.id = s.lastID.Add(1)
		bodies, err := s.ask(ctx, r.id, all, askSnapshot{target}, s.cfg.Patience+armTime)
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.snaps = make(map[dfsm.Member]snapshot, len(bodies))
		for m, b := range bodies {
			if snap, err := decode[snapshot](b); err == nil {
				r.snaps[m] = snap
			}
		}
		r.of = r.largest()
		if len(r.of) == len(r.synced()) {
			return all, nil
		}
		if attempt > 0 && maps.EqualFunc(before, r.snaps, func(a, b snapshot) bool {
			return a.Result == resultKept && b.Result == resultKept && a.Version == b.Version && a.Digest == b.Digest
		}) {
			// Nothing changes any more: their states are what they are.
			r.of = r.synced()
			return all, nil
		}
		before = maps.Clone(r.snaps)
		newest := tree.Root().Version
		rate := float64(newest-from) / time.Since(began).Seconds()
		for _, snap := range r.snaps {
			newest = max(newest, snap.Version)
		}
		target = newest + 1 + uint64(rate*firstLead.Seconds()*float64(int(1)<<attempt))
	}
	return all, nil
}

// synced returns the members whose tree is worth comparing, ascending: the others
// are just being brought up to date.
func (r *run) synced() []dfsm.Member {
	var list []dfsm.Member
	for m, snap := range r.snaps {
		if dfsm.Mode(snap.Mode) == dfsm.ModeSynced {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, dfsm.Member.Compare)
	return list
}

// largest returns the largest part of them that keep a state of one version.
func (r *run) largest() []dfsm.Member {
	byVersion := map[uint64][]dfsm.Member{}
	var best []dfsm.Member
	for _, m := range r.synced() {
		snap := r.snaps[m]
		if snap.Result != resultKept {
			continue
		}
		list := append(byVersion[snap.Version], m)
		byVersion[snap.Version] = list
		if len(list) > len(best) {
			best = list
		}
	}
	return best
}

// name is what a member's node is called.
func (r *run) name(m dfsm.Member) string {
	if name := r.names[uint32(m.Node)]; name != "" {
		return name
	}
	return fmt.Sprintf("node %d", m.Node)
}

// nodes describes the members' part, ascending by name: corosync has them in any order.
func (r *run) nodes(all []dfsm.Member) []inspect.ComparedNode {
	software := map[dfsm.Member]string{}
	for _, p := range r.s.Peers() {
		software[p.Member] = p.Software
	}
	list := make([]inspect.ComparedNode, 0, len(all))
	for _, m := range all {
		n := inspect.ComparedNode{Name: r.name(m), ID: uint32(m.Node), State: inspect.NodeSilent, Software: software[m]}
		if snap, ok := r.snaps[m]; ok {
			n.Mode, n.Quorate, n.Version = dfsm.Mode(snap.Mode).String(), snap.Quorate, snap.Version
			switch {
			case slices.Contains(r.of, m):
				n.State, n.Digest = inspect.NodeCompared, hex.EncodeToString(snap.Digest[:])
			case slices.Contains(r.lost, m):
				n.Reason = "it did not answer all questions"
			case snap.Result == resultBusy:
				n.Reason = "it is busy with other comparisons"
			case dfsm.Mode(snap.Mode) != dfsm.ModeSynced:
				n.State, n.Reason = inspect.NodeBehind, "its tree is not synchronised (mode "+n.Mode+")"
			default:
				n.State = inspect.NodeBehind
				n.Reason = "changes go on, and it was never seen at the version of the others"
			}
		}
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b inspect.ComparedNode) int { return cmp.Compare(a.ID, b.ID) }) // a view has them as they joined
	return list
}

// narrow finds out which entries differ.
func (r *run) narrow(ctx context.Context, c *inspect.Comparison) error {
	spans, omitted, err := r.spans(ctx)
	if err != nil {
		return err
	}
	inodes, have, cut, err := r.differing(ctx, spans)
	if err != nil {
		return err
	}
	c.Omitted = cut || omitted > 0 || len(inodes) > inspect.MaxDifferences
	c.AtLeast = len(inodes) + omitted
	inodes = inodes[:min(len(inodes), inspect.MaxDifferences)]
	for part := range slices.Chunk(inodes, maxDetails) {
		list, err := r.describe(ctx, part, have)
		if err != nil {
			return err
		}
		c.Differences = append(c.Differences, list...)
	}
	return nil
}

// each puts a question to all who are compared, and has their answers used. Who
// gives none in time, or a bad one, is out of the comparison from here on.
func each[A body](ctx context.Context, r *run, q body, use func(m dfsm.Member, a A) error) error {
	bodies, err := r.s.ask(ctx, r.id, r.of, q, r.s.cfg.Patience)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.of = slices.DeleteFunc(slices.Clone(r.of), func(m dfsm.Member) bool {
		if a, err := decode[A](bodies[m]); err == nil && use(m, a) == nil {
			return false
		}
		r.lost = append(r.lost, m)
		return true
	})
	return nil
}

// spans returns spans of inodes in which the trees differ, no more than entries can
// be asked for, and how many more ranges differ.
func (r *run) spans(ctx context.Context) (list []span, omitted int, err error) {
	// Of the tree as it is now: any ranges will do.
	own := kept{entries: r.s.cfg.Tree.Entries()}
	q := askRanges{own.split(firstRanges)}
	q.Bounds[0] = 0
	sums := map[dfsm.Member][]rangeSum{}
	err = each(ctx, r, q, func(m dfsm.Member, a ranges) error {
		if len(a.List) != len(q.Bounds) {
			return fmt.Errorf("%w: %d ranges, asked for %d", errMalformed, len(a.List), len(q.Bounds))
		}
		sums[m] = a.List
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	room := uint64(maxEntries)
	for i, first := range q.Bounds {
		differ, most := false, uint64(0)
		for _, m := range r.of {
			differ = differ || sums[m][i] != sums[r.of[0]][i]
			most = max(most, uint64(sums[m][i].Count))
		}
		switch {
		case !differ:
			continue
		case len(list) > 0 && most > room, len(list) == maxSpans:
			omitted++
			continue
		}
		room -= min(room, most)
		last := ^uint64(0)
		if i+1 < len(q.Bounds) {
			last = q.Bounds[i+1] - 1
		}
		list = append(list, span{First: first, Last: last})
	}
	return list, omitted, nil
}

// differing returns the inodes in spans that not all members have alike, and who has
// which. Cut tells that not all of the spans was looked at.
func (r *run) differing(ctx context.Context, spans []span) (inodes []uint64, have map[uint64]map[dfsm.Member]digest, cut bool, err error) {
	have = map[uint64]map[dfsm.Member]digest{}
	limit := ^uint64(0)
	err = each(ctx, r, askEntries{spans}, func(m dfsm.Member, a entries) error {
		for _, e := range a.List {
			if have[e.Inode] == nil {
				have[e.Inode] = map[dfsm.Member]digest{}
			}
			have[e.Inode][m] = e.Sum
		}
		if a.Cut {
			cut = true
			limit = min(limit, a.List[len(a.List)-1].Inode)
		}
		return nil
	})
	if err != nil {
		return nil, nil, false, err
	}
	for inode, sums := range have {
		if inode > limit {
			continue
		}
		same := len(r.of) > 0
		for _, m := range r.of {
			sum, ok := sums[m]
			same = same && ok && sum == sums[r.of[0]]
		}
		if !same {
			inodes = append(inodes, inode)
		}
	}
	slices.Sort(inodes)
	return inodes, have, cut, nil
}
