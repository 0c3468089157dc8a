package reconf

import (
	"fmt"
	"slices"
	"strconv"

	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// stages are the configurations that lead from one to another, the last of which is that.
// corosync can't give a link another address while it runs, but it can add and remove
// links: so a link whose addresses change is replaced by another one for a while, and
// the nodes never lose each other.
func stages(before, after *conf.File) ([]*conf.File, error) {
	moved := movedLinks(before, after)
	if len(moved) == 0 {
		return []*conf.File{after}, nil
	}
	var free []int
	for n := range 8 {
		if !hasLink(before, n) && !hasLink(after, n) {
			free = append(free, n)
		}
	}
	if len(free) < len(moved) {
		return nil, plan.Fail(plan.Refused, "no-free-link", "change the addresses of fewer links at once", "to change the addresses of %d links, as many link numbers have to be free", len(moved))
	}
	with, without, again := copyOf(before), copyOf(before), copyOf(after)
	for i, n := range moved {
		// The links in between have the new addresses.
		for _, f := range []*conf.File{with, without} {
			if err := addLink(f, free[i], after, n); err != nil {
				return nil, err
			}
		}
		if err := removeLink(without, n); err != nil {
			return nil, err
		}
		if err := addLink(again, free[i], after, n); err != nil {
			return nil, err
		}
	}
	return []*conf.File{with, without, again, after}, nil
}

// movedLinks are the links on which a node gets another address in place of the one it has.
func movedLinks(before, after *conf.File) (list []int) {
	for n := range 8 {
		if slices.ContainsFunc(before.Nodes(), func(s *conf.Section) bool {
			is := after.Node(conf.NodeName(s))
			if is == nil {
				return false
			}
			_, old := conf.LinkAddress(s, n)
			_, new := conf.LinkAddress(is, n)
			return old != "" && new != "" && old != new
		}) {
			list = append(list, n)
		}
	}
	return list
}

func hasLink(f *conf.File, n int) bool {
	return slices.ContainsFunc(f.Nodes(), func(s *conf.Section) bool { return slices.Contains(conf.Links(s), n) }) || linkInterface(f, n) != nil
}

func linkInterface(f *conf.File, n int) *conf.Section {
	for _, i := range f.Interfaces() {
		if i.Get("linknumber") == strconv.Itoa(n) {
			return i
		}
	}
	return nil
}

func copyOf(f *conf.File) *conf.File {
	g, err := conf.Read(f.Text())
	if err != nil { // it was read
		panic(err)
	}
	return g
}

// addLink gives a configuration a link that is like a link of another one.
func addLink(f *conf.File, n int, like *conf.File, m int) error {
	for _, s := range like.Nodes() {
		name := conf.NodeName(s)
		_, address := conf.LinkAddress(s, m)
		if f.Node(name) == nil || address == "" {
			continue
		}
		if err := f.Set(f.Node(name), fmt.Sprintf("ring%d_addr", n), address); err != nil {
			return err
		}
	}
	if i := linkInterface(like, m); i != nil {
		keys := map[string]string{}
		for _, k := range i.Keys() {
			if k != "mcastport" && k != "bindnetaddr" {
				keys[k] = i.Get(k)
			}
		}
		keys["linknumber"] = strconv.Itoa(n)
		return f.Insert(f.Section("totem"), conf.Block{Name: "interface", Keys: keys})
	}
	return nil
}

func removeLink(f *conf.File, n int) error {
	for _, s := range f.Nodes() {
		name := conf.NodeName(s)
		if key, _ := conf.LinkAddress(f.Node(name), n); key != "" {
			if err := f.Delete(f.Node(name), key); err != nil {
				return err
			}
		}
	}
	if i := linkInterface(f, n); i != nil {
		return f.Remove(i)
	}
	return nil
}
