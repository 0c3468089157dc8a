package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/status/ipc"
)

// service checks that what tools set through the service on one node reaches
// the others' services and special files.
func service(c *cluster) {
	for _, n := range c.Nodes {
		const ident, tag = "root@pam", "test"
		entry := string([]byte{6, byte(len(ident) + 1), byte(len(tag) + 1)}) + ident + "\x00" + tag + "\x00message of " + n.String() + "\x00"
		list := []*request{
			{Op: ipc.OpSetStatus, Data: labtest.Field("test") + "value of " + n.String()},
			{Op: ipc.OpSetStatus, Data: labtest.Field("rrd/pve2-node/"+n.String()) + "1:2:3\x00"},
			{Op: ipc.OpLog, Data: entry},
		}
		n.Ask(list...)
		for _, r := range list {
			if r.Errno != 0 {
				c.T.Fatalf("%s: request %d: %v", n, r.Op, r.Errno)
			}
		}
	}
	for _, n := range c.Nodes {
		n.Eventually("it has everybody's values, messages and samples", func() error {
			log := &request{Op: ipc.OpGetLog, Data: strings.Repeat("\x00", 17)}
			list := []*request{log}
			for _, o := range c.Nodes {
				list = append(list, &request{Op: ipc.OpGetStatus, Data: labtest.Field("test") + labtest.Field(o.String())})
			}
			n.Ask(list...)
			file, err := os.ReadFile(n.Path(".clusterlog"))
			rrd, rerr := os.ReadFile(n.Path(".rrd"))
			version, verr := os.ReadFile(n.Path(".version"))
			var v struct{ KVStore map[string]map[string]int }
			if err = errors.Join(err, rerr, verr, json.Unmarshal(version, &v)); err != nil {
				return err
			}
			for i, o := range c.Nodes {
				if r := list[i+1]; r.Errno != 0 || r.Answer != "value of "+o.String() {
					return fmt.Errorf("value of %s: %q, %v", o, r.Answer, r.Errno)
				}
				for _, text := range []string{log.Answer, string(file)} {
					if !strings.Contains(text, "message of "+o.String()) || !json.Valid([]byte(text)) {
						return fmt.Errorf("log: %s", text)
					}
				}
				if !strings.Contains(string(rrd), "pve2-node/"+o.String()+":1:2:3\n") {
					return fmt.Errorf(".rrd: %s", rrd)
				}
				if _, ok := v.KVStore[o.String()]["test"]; !ok {
					return fmt.Errorf(".version: %s", version)
				}
			}
			return nil
		})
		conf := &request{Op: ipc.OpGetConfig, Data: "corosync.conf\x00"}
		info := &request{Op: ipc.OpClusterInfo}
		n.Ask(conf, info)
		if conf.Errno != 0 || conf.Answer != c.Lab.Conf().String() {
			c.T.Errorf("%s: corosync.conf through the service: %v, %q", n, conf.Errno, conf.Answer)
		}
		if info.Errno != 0 || !strings.Contains(info.Answer, `"name": "lab"`) {
			c.T.Errorf("%s: cluster info through the service: %v, %q", n, info.Errno, info.Answer)
		}
	}
	// What a node has said outlives its daemon on the others, and the service is
	// back with the daemon.
	n := c.Node(3)
	n.Stop()
	if _, err := os.Stat(n.Host.Path("/run/pve-cluster/cfs-restart-flag")); err != nil {
		c.T.Errorf("%s: the restart flag: %v", n, err)
	}
	r := &request{Op: ipc.OpGetStatus, Data: labtest.Field("test") + labtest.Field("node3")}
	if c.Node(1).Ask(r); r.Errno != 0 || r.Answer != "value of node3" {
		c.T.Errorf("value of a node that is away: %q, %v", r.Answer, r.Errno)
	}
	n.Start()
	if _, err := os.Stat(n.Host.Path("/run/pve-cluster/cfs-restart-flag")); !errors.Is(err, os.ErrNotExist) {
		c.T.Errorf("%s: the restart flag is left: %v", n, err)
	}
	c.WantTogether(c.Nodes...)
	n.Eventually("it has learnt what the others say", func() error {
		r := &request{Op: ipc.OpGetStatus, Data: labtest.Field("test") + labtest.Field("node1")}
		if n.Ask(r); r.Errno != 0 || r.Answer != "value of node1" {
			return fmt.Errorf("%q, %v", r.Answer, r.Errno)
		}
		return nil
	})
}
