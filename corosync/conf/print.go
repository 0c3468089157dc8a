package conf

import (
	"errors"
	"strings"
)

// ErrEmpty means that there is nothing to print.
var ErrEmpty = errors.New("conf: an empty configuration can't be written")

// Print gives the text as Proxmox VE's tools write it: everything sorted by name,
// two blanks a level, an empty line behind each section of the top level. A
// nodelist and a totem section are there even if they are empty. Comments are not.
func (f *File) Print() ([]byte, error) {
	if f.text == "" {
		return nil, ErrEmpty
	}
	top := make(map[string][]item)
	for _, i := range f.root.items {
		top[i.name()] = append(top[i.name()], i)
	}
	for _, name := range []string{"nodelist", "totem"} {
		if top[name] == nil {
			top[name] = []item{{sub: &Section{Name: name}}}
		}
	}
	var b strings.Builder
	for _, name := range sortedKeys(top) {
		for _, i := range chosen(name, top[name]) {
			if i.sub == nil {
				printItem(&b, i, "")
				continue
			}
			b.WriteString(name + " {\n")
			printSection(&b, i.sub, "  ", name)
			b.WriteString("}\n\n")
		}
	}
	return []byte(b.String()), nil
}

// chosen are those of several items of one name that count: all sections of a name
// that may repeat, else the last.
func chosen(name string, list []item) []item {
	if last := list[len(list)-1]; last.sub == nil || !repeats(name) {
		return []item{last}
	}
	var sections []item
	for _, i := range list {
		if i.sub != nil {
			sections = append(sections, i)
		}
	}
	return sections
}

func printSection(b *strings.Builder, s *Section, indent, path string) {
	all := make(map[string][]item)
	for _, i := range s.items {
		all[i.name()] = append(all[i.name()], i)
	}
	for _, name := range sortedKeys(all) {
		list := chosen(name, all[name])
		if list[0].sub == nil {
			printItem(b, list[0], indent)
			continue
		}
		var subs []*Section
		for _, i := range list {
			subs = append(subs, i.sub)
		}
		switch path + "." + name {
		case "nodelist.node":
			subs = keyed(subs, nodeKey)
		case "totem.interface":
			subs = keyed(subs, interfaceKey)
		}
		for _, sub := range subs {
			b.WriteString(indent + name + " {\n")
			printSection(b, sub, indent+"  ", path+"."+name)
			b.WriteString(indent + "}\n")
		}
	}
}

func printItem(b *strings.Builder, i item, indent string) {
	b.WriteString(indent + i.key + ": " + i.value + "\n")
}
