package reconf

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pmxcfs/corosync/conf"
)

// restarts are settings that corosync reads at its start only.
var restarts = []string{"totem.version", "totem.transport", "totem.cluster_name", "totem.ip_version", "totem.link_mode", "quorum.provider"}

// Effect says in words what a change of corosync.conf does, a line each.
func Effect(before, after *conf.File) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	names := map[string]bool{}
	for _, f := range []*conf.File{before, after} {
		for _, n := range f.Nodes() {
			names[conf.NodeName(n)] = true
		}
	}
	restart := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := before.Node(name), after.Node(name)
		switch {
		case was == nil:
			say("node %s (id %s) comes, with %s and %s", name, is.Get("nodeid"), votes(is), addresses(is))
		case is == nil:
			say("node %s (id %s) goes", name, was.Get("nodeid"))
		default:
			if was.Get("nodeid") != is.Get("nodeid") {
				say("node %s: its id changes from %s to %s", name, was.Get("nodeid"), is.Get("nodeid"))
				restart["nodeid"] = true
			}
			if votes(was) != votes(is) {
				verb := "become"
				if strings.HasSuffix(votes(was), "vote") {
					verb = "becomes"
				}
				say("node %s: %s %s %s", name, votes(was), verb, votes(is))
			}
			for n := range 8 {
				_, old := conf.LinkAddress(was, n)
				_, new := conf.LinkAddress(is, n)
				switch {
				case old == new:
				case old == "":
					say("node %s: link %d gets address %s", name, n, new)
				case new == "":
					say("node %s: link %d loses its address %s", name, n, old)
				default:
					say("node %s: link %d changes its address from %s to %s", name, n, old, new)
				}
			}
		}
	}
	was, is := settings(before.Section(), ""), settings(after.Section(), "")
	for _, key := range slices.Sorted(maps.Keys(union(was, is))) {
		if was[key] == is[key] {
			continue
		}
		switch {
		case was[key] == "":
			say("%s: %s is set", key, is[key])
		case is[key] == "":
			say("%s: %s is unset", key, was[key])
		default:
			say("%s: %s becomes %s", key, was[key], is[key])
		}
		if slices.Contains(restarts, key) {
			restart[key] = true
		}
	}
	if len(restart) > 0 {
		say("corosync takes on %s only when it is restarted, on all nodes", strings.Join(slices.Sorted(maps.Keys(restart)), ", "))
	}
	return list
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// settings are all values but the nodes' and the version.
func settings(s *conf.Section, prefix string) map[string]string {
	list := map[string]string{}
	for _, k := range s.Keys() {
		if prefix+k != "totem.config_version" {
			list[prefix+k] = s.Get(k)
		}
	}
	for _, name := range s.Names() {
		if prefix == "nodelist." && name == "node" {
			continue
		}
		for i, sub := range s.Sections(name) {
			at := prefix + name
			if name == "interface" {
				number := sub.Get("linknumber")
				if number == "" {
					number = fmt.Sprint(i)
				}
				at += " " + number
			}
			maps.Copy(list, settings(sub, at+"."))
		}
	}
	return list
}

func votes(node *conf.Section) string {
	n := node.Get("quorum_votes")
	switch n {
	case "":
		n = "1"
		fallthrough
	case "1":
		return n + " vote"
	}
	return n + " votes"
}

func addresses(node *conf.Section) string {
	var list []string
	for _, n := range conf.Links(node) {
		_, a := conf.LinkAddress(node, n)
		list = append(list, fmt.Sprintf("link %d %s", n, a))
	}
	return strings.Join(list, ", ")
}
