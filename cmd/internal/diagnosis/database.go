package diagnosis

import (
	"slices"
	"strings"
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

// youngVersion is up to which version a database is taken for one that was begun a
// short time ago.
const youngVersion = 200

// begunAnew returns what tells that a single node's database has lost an earlier one's
// contents, as after a power cut that left a file of 0 bytes. In a cluster the others
// have them.
func begunAnew(d *Offline, path string) []string {
	if d.Cluster || d.Error != "" || d.Version > youngVersion {
		return nil
	}
	return slices.DeleteFunc(sqlite.Traces(path), func(name string) bool {
		return strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-journal") // the new one's own
	})
}
