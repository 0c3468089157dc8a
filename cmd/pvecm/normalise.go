package main

import (
	"slices"
	"strings"
)

// normalise brings a command line into the form that urfave/cli knows: the command in
// full, then its options as --name=value, then -- and the arguments. Scripts and other
// Proxmox programs call pvecm with one dash or two, with abbreviated names, with options
// before and behind arguments, and with values for booleans.
func normalise(list []command, args []string) ([]string, error) {
	if len(args) > 0 && args[0] == "documentation" {
		return args, nil // the package's build calls it
	}
	var path []string
	var c *command
	for {
		if len(args) == 0 {
			return path, nil
		}
		if strings.HasPrefix(args[0], "-") && c == nil {
			if isHelp(args[0]) || args[0] == "--version" || args[0] == "-v" {
				return args[:1], nil
			}
			return nil, usagef("a command comes first, not %q (\"pvecm help\" lists them)", args[0])
		}
		if c != nil && isHelp(args[0]) {
			return append(path, "--help"), nil
		}
		next, err := findCommand(list, args[0])
		if err != nil {
			return nil, err
		}
		path, args = append(path, next.name), args[1:]
		if c = next; len(c.below) == 0 {
			break
		}
		list = c.below
	}
	options, rest, err := normaliseOptions(c, args)
	if err != nil {
		return nil, err
	}
	words := append(path, options...)
	if len(rest) > 0 {
		words = append(append(words, "--"), rest...)
	}
	return words, nil
}

func isHelp(word string) bool { return word == "--help" || word == "-help" || word == "-h" }

// stock are the commands of Proxmox VE's tool: their abbreviations stay what they are.
var stock = []string{"add", "addnode", "apiver", "create", "delnode", "expected", "help", "keygen", "mtunnel", "nodes", "qdevice", "status", "updatecerts"}

// findCommand finds a command by its name, or by a beginning of it that no other has.
func findCommand(list []command, word string) (*command, error) {
	var found []*command
	for i := range list {
		switch c := &list[i]; {
		case c.name == word:
			return c, nil
		case strings.HasPrefix(c.name, word) && word != "" && !c.hidden:
			found = append(found, c)
		}
	}
	if len(found) > 1 {
		old := slices.DeleteFunc(slices.Clone(found), func(c *command) bool { return !slices.Contains(stock, c.name) })
		if len(old) == 1 {
			found = old
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, usagef("there is no command %q: there are %s", word, strings.Join(names(list), ", "))
	}
	var all []string
	for _, c := range found {
		all = append(all, c.name)
	}
	return nil, usagef("%q may be %s", word, strings.Join(all, " or "))
}

// normaliseOptions splits the words behind a command into options and arguments.
func normaliseOptions(c *command, args []string) (options, rest []string, err error) {
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		if word == "--" {
			return options, append(rest, args...), nil
		}
		if !strings.HasPrefix(word, "-") || word == "-" {
			rest = append(rest, word)
			continue
		}
		if isHelp(word) {
			return []string{"--help"}, nil, nil
		}
		name, value, has := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-"), "=")
		p, err := findOption(c, name)
		if err != nil {
			return nil, nil, err
		}
		switch {
		case p.kind == boolean || p.kind == kinds:
			if !has && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				b, ok := truth(args[0])
				if !ok {
					return nil, nil, usagef("--%s: %q is neither yes nor no", p.name, args[0])
				}
				value, args = b, args[1:]
			} else if !has {
				value = "true"
			} else if b, ok := truth(value); ok {
				value = b
			} else if p.kind == boolean {
				return nil, nil, usagef("--%s: %q is neither yes nor no", p.name, value)
			}
		case !has && len(args) == 0:
			return nil, nil, usagef("--%s needs a value", p.name)
		case !has:
			value, args = args[0], args[1:]
		}
		options = append(options, "--"+p.name+"="+value)
	}
	return options, rest, nil
}

// findOption finds an option by its name, or by a beginning of it that no other has.
func findOption(c *command, name string) (*param, error) {
	var found []*param
	for i := range c.options {
		switch p := &c.options[i]; {
		case strings.EqualFold(p.name, name):
			return p, nil
		case name != "" && len(name) < len(p.name) && strings.EqualFold(p.name[:len(name)], name):
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, usagef("%s has no option --%s (\"pvecm help %s\" lists them)", c.name, name, c.name)
	}
	var all []string
	for _, p := range found {
		all = append(all, "--"+p.name)
	}
	return nil, usagef("--%s may be %s", name, strings.Join(all, " or "))
}

// truth reads a boolean's value.
func truth(word string) (value string, ok bool) {
	switch strings.ToLower(word) {
	case "1", "on", "yes", "true":
		return "true", true
	case "0", "off", "no", "false":
		return "false", true
	}
	return "", false
}
