package fuse

import "slices"

var (
	links    = []string{"local", "qemu-server", "lxc", "openvz"}
	specials = []string{".version", ".members", ".vmlist", ".clusterlog", ".rrd", ".debug"}
)

// Reserved reports whether a name in the root is a link's or a special file's in every
// mount of a daemon's. They hide entries of the tree that have their name.
func Reserved(name string) bool {
	return slices.Contains(links, name) || slices.Contains(specials, name)
}

// Links returns the links to a node's own directories.
func Links(node string) []Link {
	var list []Link
	for i, name := range links {
		target := "nodes/" + node
		if i > 0 {
			target += "/" + name
		}
		list = append(list, Link{name, target})
	}
	return list
}
