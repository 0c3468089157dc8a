package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/keys"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/cmd/internal/qdevice"
	"pmxcfs/cmd/internal/quorumtool"
	"pmxcfs/cmd/internal/task"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cfg"
	"pmxcfs/corosync/conf"
	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/status/ipc"
)

type clusterServices = cluster.Services

// services are what changes of a cluster use on a real host.
func services() cluster.Services {
	return cluster.Services{
		Kill:       killNode,
		PrepareSSH: prepareSSH,
		UpdateKeys: func(ctx context.Context, h *host.Host) error { return keys.Update(ctx, h, keys.Options{}) },
		NodeFiles:  keys.Directories,
		ForgetKeys: keys.ForgetNode, WithoutKeys: keys.WithoutKeys, RenameKeys: keys.RenameNode,
		SetHostname: func(name string) error { return unix.Sethostname([]byte(name)) },
		Loaded: func() (uint64, error) {
			s, err := quorumtool.Read()
			if err != nil {
				return 0, err
			}
			return s.Version, nil
		},
		Log:  logToCluster,
		Task: task.Run,
	}
}

// logToCluster writes to the cluster's log. That it can't is no reason to stop.
func logToCluster(h *host.Host, text string) {
	c, err := qbclient.Dial(ipc.DefaultName)
	if err == nil {
		defer c.Close()
		_, err = c.SendRecv(requestLog, logRequest("root@pam", "pvecm", text), 5*time.Second)
	}
	if err != nil {
		h.Warnf("the cluster's log doesn't get %q: %v", text, err)
	}
}

const (
	requestLog     = 7 // the daemon's request that writes to the cluster's log
	priorityNotice = 5 // as in syslog(3)
)

// logRequest is that request's data.
func logRequest(ident, tag, text string) []byte {
	b := []byte{priorityNotice, byte(len(ident) + 1), byte(len(tag) + 1)}
	return append(b, ident+"\x00"+tag+"\x00"+text+"\x00"...)
}

// killNode has corosync on a node end.
func killNode(id uint32) error {
	c, err := cfg.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.KillNode(corosync.NodeID(id), "removed from the cluster")
}

var (
	outputFormat = param{name: "output-format", kind: format, usage: "`FORMAT` of the output: text or json", standard: "text"}
	dryRun       = param{name: "dry-run", kind: boolean, usage: "check and tell what would be done, and do nothing"}
)

