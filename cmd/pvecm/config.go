package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/cmd/internal/reconf"
	"pmxcfs/corosync/conf"
)

// changeOptions are those of all commands that change corosync.conf on trial.
func changeOptions() []param {
	return []param{
		{name: "timeout", kind: number, least: 5, usage: "go back unless the cluster is as before within `SECONDS`", standard: "60"},
		{name: "force", kind: kinds, usage: "go on in spite of problems of these `KINDS`: node-offline, node-test, node-goes, node-comes"},
		dryRun, outputFormat,
	}
}

const onTrial = "Every node holds the present configuration ready and goes back to it by itself unless, within the time limit, the cluster is as it was before: quorate, with the same members, all links connected, and the new version loaded everywhere. That holds, too, if this command is killed, or this node loses its power."

// configCommand is "pvecm config".
func configCommand() command {
	file := param{name: "file"}
	return command{
		name: "config", usage: "look at and change the cluster's corosync.conf, with a way back",
		description: onTrial,
		below: []command{
			{name: "show", usage: "print the cluster's corosync.conf", needs: needsNode, run: configShow},
			{name: "edit", usage: "change it in an editor, $VISUAL or $EDITOR", needs: needsNode, description: onTrial, options: changeOptions(), run: configEdit},
			{name: "check", usage: "look for what is wrong with a new text, on every node", needs: needsNode, args: []param{file}, options: []param{outputFormat}, run: configCheck},
			{name: "diff", usage: "say what a new text would change", needs: needsNode, args: []param{file}, run: configDiff},
			{name: "apply", usage: "make a text the cluster's corosync.conf", needs: needsNode, description: "FILE is the new text, - the input. Its config_version goes up by itself.\n" + onTrial, args: []param{file}, options: changeOptions(), run: configApply},
			{name: "rollback", usage: "go back to the text that was in force before, or to that of a version", needs: needsNode, description: onTrial, args: []param{{name: "version", kind: number, least: 1, optional: true}}, options: changeOptions(), run: configRollback},
			{name: "history", usage: "list the versions whose texts are kept", needs: needsNode, run: configHistory},
		},
	}
}

// configGuardCommand is what nodes call on each other.
func configGuardCommand() command {
	return command{
		name: "config-guard", usage: "keep a node's part of a change of corosync.conf", hidden: true,
		below: []command{
			{name: "test", usage: "have corosync test the text in the input", needs: needsRoot, run: func(ctx context.Context, c *call) error {
				text, err := io.ReadAll(io.LimitReader(c.env.host.Stdin, maxConf))
				if err != nil {
					return err
				}
				return reconf.Test(ctx, c.env.host, text)
			}},
			{name: "arm", usage: "hold a configuration ready", needs: needsNode, run: func(ctx context.Context, c *call) error {
				var p reconf.Pledge
				if err := json.NewDecoder(io.LimitReader(c.env.host.Stdin, maxConf)).Decode(&p); err != nil {
					return usagef("the pledge: %v", err)
				}
				return reconf.Arm(ctx, c.env.host, &p)
			}},
			{name: "due", usage: "go back", needs: needsRoot, run: func(_ context.Context, c *call) error {
				id, err := io.ReadAll(io.LimitReader(c.env.host.Stdin, maxConf))
				if err != nil {
					return err
				}
				return reconf.Due(c.env.host, strings.TrimSpace(string(id)))
			}},
			{name: "wait", usage: "wait for what becomes of a change", needs: needsRoot, run: func(ctx context.Context, c *call) error {
				return reconf.Wait(ctx, c.env.host)
			}},
		},
	}
}

// maxConf is more than a corosync.conf may have.
const maxConf = 4 << 20

// newText reads the text that an argument names.
func newText(c *call) ([]byte, error) {
	name := c.text("file")
	if name == "-" {
		return io.ReadAll(io.LimitReader(c.env.host.Stdin, maxConf))
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, plan.Errorf(plan.Parameters, "%w", err)
	}
	return text, nil
}

func (c *call) change(text []byte) reconf.Options {
	return reconf.Options{Text: text, Force: c.force(), DryRun: c.isSet("dry-run"), Timeout: time.Duration(c.number("timeout", 60)) * time.Second}
}

func (c *call) apply(ctx context.Context, text []byte) error {
	r, done, err := reconf.Apply(ctx, c.env.host, c.change(text))
	return c.finish(r, done, err)
}

func configShow(_ context.Context, c *call) error {
	if err := cluster.NeedCluster(c.env.host); err != nil {
		return err
	}
	text, err := c.env.host.ReadFile(host.ClusterConf)
	if err != nil {
		return err
	}
	_, err = c.env.stdout.Write(text)
	return err
}

func configCheck(ctx context.Context, c *call) error {
	text, err := newText(c)
	if err != nil {
		return err
	}
	r, done, err := reconf.Check(ctx, c.env.host, c.change(text))
	if err == nil && !done && !c.json() {
		for _, s := range r.Steps {
			fmt.Fprintln(c.env.stdout, s)
		}
	}
	return c.finish(r, done, err)
}

