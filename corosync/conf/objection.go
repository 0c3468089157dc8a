package conf

import (
	"fmt"
	"strconv"
)

// Objection tells why a corosync.conf must not take the place of the one that a host's
// corosync has: corosync would refuse to load it or to start with it, or the host would be
// in another cluster. Empty means it may. It objects to nothing if present is no configuration of
// a cluster itself, since then nothing is lost.
func Objection(next, present []byte) string {
	was, err := Parse(present)
	if err != nil || len(was.Nodes) == 0 || Example(present) {
		return ""
	}
	c, err := Parse(next)
	if err != nil {
		return err.Error()
	}
	if len(c.Nodes) == 0 {
		return "it has no nodelist"
	}
	names := map[uint32]string{}
	for _, n := range c.Nodes {
		name := n.Name
		if name == "" && len(n.Addresses) > 0 {
			name = n.Addresses[0]
		}
		if other, taken := names[n.ID]; taken && n.ID != 0 {
			return fmt.Sprintf("nodes %s and %s have the same nodeid, %d", other, name, n.ID)
		}
		names[n.ID] = name
	}
	if was.ClusterName != "" && c.ClusterName != was.ClusterName {
		return fmt.Sprintf("it changes the cluster's name from %q to %q, which can't be changed", was.ClusterName, c.ClusterName)
	}
	version, err := Version(next)
	if err != nil {
		return err.Error()
	}
	if has, err := Version(present); err == nil && version < has {
		return "its config_version, " + strconv.FormatUint(version, 10) + ", is less than the present one's, " + strconv.FormatUint(has, 10)
	}
	return ""
}