// commands are all commands.
func commands() []command {
	list := []command{
		{
			name: "create", usage: "make a cluster with this host as its first node", needs: needsNode,
			description: "Makes a cluster of the given name, which is the cluster's identity: it must be unique in its network and can't be changed.\nWithout a link, link 0 has this host's address.",
			args:        []param{{name: "clustername", kind: clusterName}},
			options: slices.Concat(linkOptions("this host"), []param{
				{name: "nodeid", kind: number, least: 1, usage: "give this node the id `N`", standard: "1"},
				{name: "votes", kind: number, least: 1, usage: "give this node `N` votes", standard: "1"},
				{name: "token-coefficient", kind: number, least: 0, usage: "have corosync's token timeout grow by `N` milliseconds with each node", standard: "125"},
				{name: "force", kind: kinds, usage: "go on in spite of problems of these `KINDS`; without a value, of all that can be passed over"},
				dryRun, outputFormat,
			}),
			run: create,
		},
		addCommand(),
		{
			name: "addnode", usage: "enter a node into the cluster's configuration", needs: needsNode,
			description: "This is the cluster's half of \"pvecm add\", which calls it.",
			args:        []param{{name: "node", kind: node}},
			options: slices.Concat(linkOptions("the node"), []param{
				{name: "nodeid", kind: number, least: 1, usage: "give the node the id `N`", standard: "the smallest free one"},
				{name: "votes", kind: number, least: 0, usage: "give the node `N` votes", standard: "1"},
				{name: "force", kind: kinds, usage: "enter a node that is there already anew; with `KINDS`, pass over problems of these kinds"},
				{name: "new_node_ip", kind: ip, usage: "use the address `IP` on the cluster's only link, if no link is given"},
				{name: "apiversion", kind: number, least: -1 << 31, usage: "the node speaks version `N` of the join protocol", standard: "0"},
			}),
			run: addNode,
		},
		{
			name: "delnode", usage: "take a node out of the cluster", needs: needsNode,
			description: "Shut the node down first, and never start it again with its present configuration; or have it stopped with --kill. Its ssh keys go from the tree, and so does its directory there, unless it holds configurations of guests. What else names the node is shown.",
			args:        []param{{name: "node", kind: node}},
			options: []param{
				{name: "kill", kind: boolean, usage: "the node may be running: have it stop corosync, and remove its configuration and key"},
				{name: "keep-dir", kind: boolean, usage: "leave the node's directory in the tree"},
				{name: "purge-dir", kind: boolean, usage: "remove the node's directory also with configurations of guests in it, into an archive among the backups"},
				{name: "with-qdevice", kind: boolean, usage: "take the external vote away with the node, and set it up again for the nodes that are left"},
				{name: "spare-keys", kind: boolean, usage: "leave the node's ssh keys", hidden: true},
				{name: "force", kind: kinds, usage: "go on in spite of problems of these `KINDS`: online, quorum, qdevice-present"},
				dryRun, outputFormat,
			},
			run: delNode,
		},
		{
			name: "leave", usage: "take this host out of its cluster", needs: needsRoot,
			description: "Has another node remove this one, which then is a host without a cluster, with its own part of the tree: its directory with the guests' configurations, and the settings that all nodes share. The cluster's tree goes to the backups. If it is interrupted, the same command completes it.",
			options: []param{
				{name: "force", kind: kinds, usage: "go on in spite of problems of these `KINDS`: quorum, ha, qdevice-present"},
				{name: "timeout", kind: number, least: 1, usage: "stay unless the cluster lets it go within `SECONDS`", standard: "60"},
				dryRun, outputFormat,
			},
			run: leave,
		},
		{
			name: "rename-node", usage: "give a node another name", needs: needsRoot,
			description: "Changes the host's name, corosync.conf, the node's directory with the configurations of its guests, what the cluster's settings say of the node, its certificate and ssh keys, and on all nodes /etc/hosts and the node's RRD files. No guest may run on the node. If it is interrupted, the same command completes it.",
			args:        []param{{name: "old", kind: node}, {name: "new", kind: node}},
			options: []param{
				{name: "force", kind: kinds, usage: "go on in spite of problems of these `KINDS`: ha, leftovers, ssh"},
				{name: "timeout", kind: number, least: 1, usage: "stop unless the node is back within `SECONDS`", standard: "120"},
				dryRun, outputFormat,
			},
			run: renameNode,
		},
		{
			name: "node-left", usage: "remove the ssh keys of a node that has left", needs: needsNode, hidden: true,
			args: []param{{name: "node", kind: node}},
			run: func(ctx context.Context, c *call) error {
				return cluster.NodeLeft(ctx, c.env.host, c.env.services, c.text("node"))
			},
		},
		{
			name: "node-renamed", usage: "follow when another node has changed its name", needs: needsRoot, hidden: true,
			args: []param{{name: "old", kind: node}, {name: "new", kind: node}},
			run: func(_ context.Context, c *call) error {
				return cluster.Renamed(c.env.host, c.text("old"), c.text("new"))
			},
		},
		{
			name: "status", usage: "show the cluster's state", needs: needsRoot,
			description: "The text is that of corosync-quorumtool, with the cluster's name before it. The status is 0 with quorum, 2 without, 1 if corosync doesn't run.",
			options:     []param{outputFormat}, run: status,
		},
		{
			name: "nodes", usage: "list the nodes that are there", needs: needsRoot,
			options: []param{outputFormat}, run: nodes,
		},
		{
			name: "expected", usage: "set the number of votes that corosync expects", needs: needsRoot,
			description: "Lowers the number of votes of which a majority is needed, so that the nodes that are left have quorum. It lasts until corosync restarts or a node joins. Never do it while other nodes run: both sides would change the cluster on their own.",
			args:        []param{{name: "expected", kind: number, least: 1, optional: true}},
			options: []param{
				{name: "reset", kind: boolean, usage: "go back to the configured number"},
				{name: "yes", kind: boolean, usage: "don't ask"},
			},
			run: expected,
		},
		{
			name: "keygen", usage: "make a key for corosync", args: []param{{name: "filename"}},
			run: func(ctx context.Context, c *call) error {
				return cluster.KeyGen(ctx, c.env.host, c.text("filename"))
			},
		},
		{
			name: "apiver", usage: "print the version of the join protocol",
			run: func(_ context.Context, c *call) error {
				_, err := fmt.Fprintln(c.env.stdout, apiVersion)
				return err
			},
		},
		{
			name: "updatecerts", usage: "make what is missing of keys, certificates and directories", needs: needsRoot,
			description: "Renews this node's certificate, too, if it ends soon, is not of the cluster's authority, or lacks a name or address of this host.",
			options: []param{
				{name: "force", kind: boolean, usage: "make a new certificate in any case"},
				{name: "silent", kind: boolean, usage: "tell no progress, and let no failure be one"},
				{name: "unmerge-known-hosts", kind: boolean, usage: "make /etc/ssh/ssh_known_hosts a file of this host's own"},
				{name: "wait", kind: boolean, usage: "begin when the cluster file system is mounted and has quorum, however long that takes"},
			},
			run: updateCerts,
		},
		{
			name: "check", usage: "look for what is wrong with keys, certificates and ssh between the nodes", needs: needsNode,
			options: []param{{name: "fix", kind: boolean, usage: "mend what can be mended"}, outputFormat},
			run:     check,
		},
		{
			name: "mtunnel", usage: "the far end of a guest's migration", needs: needsNode, more: "[-- COMMAND...]",
			description: "Other nodes call it over ssh.",
			options: []param{
				{name: "get_migration_ip", kind: boolean, usage: "print this node's address for migrations"},
				{name: "migration_network", kind: cidr, usage: "use the network `CIDR` instead of datacenter.cfg's"},
				{name: "run-command", kind: boolean, usage: "run a command with a connection as its input and output"},
			},
			run: mtunnel,
		},
		{
			name: "next-id", usage: "print the lowest free id for a guest", needs: needsNode,
			options: []param{
				{name: "lower", kind: number, least: 100, usage: "begin with `N`", standard: "datacenter.cfg's next-id, or 100"},
				{name: "upper", kind: number, least: 100, usage: "end below `N`", standard: "datacenter.cfg's next-id, or 1000000"},
			},
			run: nextID,
		},
		configCommand(), linkCommand(), setAddressCommand(), setVotesCommand(), configGuardCommand(),
		qdeviceCommand(),
		{name: "join-serve", hidden: true, needs: needsNode, options: []param{{name: "json", kind: boolean, usage: "speak JSON"}}, run: joinServe},
		{
			name: "join-info", usage: "print what a node needs to join this cluster", needs: needsNode,
			description: "Prints the text that the web interface shows as join information.",
			options:     []param{outputFormat}, run: joinInfo,
		},
		{name: "help", usage: "show how a command is used", more: "[COMMAND...]", options: []param{{name: "verbose", kind: boolean, usage: "show options, too"}}, run: help},
		{name: "bashcomplete", hidden: true, args: []param{{name: "command", optional: true}, {name: "cur", optional: true}, {name: "prev", optional: true}}, run: bashComplete},
		{name: "verifyapi", hidden: true, run: func(context.Context, *call) error { return nil }},
	}
	return list
}