func configDiff(_ context.Context, c *call) error {
	if err := cluster.NeedCluster(c.env.host); err != nil {
		return err
	}
	text, err := newText(c)
	if err != nil {
		return err
	}
	before, err := cluster.Read(c.env.host)
	if err != nil {
		return err
	}
	after, err := conf.Read(text)
	if err != nil {
		return plan.Fail(plan.Refused, "config-unparsable", "", "%s: %v", c.text("file"), err)
	}
	list := reconf.Effect(before, after)
	for _, line := range list {
		fmt.Fprintln(c.env.stdout, line)
	}
	if len(list) == 0 {
		fmt.Fprintln(c.env.stdout, "no difference in effect")
	}
	return nil
}

func configApply(ctx context.Context, c *call) error {
	text, err := newText(c)
	if err != nil {
		return err
	}
	return c.apply(ctx, text)
}

// configEdit has an editor change a copy.
func configEdit(ctx context.Context, c *call) error {
	h := c.env.host
	if err := cluster.NeedCluster(h); err != nil {
		return err
	}
	before, err := h.ReadFile(host.ClusterConf)
	if err != nil {
		return err
	}
	editor := c.env.getenv("VISUAL")
	for _, other := range []string{c.env.getenv("EDITOR"), "editor"} {
		if editor == "" {
			editor = other
		}
	}
	dir, err := os.MkdirTemp("", "pvecm-config-")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "corosync.conf")
	if err := os.WriteFile(name, before, 0o600); err != nil {
		return err
	}
	// The editor may have arguments, as other programs allow.
	args := append(strings.Fields(editor), name)
	if err := h.Do(ctx, host.Command{Args: args, Stdin: h.Stdin, Stdout: h.Stdout, Stderr: h.Stderr}); err != nil {
		return err
	}
	after, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if bytes.Equal(before, after) {
		return c.finish(&plan.Report{}, true, os.RemoveAll(dir))
	}
	if err := c.apply(ctx, after); err != nil {
		h.Warnf("your text is in %s; \"pvecm config apply %s\" tries it again", name, name)
		return err
	}
	return os.RemoveAll(dir)
}

func configRollback(ctx context.Context, c *call) error {
	h := c.env.host
	present, err := cluster.Read(h)
	if err != nil {
		return err
	}
	saved, err := reconf.Saved(h)
	if err != nil {
		return err
	}
	if _, given := c.values["version"]; given {
		saved = slices.DeleteFunc(saved, func(v uint64) bool { return v != uint64(c.number("version", 0)) })
	}
	version, err := present.ConfigVersion()
	if err != nil {
		return err
	}
	for _, v := range saved {
		text, err := reconf.SavedText(h, v)
		if err != nil {
			return err
		}
		old, err := conf.Read(text)
		if err != nil {
			return err
		}
		if len(reconf.Effect(present, old)) == 0 && c.values["version"] == "" {
			continue // it has been gone back to already
		}
		if err := old.Set(old.Section("totem"), "config_version", strconv.FormatUint(version, 10)); err != nil {
			return err
		}
		h.Sayf("Going back to the text of version %d", v)
		return c.apply(ctx, old.Text())
	}
	return plan.Fail(plan.Refused, "no-history", "\"pvecm config history\" lists what there is", "there is no such text to go back to")
}

func configHistory(_ context.Context, c *call) error {
	h := c.env.host
	if err := cluster.NeedCluster(h); err != nil {
		return err
	}
	newer, err := cluster.Read(h)
	if err != nil {
		return err
	}
	saved, err := reconf.Saved(h)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.env.stdout, "version %s is in force\n", newer.Section("totem").Get("config_version"))
	for _, v := range saved {
		text, err := reconf.SavedText(h, v)
		if err != nil {
			return err
		}
		older, err := conf.Read(text)
		if err != nil {
			fmt.Fprintf(c.env.stdout, "version %d can't be read: %v\n", v, err)
			continue
		}
		when := ""
		if info, err := os.Stat(h.Path(filepath.Join(host.Mount, "priv/corosync.conf.d", strconv.FormatUint(v, 10)))); err == nil {
			when = " until " + info.ModTime().Format(time.DateTime)
		}
		fmt.Fprintf(c.env.stdout, "version %d%s; what came after it:\n", v, when)
		for _, line := range reconf.Effect(older, newer) {
			fmt.Fprintf(c.env.stdout, "  %s\n", line)
		}
		newer = older
	}
	return nil
}

// edited applies a change that is made by the configuration's own editing.
func edited(ctx context.Context, c *call, change func(f *conf.File) error) error {
	f, err := cluster.Read(c.env.host)
	if err != nil {
		return err
	}
	if err := cluster.NeedCluster(c.env.host); err != nil {
		return err
	}
	if err := change(f); err != nil {
		return err
	}
	return c.apply(ctx, f.Text())
}

func unknownNode(name string) error {
	return plan.Fail(plan.Refused, conf.KindUnknownNode, "\"pvecm config show\" shows them", "there is no node %s in the cluster's corosync.conf", name)
}

