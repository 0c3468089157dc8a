package fuse

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// unsupported are the tests of the suite about what this file system does not
// have, by design of what it replaces.
var unsupported = map[string]string{
	"Link":                "an entry has one name",
	"LinkUnlinkRename":    "an entry has one name",
	"SymlinkReadlink":     "only the daemon makes links",
	"SetattrSymlink":      "only the daemon makes links",
	"OpenSymlinkRace":     "only the daemon makes links",
	"XAttr":               "there are no extended attributes",
	"XAttrLarge":          "there are no extended attributes",
	"Fallocate":           "space is not reserved",
	"FallocateKeepSize":   "space is not reserved",
	"FileBasic":           "it gives a file a mode of its own; modes follow from the path (TestModes)",
	"FcntlFlockLocksFile": "it expects two locks of one process to conflict; they are the kernel's own, and do not",
	"Tmpfile":             "there are no files without a name",
}

func TestPosixSuite(t *testing.T) {
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why := unsupported[name]; why != "" {
				t.Skip(why)
			}
			m := mountTest(t, nil)
			m.mkdir("d") // the root has entries of its own
			test(t, m.path("d"))
		})
	}
}