// apiVersion is the version of the join protocol.
const apiVersion = 1

func create(ctx context.Context, c *call) error {
	r, done, err := cluster.Create(ctx, c.env.host, c.env.services, cluster.CreateOptions{
		Name:             c.text("clustername"),
		Links:            c.links(),
		ID:               uint32(c.number("nodeid", 1)),
		Votes:            c.number("votes", 1),
		TokenCoefficient: c.number("token-coefficient", 125),
		Force:            c.force(),
		DryRun:           c.isSet("dry-run"),
		Timeout:          time.Minute,
	})
	return c.finish(r, done, err)
}

func addNode(ctx context.Context, c *call) error {
	n := conf.NewNode{
		Name:       c.text("node"),
		Links:      c.links(),
		ID:         uint32(c.number("nodeid", 0)),
		Fallback:   c.text("new_node_ip"),
		APIVersion: c.number("apiversion", 0),
		Force:      slices.Contains(c.force(), "all") || slices.Contains(c.force(), conf.KindNodeExists),
		KeepDevice: slices.Contains(c.force(), conf.KindQDevice),
	}
	if _, given := c.values["votes"]; given {
		votes := c.number("votes", 0)
		n.Votes = &votes
	}
	answer, err := cluster.AddNode(ctx, c.env.host, c.env.services, n)
	if err != nil {
		return err
	}
	for _, w := range answer.Warnings {
		c.env.host.Warnf("%s", w)
	}
	return nil
}

