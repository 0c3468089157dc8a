package conf

import (
	"fmt"
	"strconv"
	"strings"
)

// Block is a section to insert.
type Block struct {
	Name   string
	Keys   map[string]string
	Blocks []Block
}

// Change returns the file as it is after a change, with config_version raised by
// one. It refuses what would add problems that the file doesn't have yet: a
// *Refusal, and f is as it was.
func (f *File) Change(change func(*File) error) (*File, error) {
	if len(f.defects) > 0 {
		return nil, &Refusal{Kind: KindConfigInvalid, Findings: f.defects}
	}
	version, err := f.ConfigVersion()
	if err != nil {
		return nil, &Refusal{Kind: KindNoConfigVersion, Findings: []Finding{{Kind: KindBadVersion, Value: f.Section("totem").Get("config_version")}}}
	}
	g, err := Read([]byte(f.text))
	if err != nil {
		return nil, err
	}
	if !g.lineWise() {
		text, err := g.Print()
		if err != nil {
			return nil, err
		}
		if g, err = Read(text); err != nil {
			return nil, err
		}
	}
	if err := change(g); err != nil {
		return nil, err
	}
	if err := g.Set(g.Section("totem"), "config_version", strconv.FormatUint(version+1, 10)); err != nil {
		return nil, err
	}
	before := map[Finding]bool{}
	for _, p := range f.Problems() {
		p.Line = 0
		before[p] = true
	}
	var added []Finding
	for _, p := range g.Problems() {
		line := p.Line
		if p.Line = 0; !before[p] {
			p.Line = line
			added = append(added, p)
		}
	}
	if len(added) > 0 {
		return nil, &Refusal{Kind: KindConfigInvalid, Findings: added}
	}
	return g, nil
}

// Set sets a key's value, in place if it is there.
func (f *File) Set(s *Section, key, value string) error {
	for n := len(s.items) - 1; n >= 0; n-- {
		if i := s.items[n]; i.sub == nil && i.key == key {
			return f.splice(i.valueStart, i.end, value)
		}
	}
	return f.insert(s, key, "", []string{key + ": " + value})
}

// Delete removes a key, if it is there.
func (f *File) Delete(s *Section, key string) error {
	for n := len(s.items) - 1; n >= 0; n-- {
		if i := s.items[n]; i.sub == nil && i.key == key {
			start, end := f.lines(i.start, i.end)
			return f.splice(start, end, "")
		}
	}
	return nil
}

// Remove removes a section with all that it holds.
func (f *File) Remove(s *Section) error {
	start, end := f.lines(s.start, s.close)
	if rest := f.text[end:]; strings.HasPrefix(rest, "\n") && f.topLevel(s) {
		end++
	}
	return f.splice(start, end, "")
}

func (f *File) topLevel(s *Section) bool {
	for _, i := range f.root.items {
		if i.sub == s {
			return true
		}
	}
	return false
}

// Insert adds a section to one.
func (f *File) Insert(in *Section, b Block) error {
	key := ""
	if repeats(b.Name) {
		for _, k := range []string{"name", "linknumber"} {
			if v := b.Keys[k]; v != "" {
				key = v
				break
			}
		}
	}
	return f.insert(in, b.Name, key, b.lines())
}

func (b Block) lines() []string {
	parts := map[string][][]string{}
	for k, v := range b.Keys {
		parts[k] = append(parts[k], []string{k + ": " + v})
	}
	for _, sub := range b.Blocks {
		parts[sub.Name] = append(parts[sub.Name], sub.lines())
	}
	list := []string{b.Name + " {"}
	for _, name := range sortedKeys(parts) {
		for _, lines := range parts[name] {
			for _, l := range lines {
				list = append(list, "  "+l)
			}
		}
	}
	return append(list, "}")
}

// insert puts lines into a section: where the order of names wants them if the
// section is in order, else at its end. What is inserted comes right behind what
// stands before it, so comments stay with the line below them.
func (f *File) insert(s *Section, name, key string, lines []string) error {
	if s != f.root && s.Name == "" {
		return fmt.Errorf("conf: the section that %q belongs in is missing", lines[0])
	}
	type place struct{ name, key string }
	less := func(a, b place) bool { return a.name < b.name || a.name == b.name && a.key < b.key }
	of := func(i item) place {
		p := place{name: i.name()}
		if i.sub != nil && i.sub.Name == "node" {
			p.key = nodeKey(i.sub)
		} else if i.sub != nil && i.sub.Name == "interface" {
			p.key = interfaceKey(i.sub)
		}
		return p
	}
	sorted, behind := true, 0
	for n, i := range s.items {
		if n > 0 && less(of(i), of(s.items[n-1])) {
			sorted = false
		}
		if !less(place{name, key}, of(i)) {
			behind = n + 1
		}
	}
	if !sorted {
		behind = len(s.items)
		for n, i := range s.items {
			if i.name() == name {
				behind = n + 1
			}
		}
	}
	at, indent := s.open, ""
	if s != f.root {
		indent = f.indentAt(s.start) + "  "
	}
	if len(s.items) > 0 {
		indent = f.indentAt(s.items[0].start)
	}
	if behind > 0 {
		last := s.items[behind-1]
		at = last.end
		if last.sub != nil {
			at = last.sub.close
		}
	}
	if at > 0 {
		_, at = f.lines(at-1, at)
		if s == f.root && strings.HasPrefix(f.text[at:], "\n") {
			at++
		}
	}
	var b strings.Builder
	if at > 0 && f.text[at-1] != '\n' {
		b.WriteByte('\n')
	}
	for _, l := range lines {
		b.WriteString(indent + l + "\n")
	}
	if s == f.root && len(lines) > 1 {
		b.WriteByte('\n')
	}
	return f.splice(at, at, b.String())
}

// lines widens a part of the text to whole lines, the last line's end included.
func (f *File) lines(start, end int) (int, int) {
	start = strings.LastIndexByte(f.text[:start], '\n') + 1
	if n := strings.IndexByte(f.text[end:], '\n'); n >= 0 {
		return start, end + n + 1
	}
	return start, len(f.text)
}

func (f *File) indentAt(pos int) string {
	start := strings.LastIndexByte(f.text[:pos], '\n') + 1
	line := f.text[start:pos]
	return line[:len(line)-len(strings.TrimLeft(line, " \t"))]
}

func (f *File) splice(start, end int, text string) error {
	g, err := Read([]byte(f.text[:start] + text + f.text[end:]))
	if err != nil {
		return err
	}
	*f = *g
	return nil
}

// lineWise tells whether each key, each section's head and each closing brace has
// a line of its own, as corosync wants it.
func (f *File) lineWise() bool {
	for l := range strings.Lines(f.text) {
		if before, _, found := strings.Cut(l, "#"); found {
			l = before
		}
		words := strings.Fields(l)
		switch {
		case len(words) == 0, len(words) == 1 && words[0] == "}":
		case len(words) == 2 && words[0] != "}" && words[1] != "}":
			if strings.HasSuffix(words[0], ":") == (words[1] == "{") || words[0] == "{" {
				return false
			}
		default:
			return false
		}
	}
	return true
}
