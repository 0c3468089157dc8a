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
	q := askDetails{inodes}
	details := map[dfsm.Member]map[uint64]*detail{}
	err := r.each(ctx, kindDetails, q.encode(header{id: r.id}), func(m dfsm.Member, body []byte) error {
		list, err := decodeDetails(body)
		if err != nil {
			return err
		}
		details[m] = make(map[uint64]*detail, len(list))
		for i := range list {
			details[m][list[i].inode] = &list[i]
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
			t := details[m][inode]
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
		Path: display(t.path), Type: memdb.Type(t.typ).String(), Size: t.size, Version: t.version,
		Writer: t.writer, MTime: time.Unix(int64(t.mtime), 0),
	}
	if t.hashed {
		v.Content = hex.EncodeToString(t.content[:])
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
		count[v.path]++
		if best == "" || count[v.path] > count[best] {
			best = v.path
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
	differ("path", func(a, b *detail) bool { return a.path == b.path && a.parent == b.parent })
	differ("type", func(a, b *detail) bool { return a.typ == b.typ })
	differ("content", func(a, b *detail) bool { return a.size == b.size && (!a.hashed || !b.hashed || a.content == b.content) })
	differ("mtime", func(a, b *detail) bool { return a.mtime == b.mtime })
	differ("writer", func(a, b *detail) bool { return a.writer == b.writer })
	differ("version", func(a, b *detail) bool { return a.version == b.version })
	if len(list) == 0 {
		list = append(list, "content") // whose digests were not computed
	}
	return list
}
