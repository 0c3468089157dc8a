package conf

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// File is a corosync.conf as the cluster manager reads it: keys and sections
// split at white space, what corosync doesn't know included. The text itself is
// kept, and a change touches only what it is about.
//
// A change method that returns an error has changed nothing. Sections got
// from a File are good until its next change.
type File struct {
	text    string
	root    *Section
	defects []Finding
}

// Section is a section of a corosync.conf, or the whole of it.
type Section struct {
	Name  string
	items []item

	// Where it stands in the text: its name, the byte behind its opening brace,
	// its closing brace. Without a closing brace that is the text's end.
	start, open, close int
	line               int
}

// item is a key with its value, or a section.
type item struct {
	key, value string
	sub        *Section

	start, valueStart, end int // in the text; end is behind the value
	line                   int
}

func (i item) name() string {
	if i.sub != nil {
		return i.sub.Name
	}
	return i.key
}

// The kinds of syntax errors.
const (
	KindMissingColon     = "missing-colon"
	KindMissingValue     = "missing-value"
	KindDuplicateSection = "duplicate-section"
	KindStrayBrace       = "stray-closing-brace"
)

// syntax is the error at a token.
func syntax(kind string, at token) error {
	what := map[string]string{
		KindMissingColon:     "a key ends in a colon with white space behind it, and white space stands between a section's name and its brace",
		KindMissingValue:     "the key has no value",
		KindDuplicateSection: "the section is there already",
		KindStrayBrace:       "a closing brace without a section",
	}[kind]
	return &SyntaxError{Line: at.line, Text: fmt.Sprintf("%.60q: %s", at.text, what), Kind: kind}
}

// token is a word of the text.
type token struct {
	text       string
	start, end int
	line       int
	commented  bool // a comment follows without a line end in between
}

// tokens splits a text at white space, without comments.
func tokens(text string) []token {
	var list []token
	line := 1
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\n':
			line++
			i++
		case isSpace(c):
			i++
		case c == '#':
			if n := len(list); n > 0 && list[n-1].line == line {
				list[n-1].commented = true
			}
			for i < len(text) && text[i] != '\n' {
				i++
			}
		default:
			start := i
			for i < len(text) && !isSpace(text[i]) && text[i] != '#' {
				i++
			}
			list = append(list, token{text: text[start:i], start: start, end: i, line: line})
		}
	}
	return list
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// repeats tells whether several sections of a name may stand in one.
func repeats(name string) bool { return name == "node" || name == "interface" }

// Read reads a corosync.conf by the rules of Proxmox VE's tools. What those take
// without a word although it can't be meant (a section that isn't closed, a key
// that is there twice) is read as they read it, and reported by Defects. An error
// is a *SyntaxError.
func Read(text []byte) (*File, error) {
	f := &File{text: string(text)}
	f.root = &Section{close: len(f.text)}
	open := []*Section{f.root}
	words := tokens(f.text)
	for i := 0; i < len(words); i++ {
		w, in := words[i], open[len(open)-1]
		switch {
		case i+1 < len(words) && words[i+1].text == "{":
			brace := words[i+1]
			if w.text == "{" || w.text == "}" {
				return nil, syntax(KindMissingColon, w)
			}
			if !repeats(w.text) && in.has(w.text) {
				return nil, syntax(KindDuplicateSection, w)
			}
			if in.hasKey(w.text) {
				f.defect(Finding{Kind: KindDoubledKey, Key: w.text, Line: w.line})
			}
			s := &Section{Name: w.text, start: w.start, open: brace.end, close: len(f.text), line: w.line}
			in.items = append(in.items, item{sub: s, start: w.start, line: w.line})
			open = append(open, s)
			i++
		case w.text == "}":
			if len(open) == 1 {
				return nil, syntax(KindStrayBrace, w)
			}
			in.close = w.start
			open = open[:len(open)-1]
		case !strings.HasSuffix(w.text, ":"):
			return nil, syntax(KindMissingColon, w)
		case i+1 == len(words):
			return nil, syntax(KindMissingValue, w)
		default:
			value := words[i+1]
			key := strings.TrimSuffix(w.text, ":")
			if value.commented {
				f.defect(Finding{Kind: KindCommentInValue, Key: key, Value: value.text, Line: value.line})
			}
			if in.hasKey(key) || in.has(key) {
				f.defect(Finding{Kind: KindDoubledKey, Key: key, Line: w.line})
			}
			in.items = append(in.items, item{key: key, value: value.text, start: w.start, valueStart: value.start, end: value.end, line: w.line})
			i++
		}
	}
	for _, s := range open[1:] {
		f.defect(Finding{Kind: KindUnclosed, Key: s.Name, Line: s.line})
	}
	f.doubled("nodelist", "node", KindDoubledName, nodeKey)
	f.doubled("totem", "interface", KindDoubledInterface, interfaceKey)
	return f, nil
}

