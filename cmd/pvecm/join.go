package main

import (
	"context"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/join"
	"pmxcfs/cmd/internal/keys"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/cmd/internal/task"
)

// addCommand is "pvecm add".
func addCommand() command {
	return command{
		name: "add", usage: "make this host a node of a cluster", needs: needsRoot, // in the middle of a join there is no mount
		description: "HOSTNAME is a node of the cluster. Over its API root's password there is asked for, or read from the input; over ssh root's key has to be there.\nEverything is checked on both sides before anything is changed. A join that fails is taken back on both sides; one whose process was killed is completed by --resume or taken back by --abort.",
		args:        []param{{name: "hostname", optional: true}},
		options: slices.Concat(linkOptions("this host"), []param{
			{name: "nodeid", kind: number, least: 1, usage: "give this node the id `N`", standard: "the smallest free one"},
			{name: "votes", kind: number, least: 0, usage: "give this node `N` votes", standard: "1"},
			{name: "force", kind: kinds, usage: "go on in spite of problems of these `KINDS`: authkey, cluster-exists, leftovers, guests, ha, link-address, clock, unreachable-member, node-exists, qdevice-present; without a value, of all that can be passed over"},
			{name: "fingerprint", kind: fingerprint, usage: "accept only the certificate, or over ssh the host key, with the SHA-256 `FINGERPRINT`"},
			{name: "use_ssh", kind: boolean, usage: "join over ssh, whether or not there is an API"},
			{name: "via", usage: "join over `WAY`: api, ssh, or auto", standard: "auto: over the API if there is one"},
			{name: "with-qdevice", kind: boolean, usage: "set the cluster's external vote up again for the new number of nodes"},
			{name: "copy-id", kind: boolean, usage: "take root's ssh key there first, which asks for a password"},
			{name: "join-info", usage: "take host name and fingerprint from join information: `TEXT`, or - for the input"},
			{name: "password-file", usage: "read root's password from `FILE`"},
			{name: "api-token-file", usage: "log in at the API with the token in `FILE`: USER@REALM!NAME=SECRET"},
			{name: "timeout", kind: number, least: 1, usage: "take it back unless this host is a member within `SECONDS`", standard: "120"},
			{name: "rollback-peer", kind: boolean, usage: "if it fails and a cluster of one stock node has lost quorum by it, set its expected votes to 1 to take this node out again"},
			{name: "resume", kind: boolean, usage: "go on with a join that was interrupted"},
			{name: "abort", kind: boolean, usage: "take a join back that was interrupted"},
			dryRun, outputFormat,
		}),
		run: add,
	}
}

// joinServices are what a join uses on a real host.
func joinServices() join.Services {
	return join.Services{
		RootKey:    keys.EnsureRootKey,
		PrepareSSH: prepareSSH,
		Task:       task.Run,
		Finish: func(ctx context.Context, h *host.Host) error {
			return keys.Update(ctx, h, keys.Options{Force: true})
		},
	}
}

// prepareSSH makes root's key and lets nodes log in with theirs.
func prepareSSH(ctx context.Context, h *host.Host) error {
	if err := keys.EnsureRootKey(ctx, h); err != nil {
		return err
	}
	return keys.AllowRootLogin(ctx, h)
}

func add(ctx context.Context, c *call) error {
	o, err := addOptions(c)
	if err != nil {
		return err
	}
	s := c.env.join
	switch {
	case c.isSet("resume"):
		return c.finish(&plan.Report{}, false, join.Resume(ctx, c.env.host, s, *o))
	case c.isSet("abort"):
		return c.finish(&plan.Report{}, false, join.Abort(ctx, c.env.host, s, *o))
	}
	o.Version, o.Corosync = version, corosyncVersion(ctx, c.env.host)
	r, done, err := join.Add(ctx, c.env.host, s, *o)
	return c.finish(r, done, err)
}

