package diagnosis

import (
	"time"

	"pmxcfs/corosync/conf"
	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
)

// maxListed bounds how many problems of one kind are listed.
const maxListed = 10

// ReadDatabase reads a database's file, beside its daemon or without one.
func ReadDatabase(path string) (*Offline, error) {
	c, err := sqlite.Read(path)
	if err != nil {
		return nil, err
	}
	d := &Offline{Entries: len(c.Entries)}
	for _, e := range c.Entries {
		switch {
		case e.Inode == memdb.RootInode:
			d.Version, d.Changed = e.Version, time.Unix(int64(e.MTime), 0)
		case e.Parent == memdb.RootInode && e.Name == "corosync.conf" && !e.IsDir():
			d.Cluster = true
			d.Conf, _ = conf.Version(e.Data())
		}
	}
	for _, p := range c.Problems {
		list := &d.Odd
		if p.Fatal {
			list = &d.Problems
		}
		if len(*list) < maxListed {
			*list = append(*list, p.String())
		}
	}
	if !c.Fatal() {
		_, dups, err := memdb.Build(c.Entries)
		if err != nil {
			return nil, err
		}
		if len(dups) > 0 {
			d.Problems = append(d.Problems, (&memdb.DuplicateError{Duplicates: dups}).Error())
		}
	}
	return d, nil
}
