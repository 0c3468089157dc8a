package peers

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"pmxcfs/dfsm"
	"pmxcfs/memdb"
	"pmxcfs/status/inspect"
)

// describe says what entries are that differ.
func (r *run) describe(ctx context.Context, inodes []uint64, have map[uint64]map[dfsm.Member]digest) ([]inspect.Difference, error) {
	told := map[dfsm.Member]map[uint64]*detail{}
	err := each(ctx, r, askDetails{inodes}, func(m dfsm.Member, a details) error {
		told[m] = make(map[uint64]*detail, len(a.List))
		for i := range a.List {
			told[m][a.List[i].Inode] = &a.List[i]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := make([]inspect.Difference, 0, len(inodes))
	for _, inode := range inodes {
		d := inspect.Difference{Inode: inode, Have: map[string]*inspect.Version{}}
		var versions []*detail
		for _, m := range r.of {
			if _, ok := have[inode][m]; !ok {
				d.Have[r.name(m)] = nil
				continue
			}
			t := told[m][inode]
			if t == nil {
				continue // it has an entry, and does not say what
			}
			versions = append(versions, t)
			d.Have[r.name(m)] = t.shown()
		}
		d.Path = commonPath(versions)
		d.What = what(versions, len(d.Have) > len(versions))
		list = append(list, d)
	}
	return list, nil
}

func (t *detail) shown() *inspect.Version {
	v := &inspect.Version{
		Path: display(t.Path), Type: memdb.Type(t.Type).String(), Size: t.Size, Version: t.Version,
		Writer: t.Writer, MTime: time.Unix(int64(t.MTime), 0),
	}
	if t.Hashed {
		v.Content = hex.EncodeToString(t.Content[:])
	}
	return v
}

// display is a path as it is shown: from the root of the tree, and valid text.
func display(path string) string { return "/" + strings.ToValidUTF8(path, "\uFFFD") }

// commonPath is the path that most have.
func commonPath(versions []*detail) string {
	count := map[string]int{}
	best := ""
	for _, v := range versions {
		count[v.Path]++
		if best == "" || count[v.Path] > count[best] {
			best = v.Path
		}
	}
	return display(best)
}

// what says what is not the same in versions of an entry.
func what(versions []*detail, missing bool) []string {
	var list []string
	if missing {
		list = append(list, "missing")
	}
	differ := func(name string, same func(a, b *detail) bool) {
		if slices.ContainsFunc(versions, func(v *detail) bool { return !same(versions[0], v) }) {
			list = append(list, name)
		}
	}
	differ("path", func(a, b *detail) bool { return a.Path == b.Path && a.Parent == b.Parent })
	differ("type", func(a, b *detail) bool { return a.Type == b.Type })
	differ("content", func(a, b *detail) bool { return a.Size == b.Size && (!a.Hashed || !b.Hashed || a.Content == b.Content) })
	differ("mtime", func(a, b *detail) bool { return a.MTime == b.MTime })
	differ("writer", func(a, b *detail) bool { return a.Writer == b.Writer })
	differ("version", func(a, b *detail) bool { return a.Version == b.Version })
	if len(list) == 0 {
		list = append(list, "content") // whose digests were not computed
	}
	return list
}