// addOptions reads how to join.
func addOptions(c *call) (*join.Options, error) {
	h := c.env.host
	o := &join.Options{
		Peer: c.text("hostname"), Fingerprint: c.text("fingerprint"), Via: "auto", Force: c.force(),
		DryRun: c.isSet("dry-run"), CopyID: c.isSet("copy-id"), RollbackPeer: c.isSet("rollback-peer"),
		Timeout: time.Duration(c.number("timeout", 120)) * time.Second,
		Request: join.Request{Name: h.Name, ID: uint32(c.number("nodeid", 0)), Links: c.links()},
	}
	if _, given := c.values["votes"]; given {
		votes := c.number("votes", 1)
		o.Request.Votes = &votes
	}
	o.Request.Force = slices.Contains(o.Force, "all") || slices.Contains(o.Force, "node-exists")
	o.WithDevice = c.isSet("with-qdevice")
	o.Request.Device = o.WithDevice || slices.Contains(o.Force, "qdevice-present") || slices.Contains(o.Force, "all")
	if v, given := c.values["via"]; given {
		o.Via = v
	}
	if c.isSet("use_ssh") {
		o.Via = "ssh"
	}
	if !slices.Contains([]string{"auto", "api", "ssh"}, o.Via) {
		return nil, usagef("via: %q is neither api nor ssh nor auto", o.Via)
	}
	asker := join.NewAsker(h.Stdin, c.env.stderr)
	o.Terminal = asker.Terminal()
	if text, given := c.values["join-info"]; given {
		if text == "-" {
			line, err := asker.Line("")
			if err != nil {
				return nil, usagef("join-info: %v", err)
			}
			text = line
		}
		info, err := cluster.ParseInfo(text)
		if err != nil {
			return nil, err
		}
		if o.Peer == "" {
			o.Peer = info.Address
		}
		if o.Fingerprint == "" {
			o.Fingerprint = info.Fingerprint
		}
	}
	if o.Peer == "" && !c.isSet("resume") && !c.isSet("abort") {
		return nil, usagef("the name or address of a node of the cluster is missing: pvecm add HOSTNAME")
	}
	o.Credentials = func() (join.Credentials, error) { return credentials(c, asker, o.Peer) }
	o.Trust = func(fingerprint string) bool {
		fmt.Fprintf(c.env.stderr, "The certificate of %s can't be verified. Its SHA-256 fingerprint is\n%s\n", o.Peer, fingerprint)
		return asker.Yes("Is it the right one? (yes/no): ")
	}
	if asker.Terminal() {
		o.Second = func(kinds []string) (string, string, error) {
			kind := kinds[0]
			if len(kinds) > 1 {
				answer, err := asker.Line("Which second factor? (" + strings.Join(kinds, ", ") + "): ")
				if err != nil {
					return "", "", err
				}
				if kind = strings.TrimSpace(answer); !slices.Contains(kinds, kind) {
					return "", "", plan.Fail(plan.Trust, "login-failed", "", "%q is none of them", kind)
				}
			}
			code, err := asker.Line("Code of " + kind + ": ")
			return kind, strings.TrimSpace(code), err
		}
	}
	return o, nil
}

// credentials reads a password or token from where it is.
func credentials(c *call, asker *join.Asker, peer string) (join.Credentials, error) {
	read := func(name string) (string, error) {
		text, err := c.env.host.ReadFile(c.text(name))
		if err != nil {
			return "", plan.Errorf(plan.Parameters, "%s: %w", name, err)
		}
		line, _, _ := strings.Cut(string(text), "\n")
		return strings.TrimRight(line, "\r"), nil
	}
	if _, given := c.values["api-token-file"]; given {
		token, err := read("api-token-file")
		return join.Credentials{Token: token}, err
	}
	if _, given := c.values["password-file"]; given {
		password, err := read("password-file")
		return join.Credentials{Password: password}, err
	}
	password, err := asker.Password("Password of root on " + peer + ": ")
	if err != nil {
		return join.Credentials{}, plan.Errorf(plan.Trust, "no password: %w", err)
	}
	return join.Credentials{Password: password}, nil
}

// joinServe is the cluster's side of a join over ssh.
func joinServe(ctx context.Context, c *call) error {
	// The connection may end in the middle of an answer, and what was entered has to be
	// taken back then.
	signal.Ignore(syscall.SIGPIPE)
	h := c.env.host
	h.Stdout = c.env.stderr
	s := &join.Server{Host: h, Services: c.env.services, Version: version, Corosync: corosyncVersion(ctx, h), Grace: 20 * time.Second}
	return s.Serve(ctx, h.Stdin, c.env.stdout)
}

// corosyncVersion is the version of the corosync that is installed; empty: it can't be told.
func corosyncVersion(ctx context.Context, h *host.Host) string {
	out, err := h.Output(ctx, "corosync", "-v")
	if err != nil {
		return ""
	}
	return join.CorosyncVersion(string(out))
}