// setVotesCommand is "pvecm set-votes".
func setVotesCommand() command {
	return command{
		name: "set-votes", usage: "give a node other votes", needs: needsNode, description: onTrial,
		args:    []param{{name: "node", kind: node}, {name: "votes", kind: number, least: 0}},
		options: changeOptions(),
		run: func(ctx context.Context, c *call) error {
			return edited(ctx, c, func(f *conf.File) error {
				n := f.Node(c.text("node"))
				if n == nil {
					return unknownNode(c.text("node"))
				}
				return f.Set(n, "quorum_votes", c.text("votes"))
			})
		},
	}
}

// setAddressCommand is "pvecm set-address".
func setAddressCommand() command {
	return command{
		name: "set-address", usage: "give a node other addresses on the cluster's links", needs: needsNode,
		description: "The node must have the new address already.\n" + onTrial,
		args:        []param{{name: "node", kind: node}},
		options:     slices.Concat(linkOptions("the node"), changeOptions()),
		run: func(ctx context.Context, c *call) error {
			links := c.links()
			if len(links) == 0 {
				return usagef("an address is missing: --link0 ADDRESS and so on")
			}
			return edited(ctx, c, func(f *conf.File) error {
				for _, n := range slices.Sorted(maps.Keys(links)) {
					s := f.Node(c.text("node")) // each change makes the sections anew
					if s == nil {
						return unknownNode(c.text("node"))
					}
					key, _ := conf.LinkAddress(s, n)
					if key == "" {
						return plan.Fail(plan.Refused, conf.KindLinkUnknown, fmt.Sprintf("pvecm link add %d", n), "node %s has no link %d", c.text("node"), n)
					}
					if err := f.Set(s, key, links[n].Address); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// linkCommand is "pvecm link".
func linkCommand() command {
	n := param{name: "n", kind: number, least: 0}
	return command{
		name: "link", usage: "add a link between the nodes, or remove one", description: onTrial,
		below: []command{
			{
				name: "add", usage: "add a link", needs: needsNode, args: []param{n}, more: "NODE=ADDRESS...", description: "Every node needs an address, which it must have already.\n" + onTrial,
				options: append([]param{{name: "priority", kind: number, least: 0, usage: "prefer the link with the highest `N`", standard: "0"}}, changeOptions()...),
				run:     linkAdd,
			},
			{name: "remove", usage: "remove a link", needs: needsNode, args: []param{n}, description: onTrial, options: changeOptions(), run: linkRemove},
		},
	}
}

func linkAdd(ctx context.Context, c *call) error {
	n := c.text("n")
	addresses := map[string]string{}
	for _, word := range c.rest {
		name, address, found := strings.Cut(word, "=")
		if !found || conf.ValidNode(name) != nil || conf.ValidAddress(address) != nil {
			return usagef("%q is not NODE=ADDRESS", word)
		}
		addresses[name] = address
	}
	return edited(ctx, c, func(f *conf.File) error {
		var missing []string
		for _, s := range f.Nodes() {
			name := conf.NodeName(s)
			if addresses[name] == "" {
				missing = append(missing, name)
			}
			if key, _ := conf.LinkAddress(s, c.number("n", 0)); key != "" {
				return plan.Fail(plan.Refused, "link-exists", "pvecm set-address", "node %s has a link %s already", name, n)
			}
		}
		if len(missing) > 0 {
			return plan.Fail(plan.Refused, conf.KindLinkMissing, "", "an address is missing for %s", strings.Join(missing, ", "))
		}
		for _, name := range slices.Sorted(maps.Keys(addresses)) {
			s := f.Node(name)
			if s == nil {
				return unknownNode(name)
			}
			if err := f.Set(s, "ring"+n+"_addr", addresses[name]); err != nil {
				return err
			}
		}
		// Without any interface section all links have the defaults.
		priority := c.number("priority", 0)
		if len(f.Interfaces()) == 0 && priority == 0 {
			return nil
		}
		b := conf.Block{Name: "interface", Keys: map[string]string{"linknumber": n}}
		if priority != 0 {
			b.Keys["knet_link_priority"] = strconv.Itoa(priority)
		}
		return f.Insert(f.Section("totem"), b)
	})
}

func linkRemove(ctx context.Context, c *call) error {
	n := c.text("n")
	return edited(ctx, c, func(f *conf.File) error {
		found := false
		for _, name := range nodeNames(f) {
			s := f.Node(name)
			key, _ := conf.LinkAddress(s, c.number("n", 0))
			if key == "" {
				continue
			}
			found = true
			if len(conf.Links(s)) == 1 {
				return plan.Fail(plan.Refused, "last-link", "add another one first", "link %s is the only one of node %s", n, name)
			}
			if err := f.Delete(s, key); err != nil {
				return err
			}
		}
		if !found {
			return plan.Fail(plan.Refused, conf.KindLinkUnknown, "", "there is no link %s", n)
		}
		for _, i := range f.Interfaces() {
			if i.Get("linknumber") == n {
				return f.Remove(i)
			}
		}
		return nil
	})
}

func nodeNames(f *conf.File) (list []string) {
	for _, n := range f.Nodes() {
		list = append(list, conf.NodeName(n))
	}
	return list
}
