package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// command is the definition of a command, from which its parsing, its checks, its help,
// its manual page and its completion come.
type command struct {
	name, usage, description string
	args                     []param
	more                     string // further arguments, behind --; empty: none are allowed
	options                  []param
	needs                    need
	hidden                   bool
	run                      func(ctx context.Context, c *call) error
	below                    []command
}

// need is what a command needs before it begins.
type need int

const (
	needsNothing need = iota
	needsRoot
	needsNode // root, and the mount
)

// param is an option or an argument.
type param struct {
	name, usage string
	kind        kind
	least       int  // of a number
	optional    bool // of an argument
	standard    string
	hidden      bool
}

// kind is a parameter's type.
type kind int

const (
	text kind = iota
	boolean
	number
	link
	ip
	cidr
	fingerprint
	node
	clusterName
	format
	kinds // of problems, or a boolean
)

// check says what is wrong with a value.
func (p param) check(value string) (err error) {
	switch p.kind {
	case number:
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is no number", value)
		}
		if int(n) < p.least {
			return fmt.Errorf("%d is less than %d", n, p.least)
		}
	case link:
		_, err = conf.ParseLink(value)
	case ip:
		err = conf.ValidIP(value)
	case cidr:
		_, err = conf.ValidCIDR(value)
	case fingerprint:
		if blob, found := strings.CutPrefix(value, "SHA256:"); found && len(strings.TrimRight(blob, "=")) == 43 {
			return nil // as ssh shows that of a host key
		}
		err = conf.ValidFingerprint(value)
	case node:
		err = conf.ValidNode(value)
	case clusterName:
		err = conf.ValidCluster(value)
	case format:
		if value != "text" && value != "json" {
			err = fmt.Errorf("%q is neither text nor json", value)
		}
	}
	return err
}

// call is a command as it was called.
type call struct {
	env     *env
	command *command
	values  map[string]string // of options that were given, and of arguments
	rest    []string          // arguments behind the named ones
}

func (c *call) isSet(name string) bool {
	v, given := c.values[name]
	return given && v != "false"
}

func (c *call) text(name string) string { return c.values[name] }

func (c *call) number(name string, standard int) int {
	if n, err := strconv.Atoi(c.values[name]); err == nil {
		return n
	}
	return standard
}

// links are the links given.
func (c *call) links() map[int]conf.Link {
	links := map[int]conf.Link{}
	for n := range 8 {
		if value, given := c.values["link"+strconv.Itoa(n)]; given {
			links[n], _ = conf.ParseLink(value) // checked
		}
	}
	return links
}

// force are the kinds of problems that shall not stop the command.
func (c *call) force() []string {
	switch v := c.values["force"]; v {
	case "", "false":
		return nil
	case "true":
		return []string{"all"}
	default:
		return strings.Split(v, ",")
	}
}

func (c *call) json() bool { return c.values["output-format"] == "json" }

// build makes urfave's command of a definition.
func (d command) build(e *env) *cli.Command {
	c := &cli.Command{
		Name: d.name, Usage: d.usage, Description: d.description, Hidden: d.hidden,
		HideHelpCommand: true, ArgsUsage: d.argsUsage(),
		// The last of a repeated option counts.
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return usagef("%v", err) },
	}
	for _, p := range d.options {
		usage := p.usage
		if p.kind == boolean {
			c.Flags = append(c.Flags, &cli.BoolFlag{Name: p.name, Usage: usage, Hidden: p.hidden})
			continue
		}
		c.Flags = append(c.Flags, &cli.StringFlag{Name: p.name, Usage: usage, DefaultText: p.standard, Hidden: p.hidden})
	}
	for _, sub := range d.below {
		c.Subcommands = append(c.Subcommands, sub.build(e))
	}
	c.Action = func(x *cli.Context) error {
		if d.run == nil {
			return usagef("%s %s: a command is missing: %s", "pvecm", d.name, strings.Join(names(d.below), ", "))
		}
		call, err := d.read(e, x)
		if err != nil {
			return err
		}
		if err := precheck(e, d.needs); err != nil {
			return err
		}
		if call.json() {
			e.host.Stdout = e.stderr // stdout is for the document
		}
		return d.run(x.Context, call)
	}
	return c
}

func (d command) argsUsage() string {
	var parts []string
	for _, a := range d.args {
		name := strings.ToUpper(a.name)
		if a.optional {
			name = "[" + name + "]"
		}
		parts = append(parts, name)
	}
	if d.more != "" {
		parts = append(parts, d.more)
	}
	return strings.Join(parts, " ")
}

// read checks everything that was given, and tells all that is wrong with it at once.
func (d command) read(e *env, x *cli.Context) (*call, error) {
	c := &call{env: e, command: &d, values: map[string]string{}}
	r := plan.Report{}
	bad := func(kind, name string, err error) {
		r.Add(plan.Problem{Kind: kind, Text: fmt.Sprintf("%s: %v", name, err), Code: plan.Parameters, Hard: true})
	}
	for _, p := range d.options {
		if !x.IsSet(p.name) {
			continue
		}
		if p.kind == boolean {
			c.values[p.name] = strconv.FormatBool(x.Bool(p.name))
			continue
		}
		c.values[p.name] = x.String(p.name)
		if err := p.check(c.values[p.name]); err != nil {
			bad("parameter", p.name, err)
		}
	}
	given := x.Args().Slice()
	for _, a := range d.args {
		if len(given) == 0 {
			if !a.optional {
				bad("usage", a.name, fmt.Errorf("the argument is missing"))
			}
			continue
		}
		c.values[a.name] = given[0]
		if err := a.check(given[0]); err != nil {
			bad("parameter", a.name, err)
		}
		given = given[1:]
	}
	if c.rest = given; len(given) > 0 && d.more == "" {
		bad("usage", given[0], fmt.Errorf("there is an argument too many"))
	}
	if err := r.Err(); err != nil {
		fmt.Fprintf(e.stderr, "usage: pvecm %s\n", d.usageLine(x.Command.FullName()))
		return nil, err
	}
	return c, nil
}

func (d command) usageLine(name string) string {
	line := name
	if u := d.argsUsage(); u != "" {
		line += " " + u
	}
	if len(d.options) > 0 {
		line += " [OPTIONS]"
	}
	return line
}

func names(list []command) (all []string) {
	for _, c := range list {
		if !c.hidden {
			all = append(all, c.name)
		}
	}
	return all
}

// precheck is what has to hold before a command begins.
func precheck(e *env, n need) error {
	if n >= needsRoot && !e.root {
		return plan.Fail(plan.Refused, "not-root", "", "only root can do this")
	}
	if n < needsNode {
		return nil
	}
	if err := e.host.Mounted(); err != nil {
		return err
	}
	_, err := e.host.Address()
	return err
}

// linkOptions are --link0 to --link7.
func linkOptions(whose string) (list []param) {
	for n := range 8 {
		list = append(list, param{name: "link" + strconv.Itoa(n), kind: link, usage: fmt.Sprintf("`LINK` %d of %s: [address=]ADDRESS[,priority=0…255]", n, whose)})
	}
	return list
}
