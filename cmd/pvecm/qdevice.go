package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"pmxcfs/cmd/internal/plan"
	"pmxcfs/cmd/internal/qdevice"
)

// qdeviceCommand is "pvecm qdevice".
func qdeviceCommand() command {
	external := []param{
		{name: "ssh-user", usage: "log in on the external host as `USER`, who may use sudo", standard: "root"},
		{name: "ssh-port", kind: number, least: 1, usage: "its sshd listens on port `N`", standard: "22"},
		{name: "cluster-name-on-host", kind: clusterName, usage: "the external host knows the cluster as `NAME`", standard: "the cluster's name"},
		{name: "force", kind: kinds, usage: "go on in spite of problems of these `KINDS`: odd, leftovers, port, name-in-use, clock"},
		dryRun, outputFormat,
	}
	return command{
		name: "qdevice", usage: "have an external host vote",
		below: []command{
			{
				name: "setup", usage: "give the cluster an external vote", needs: needsNode,
				description: "ADDRESS is a host outside the cluster that runs corosync-qnetd. All nodes must be online and have corosync-qdevice.",
				args:        []param{{name: "address", kind: ip, optional: true}},
				options: slices.Concat([]param{
					{name: "network", kind: cidr, usage: "does nothing; scripts give it", hidden: true},
					{name: "repair", kind: boolean, usage: "make all certificates of the present external vote anew; it counts meanwhile"},
					{name: "renew", kind: boolean, usage: "take the present external vote away, and set it up again for the number of nodes that there are now"},
					{name: "no-copy-id", kind: boolean, usage: "root's ssh key is on the external host already"},
				}, external),
				run: func(ctx context.Context, c *call) error {
					o := qdeviceOptions(c)
					o.External, _ = netip.ParseAddr(c.text("address")) // checked
					work := qdevice.Setup
					switch {
					case c.isSet("repair") && c.isSet("renew"):
						return usagef("give either --repair or --renew")
					case c.isSet("repair"):
						work = qdevice.Repair
					case c.isSet("renew"):
						work = qdevice.Renew
					case !o.External.IsValid():
						return usagef("the address of the external host is missing")
					}
					r, err := work(ctx, c.env.host, qdevice.Live(), o)
					return c.finish(r, false, err)
				},
			},
			{
				name: "remove", usage: "take the external vote away", needs: needsNode,
				options: append([]param{{name: "remove-key", kind: boolean, usage: "remove root's ssh key from the external host, too"}}, external...),
				run: func(ctx context.Context, c *call) error {
					r, err := qdevice.Remove(ctx, c.env.host, qdevice.Live(), qdeviceOptions(c))
					return c.finish(r, false, err)
				},
			},
			{
				name: "status", usage: "show how the external vote's daemon on this host is", needs: needsNode, options: []param{outputFormat},
				run: qdeviceStatus,
			},
		},
	}
}

func qdeviceOptions(c *call) qdevice.Options {
	return qdevice.Options{
		Force: c.force(), DryRun: c.isSet("dry-run"), User: c.text("ssh-user"), Port: c.number("ssh-port", 0),
		NoCopyID: c.isSet("no-copy-id"), RemoveKey: c.isSet("remove-key"), ClusterName: c.text("cluster-name-on-host"), Timeout: time.Minute,
	}
}

func qdeviceStatus(_ context.Context, c *call) error {
	state, err := qdevice.AskState(c.env.host)
	if err != nil {
		return plan.Errorf(plan.Failed, "%w", err)
	}
	if c.json() {
		return c.writeJSON(state)
	}
	for _, name := range slices.Sorted(maps.Keys(state)) {
		fmt.Fprintf(c.env.stdout, "%-18s%s\n", name+":", state[name])
	}
	return nil
}
