package rrd

import "time"

// The layout of a new file; the specification's section "RRD" of the status
// store has these as observed from the stock daemon. All nodes and all tools
// expect exactly this, so it is not configurable.
const (
	// step is the time between two points of the finest archive.
	step = time.Minute

	// rowsPerArchiveSet is the number of rows of all archives of one
	// consolidation function.
	rowsPerArchiveSet = 3*1440 + 570
)

// archives are the round robin archives of every file, in rrdcreate(1)'s form.
func archives() []string {
	var list []string
	for _, function := range [...]string{"AVERAGE", "MAX"} {
		for _, archive := range [...]string{"1:1440", "30:1440", "360:1440", "10080:570"} {
			list = append(list, "RRA:"+function+":0.5:"+archive)
		}
	}
	return list
}

// sourceType is a data source's type.
type sourceType uint8

const (
	gauge sourceType = iota
	derive
)

// source is a data source: heartbeat 120 s, minimum 0, no maximum.
type source struct {
	name string
	typ  sourceType
}

// definition is the source in rrdcreate(1)'s form.
func (s source) definition() string {
	typ := "GAUGE"
	if s.typ == derive {
		typ = "DERIVE"
	}
	return "DS:" + s.name + ":" + typ + ":120:0:U"
}

// family is one kind of files: of nodes, guests or storages.
type family struct {
	// current is the directory, and with it the format that this package
	// writes; a key begins with it, with a newer version in place of 9.0, or
	// with legacy.
	current, legacy string
	// prefix is current without its version.
	prefix string
	// names is how many names follow in a key, and are the file's path.
	names int
	// guest says that the name is a VMID.
	guest bool
	// skip is how many columns of a value come before the timestamp.
	skip int
	// sources are the columns after the timestamp; legacy values have the
	// first legacySources of them.
	sources       []source
	legacySources int
}

// families lists the kinds of files.
func families() []*family {
	return []*family{
		{
			current: "pve-node-9.0", prefix: "pve-node-", legacy: "pve2-node",
			names: 1, skip: 2, legacySources: 12,
			sources: []source{
				{"loadavg", gauge}, {"maxcpu", gauge}, {"cpu", gauge}, {"iowait", gauge},
				{"memtotal", gauge}, {"memused", gauge}, {"swaptotal", gauge}, {"swapused", gauge},
				{"roottotal", gauge}, {"rootused", gauge}, {"netin", derive}, {"netout", derive},
				{"memavailable", gauge}, {"arcsize", gauge}, {"pressurecpusome", gauge},
				{"pressureiosome", gauge}, {"pressureiofull", gauge},
				{"pressurememorysome", gauge}, {"pressurememoryfull", gauge},
			},
		},
		{
			current: "pve-vm-9.0", prefix: "pve-vm-", legacy: "pve2.3-vm",
			names: 1, guest: true, skip: 4, legacySources: 10,
			sources: []source{
				{"maxcpu", gauge}, {"cpu", gauge}, {"maxmem", gauge}, {"mem", gauge},
				{"maxdisk", gauge}, {"disk", gauge}, {"netin", derive}, {"netout", derive},
				{"diskread", derive}, {"diskwrite", derive},
				{"memhost", gauge}, {"pressurecpusome", gauge}, {"pressurecpufull", gauge},
				{"pressureiosome", gauge}, {"pressureiofull", gauge},
				{"pressurememorysome", gauge}, {"pressurememoryfull", gauge},
			},
		},
		{
			current: "pve-storage-9.0", prefix: "pve-storage-", legacy: "pve2-storage",
			names: 2, legacySources: 2,
			sources: []source{{"total", gauge}, {"used", gauge}},
		},
	}
}

// definitions are the data sources and archives of the family's files.
func (f *family) definitions() []string {
	var list []string
	for _, s := range f.sources {
		list = append(list, s.definition())
	}
	return append(list, archives()...)
}

// fileSize is about the size in bytes of the family's files.
func (f *family) fileSize() uint64 {
	return uint64(len(f.sources)) * 2 * rowsPerArchiveSet * 8
}