func delNode(ctx context.Context, c *call) error {
	o := cluster.DelOptions{
		Node: c.text("node"), Force: c.force(), DryRun: c.isSet("dry-run"),
		Kill: c.isSet("kill"), SpareKeys: c.isSet("spare-keys"), KeepDir: c.isSet("keep-dir"), PurgeDir: c.isSet("purge-dir"),
	}
	r := &plan.Report{}
	remove := func(device bool) (err error) {
		o.Device = device
		r, err = cluster.DelNode(ctx, c.env.host, c.env.services, o)
		return err
	}
	if !c.isSet("with-qdevice") {
		return c.finish(r, false, remove(false))
	}
	q := qdeviceOptions(c)
	q.Without, q.NoCopyID = o.Node, true
	err := qdevice.Around(ctx, c.env.host, qdevice.Live(), q, remove)
	return c.finish(r, false, err)
}

func leave(ctx context.Context, c *call) error {
	r, done, err := cluster.Leave(ctx, c.env.host, c.env.services, cluster.LeaveOptions{
		Force: c.force(), DryRun: c.isSet("dry-run"), Timeout: time.Duration(c.number("timeout", 60)) * time.Second,
	})
	return c.finish(r, done, err)
}

func renameNode(ctx context.Context, c *call) error {
	if c.text("old") == c.text("new") {
		return usagef("both names are the same")
	}
	r, done, err := cluster.Rename(ctx, c.env.host, c.env.services, cluster.RenameOptions{
		Old: c.text("old"), New: c.text("new"), Force: c.force(), DryRun: c.isSet("dry-run"),
		Timeout: time.Duration(c.number("timeout", 120)) * time.Second,
	})
	return c.finish(r, done, err)
}

func joinInfo(_ context.Context, c *call) error {
	info, err := cluster.JoinInfo(c.env.host)
	if err != nil {
		return err
	}
	if c.json() {
		return c.writeJSON(info)
	}
	text, err := info.Text()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.env.stdout, base64.StdEncoding.EncodeToString(text))
	return err
}

func help(_ context.Context, c *call) error {
	app := newApp(c.env)
	app.Writer, app.ErrWriter = c.env.stdout, c.env.stderr
	if len(c.rest) == 0 {
		if !c.isSet("verbose") {
			return app.Run([]string{"pvecm", "--help"})
		}
		for _, d := range commands() {
			if !d.hidden {
				if err := app.Run([]string{"pvecm", d.name, "--help"}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	words, err := normalise(commands(), c.rest)
	if err != nil {
		return err
	}
	return app.Run(append(append([]string{"pvecm"}, words...), "--help"))
}

// bashComplete writes candidates for the word at the cursor.
func bashComplete(_ context.Context, c *call) error {
	line := c.env.getenv("COMP_LINE")
	if n, err := strconv.Atoi(c.env.getenv("COMP_POINT")); err == nil && n >= 0 && n < len(line) {
		line = line[:n]
	}
	words := strings.Fields(line)
	if len(words) > 0 {
		words = words[1:]
	}
	cur := c.text("cur")
	if len(words) > 0 && !strings.HasSuffix(line, " ") {
		cur, words = words[len(words)-1], words[:len(words)-1]
	} else if strings.HasSuffix(line, " ") {
		cur = ""
	}
	for _, candidate := range complete(commands(), words, cur) {
		fmt.Fprintln(c.env.stdout, candidate)
	}
	return nil
}

// complete returns what may stand where cur does, behind words.
func complete(list []command, words []string, cur string) (found []string) {
	var d *command
	for len(words) > 0 && (d == nil || len(d.below) > 0) {
		next, err := findCommand(list, words[0])
		if err != nil {
			return nil
		}
		d, list, words = next, next.below, words[1:]
	}
	var all []string
	switch {
	case d == nil || len(d.below) > 0:
		all = names(list)
	case len(words) > 0 && strings.HasPrefix(words[len(words)-1], "-"):
		p, err := findOption(d, strings.TrimLeft(words[len(words)-1], "-"))
		if err == nil && p.kind != boolean && p.kind != kinds {
			if p.kind == format {
				all = []string{"json", "text"}
			}
			break
		}
		if err == nil {
			all = []string{"0", "1"}
		}
		fallthrough
	default:
		for _, p := range d.options {
			all = append(all, "--"+p.name)
		}
	}
	for _, a := range all {
		if strings.HasPrefix(a, cur) {
			found = append(found, a)
		}
	}
	slices.Sort(found)
	return found
}