func (f *File) defect(d Finding) { f.defects = append(f.defects, d) }

// doubled reports sections of which all but the last are lost.
func (f *File) doubled(section, name, kind string, key func(*Section) string) {
	seen := map[string]bool{}
	for _, s := range f.root.Section(section).Sections(name) {
		k := key(s)
		if seen[k] {
			f.defect(Finding{Kind: kind, Value: k, Line: s.line})
		}
		seen[k] = true
	}
}

// Defects are what reading passes over although it can't be meant so. No change
// is made to a file that has any.
func (f *File) Defects() []Finding { return slices.Clone(f.defects) }

// Text is the text as it stands now.
func (f *File) Text() []byte { return []byte(f.text) }

// Digest is the SHA-1 of the text, in hexadecimal digits.
func (f *File) Digest() string {
	sum := sha1.Sum([]byte(f.text))
	return hex.EncodeToString(sum[:])
}

// Section returns a section by the names that lead to it, or an empty one.
func (f *File) Section(path ...string) *Section {
	s := f.root
	for _, name := range path {
		s = s.Section(name)
	}
	return s
}

// Has tells whether a section is there.
func (f *File) Has(path ...string) bool { return f.Section(path...).Name != "" }

// ConfigVersion is totem.config_version. An error: there is none, or it is no
// number from 1 on.
func (f *File) ConfigVersion() (uint64, error) {
	text := f.Section("totem").Get("config_version")
	if n := number(text, 64); n > 0 {
		return n, nil
	}
	if text == "" {
		return 0, ErrVersion
	}
	return 0, fmt.Errorf("%w: %.40q", ErrVersion, text)
}

// Nodes are the nodes of the nodelist by name, or by ring0_addr for one without.
// Of several of one name the last counts.
func (f *File) Nodes() []*Section { return keyed(f.Section("nodelist").Sections("node"), nodeKey) }

// Node returns a node by its name, or nil.
func (f *File) Node(name string) *Section {
	for _, n := range f.Nodes() {
		if nodeKey(n) == name {
			return n
		}
	}
	return nil
}

// Interfaces are totem's interfaces by their link's number as text.
func (f *File) Interfaces() []*Section {
	return keyed(f.Section("totem").Sections("interface"), interfaceKey)
}

// NodeName is a node's name, or its ring0_addr if it has none.
func NodeName(node *Section) string { return nodeKey(node) }

func nodeKey(s *Section) string {
	if name := s.Get("name"); name != "" {
		return name
	}
	return s.Get("ring0_addr")
}

func interfaceKey(s *Section) string {
	if n := s.Get("linknumber"); n != "" {
		return n
	}
	return s.Get("ringnumber")
}

// keyed sorts sections by their keys; of several with one key the last is kept.
func keyed(list []*Section, key func(*Section) string) []*Section {
	last := map[string]*Section{}
	for _, s := range list {
		last[key(s)] = s
	}
	var sorted []*Section
	for _, k := range sortedKeys(last) {
		sorted = append(sorted, last[k])
	}
	return sorted
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Get returns a key's value, the last one's if it is there more than once; empty:
// there is none.
func (s *Section) Get(key string) string {
	value, _ := s.Lookup(key)
	return value
}

// Lookup returns a key's value, and whether there is one.
func (s *Section) Lookup(key string) (string, bool) {
	for _, i := range slices.Backward(s.items) {
		if i.sub == nil && i.key == key {
			return i.value, true
		}
	}
	return "", false
}

// Keys are the names of a section's keys, sorted.
func (s *Section) Keys() []string {
	set := map[string]bool{}
	for _, i := range s.items {
		if i.sub == nil {
			set[i.key] = true
		}
	}
	return sortedKeys(set)
}

// Section returns the section of a name, or an empty one.
func (s *Section) Section(name string) *Section {
	if list := s.Sections(name); len(list) > 0 {
		return list[0]
	}
	return &Section{}
}

// Sections are all sections of a name, in the text's order.
func (s *Section) Sections(name string) []*Section {
	var list []*Section
	for _, i := range s.items {
		if i.sub != nil && i.sub.Name == name {
			list = append(list, i.sub)
		}
	}
	return list
}

// Names are the names of a section's sections, sorted.
func (s *Section) Names() []string {
	set := map[string]bool{}
	for _, i := range s.items {
		if i.sub != nil {
			set[i.sub.Name] = true
		}
	}
	return sortedKeys(set)
}

func (s *Section) has(section string) bool { return s.Section(section).Name != "" }

func (s *Section) hasKey(key string) bool { _, ok := s.Lookup(key); return ok }
