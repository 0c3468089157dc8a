package diagnosis

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/corosync/conf"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status/inspect"
)

// Examination is what pmxcfs doctor tells.
type Examination struct {
	Time     time.Time `json:"time"`
	Verdict  string    `json:"verdict"`  // as of an Overview
	Findings []Finding `json:"findings"` // in the order of the checks, good ones among them
}

const (
	// integrityTime is how long SQLite's check of a database may take.
	integrityTime = time.Minute
	// littleRoom is less than a node needs to store all that its tree may hold, and
	// almostNone is when changes are about to fail, both in bytes.
	littleRoom = 256 << 20
	almostNone = 16 << 20
	fewInodes  = 1000
)

// Examine goes through everything that a node needs.
func Examine(ctx context.Context, h *Host) *Examination {
	o := Look(ctx, h)
	var f findings
	for _, check := range []func(*findings, *Host, *Overview){
		(*findings).hostName, (*findings).group, (*findings).fuse, (*findings).software, (*findings).judged,
		(*findings).corosyncConf, (*findings).databaseFile, (*findings).disks, (*findings).clock, (*findings).leftovers, (*findings).samples, (*findings).proxmox,
	} {
		check(&f, h, o)
	}
	return &Examination{Time: o.Time, Verdict: verdict(f.list), Findings: f.list}
}

func (f *findings) hostName(h *Host, o *Overview) {
	f.check = "host name"
	name, err := h.NodeName()
	if s := o.Status; s != nil && (err != nil || name != s.Node.Name) {
		// What counts is the name that it was started with.
		f.addressAs(h, s)
		f.corosyncsName(o, s.Node.Name)
		return
	}
	if err != nil {
		f.add(Failure, "give the host a name: hostnamectl set-hostname NAME", "%v", err)
		return
	}
	address, err := h.Address(name)
	if err != nil {
		bad := Failure
		if o.Status != nil {
			bad = Warning // it runs; whether it starts again depends on its options
		}
		f.add(bad, "give the host's real address in /etc/hosts: ADDRESS "+name, "%v", err)
		return
	}
	if !isLocal(address) {
		f.add(Warning, "correct /etc/hosts, or the network's configuration", "%s resolves to %s, which is no address of this host", name, address)
	} else {
		f.add(OK, "", "%s resolves to %s", name, address)
	}
	f.corosyncsName(o, name)
}

// addressAs looks at the address of a daemon that was started as another node than the
// host is called.
func (f *findings) addressAs(h *Host, s *inspect.Status) {
	name, address := s.Node.Name, s.Node.Address
	if host, err := h.NodeName(); err == nil {
		f.add(Info, "", "the daemon was started as node %s, the host is called %s", name, host)
	}
	switch {
	case address == "":
		f.add(Info, "", "the daemon was started without an address for %s", name)
	case !isLocal(address):
		f.add(Warning, "start it with this host's address: --node-address, or /etc/hosts", "the daemon's address is %s, which is no address of this host", address)
	default:
		f.add(OK, "", "the daemon's address is %s", address)
	}
}

// corosyncsName compares a node's name with what corosync calls it.
func (f *findings) corosyncsName(o *Overview, name string) {
	if o.Corosync == nil || o.Corosync.Error != "" {
		return
	}
	f.check = "corosync's name"
	i := slices.IndexFunc(o.Corosync.Nodes, func(n CorosyncNode) bool { return n.ID == o.Corosync.Self })
	switch {
	case i < 0:
		f.add(Failure, "correct the nodelist of corosync.conf", "corosync doesn't know which node of its nodelist this is")
	case o.Corosync.Nodes[i].Name != name:
		f.add(Failure, "give host and node of corosync.conf's nodelist one name", "corosync calls this node %q, the daemon calls it %q", o.Corosync.Nodes[i].Name, name)
	default:
		f.add(OK, "", "corosync calls this node so, too")
	}
}

// isLocal tells whether this host has an address.
func isLocal(address string) bool {
	ip := net.ParseIP(address)
	list, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(list, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

func (f *findings) group(h *Host, _ *Overview) {
	f.check = "group"
	if _, err := user.LookupGroup(h.Group); err != nil {
		f.add(Failure, "make it: groupadd --system "+h.Group, "the group %q must exist: %v", h.Group, err)
		return
	}
	f.add(OK, "", "%s exists", h.Group)
}

func (f *findings) fuse(_ *Host, _ *Overview) {
	f.check = "fuse"
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		remedy := "load it: modprobe fuse"
		if errors.Is(err, fs.ErrPermission) {
			remedy = "run this as root"
		}
		f.add(Failure, remedy, "the kernel's FUSE can't be used: %v", err)
		return
	}
	dev.Close()
	f.add(OK, "", "/dev/fuse can be used")
}

func (f *findings) software(h *Host, o *Overview) {
	f.check = "software"
	switch {
	case o.Status == nil:
		f.add(Info, "", "installed is version %s", h.Version)
	case o.Status.Daemon.Version != h.Version:
		f.add(Warning, "have the daemon be the installed one: "+restart, "the daemon is version %s, installed is %s", o.Status.Daemon.Version, h.Version)
	default:
		f.add(OK, "", "the daemon is the installed version %s", h.Version)
	}
}

// judged takes over what the overview says, and what it has no objection to.
func (f *findings) judged(_ *Host, o *Overview) {
	fine := map[string]string{}
	if o.Status != nil {
		fine["daemon"], fine["readiness"] = "it answers", "the node does its work"
		if o.Status.Conf != nil {
			fine["corosync.conf"] = fmt.Sprintf("version %d in the tree, on the host and in corosync", o.Status.Conf.Tree)
		}
	}
	if o.Mount.Answers {
		fine["mount"] = o.Mount.Path + " is served"
	}
	if o.Status != nil && o.Status.History != nil {
		fine["history"] = historyText(o.Status.History)
	}
	if o.Corosync != nil && o.Corosync.Quorum != nil {
		fine["corosync"] = "it answers; " + o.Corosync.text()
		fine["members"] = fmt.Sprintf("all %d nodes are there", len(o.members()))
	}
	for _, name := range []string{"daemon", "mount", "readiness", "corosync", "corosync.conf", "members", "database", "history", "locks", "log"} {
		f.check = name
		bad := false
		for _, finding := range o.Findings {
			if finding.Check == name {
				f.list = append(f.list, finding)
				bad = bad || finding.Severity != Info
			}
		}
		if text := fine[name]; text != "" && !bad {
			f.add(OK, "", "%s", text)
		}
	}
}

// corosyncConf looks at the host's corosync.conf itself.
func (f *findings) corosyncConf(h *Host, o *Overview) {
	f.check = "corosync.conf"
	text, err := os.ReadFile(h.CorosyncConf)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if o.cluster() {
			f.add(Failure, "start the daemon: it writes it", "the host has no %s", h.CorosyncConf)
		}
		return
	case err != nil:
		f.add(Failure, "see to the file and its disk: ls -l "+h.CorosyncConf+", dmesg", "%v", err)
		return
	}
	if conf.Example(text) {
		if !o.cluster() {
			f.add(OK, "", "%s is the example of corosync's package, and not used", h.CorosyncConf)
		}
		return
	}
	c, err := conf.Parse(text)
	if err != nil {
		f.add(Failure, "correct it in a copy of the tree's corosync.conf, with a higher config_version, and move that over it; while there is no quorum: correct "+h.CorosyncConf+" and start corosync first",
			"%s can't be parsed, and corosync can't start with it: %v", h.CorosyncConf, err)
		return
	}
	if !o.cluster() && (o.Status != nil || o.Offline != nil && !o.Offline.Missing && o.Offline.Error == "") {
		f.add(Warning, "if the node belongs to that cluster: stop the daemon, move its database away, start it", "%s describes cluster %q, but the tree has no corosync.conf: the daemon works without a cluster", h.CorosyncConf, c.ClusterName)
	}
	ids, names := map[uint32]bool{}, map[string]bool{}
	for _, n := range c.Nodes {
		switch {
		case n.ID == 0:
			f.add(Failure, "give it one, and no other node the same", "a node of the nodelist has no nodeid: %s", or(n.Name, fmt.Sprint(n.Addresses)))
		case ids[n.ID]:
			f.add(Failure, "give each its own", "two nodes of the nodelist have nodeid %d", n.ID)
		case n.Name != "" && names[n.Name]:
			f.add(Failure, "give each its own", "two nodes of the nodelist are called %s", n.Name)
		}
		ids[n.ID], names[n.Name] = true, true
	}
	if q := o.Corosync; len(c.Nodes) == 2 && q != nil && q.Quorum != nil && !q.Quorum.TwoNode && q.Quorum.Device == "" {
		f.add(Info, "a quorum device, or two_node: 1 with fencing, changes that", "of two nodes without a quorum device, neither works without the other")
	}
}

func (f *findings) databaseFile(h *Host, o *Overview) {
	f.check = "database"
	st, err := os.Stat(h.Database)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
	case o.Status != nil:
		f.add(Failure, "copy all that is below "+h.MountPoint+" to another place first: a restart begins with an empty database, which only the other nodes of a cluster fill again",
			"the database's file %s is gone, though the daemon works with it", h.Database)
		return
	case o.Offline == nil || !o.Offline.Missing: // gone since it was looked at
		f.add(Failure, "put it or its backup back before the daemon starts", "the database's file %s is gone", h.Database)
		return
	default:
		return // judge has said that there is none
	}
	if err != nil {
		f.add(Failure, "see to its directory and disk", "the database's file: %v", err)
		return
	}
	if st.Mode().Perm()&0o077 != 0 {
		f.add(Failure, "chmod 600 "+h.Database, "others than root may open the database, which holds all secrets: mode %04o", st.Mode().Perm())
	}
	if dir, err := os.Stat(filepath.Dir(h.Database)); err == nil && dir.Mode().Perm()&0o022 != 0 {
		f.add(Failure, "chmod 750 "+filepath.Dir(h.Database), "others than root may change the database's directory: mode %04o", dir.Mode().Perm())
	}
	found, err := within(integrityTime, func() ([]string, error) { return sqlite.IntegrityCheck(h.Database) })
	switch {
	case err != nil:
		f.add(Failure, brokenDatabase, "SQLite's check of the database could not be done: %v", err)
		return
	case len(found) > 0:
		f.add(Failure, "stop the daemon; "+brokenDatabase, "SQLite finds the database damaged: %s", found[0])
		return
	}
	d := o.Offline
	if d == nil {
		d = h.offline()
		for _, p := range d.Problems {
			f.add(Failure, "pmxcfs db check lists everything that is wrong, pmxcfs db repair makes a sound copy", "the daemon could not start on its database again: %s", p)
		}
		if d.Error != "" {
			f.add(Failure, brokenDatabase, "the database can't be read: %s", d.Error)
		}
	}
	if before := begunAnew(d, h.Database); len(before) > 0 {
		f.add(Warning, "if something is missing below "+h.MountPoint+": stop the daemon, and put a good copy in the database's place (pmxcfs db check COPY)",
			"the database is new, of version %d, but beside it are traces of an earlier one: %s", d.Version, strings.Join(before, ", "))
	}
	for _, p := range d.Odd {
		f.add(Warning, "pmxcfs db check lists what is odd", "odd row in the database: %s", p)
	}
	if len(d.Problems)+len(d.Odd) == 0 && d.Error == "" {
		f.add(OK, "", "%s is sound: version %d, %s", h.Database, d.Version, plural(d.Entries, "entry", "entries"))
	}
}

func (f *findings) disks(h *Host, _ *Overview) {
	f.check = "disk"
	for _, d := range []struct{ what, dir string }{
		{"the database", filepath.Dir(h.Database)}, {"the run directory", h.RunDir}, {"RRD files", h.RRDDir},
	} {
		var st unix.Statfs_t
		st, err := within(askTime, func() (st unix.Statfs_t, err error) { err = unix.Statfs(d.dir, &st); return st, err })
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			f.add(Failure, "see to that disk: dmesg", "%s of %s: %v", d.dir, d.what, err)
			continue
		}
		free := int64(st.Bavail) * st.Bsize
		need := int64(littleRoom)
		if d.what == "the run directory" {
			need = almostNone
		}
		remedy := "make room there"
		switch {
		case st.Flags&unix.ST_RDONLY != 0:
			f.add(Failure, "see why: dmesg; then: mount -o remount,rw", "%s, for %s, is read-only", d.dir, d.what)
		case free < almostNone/4 || free < almostNone && d.what == "the database":
			f.add(Failure, remedy, "%s, for %s, has only %s free", d.dir, d.what, size(free))
		case free < need:
			f.add(Warning, remedy, "%s, for %s, has only %s free", d.dir, d.what, size(free))
		case st.Files > 0 && st.Ffree < fewInodes:
			f.add(Warning, "remove files there", "%s, for %s, has room for only %d more files", d.dir, d.what, st.Ffree)
		default:
			f.add(OK, "", "%s, for %s, has %s free", d.dir, d.what, size(free))
		}
	}
}

func (f *findings) clock(_ *Host, o *Overview) {
	f.check = "clock"
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	const unsynchronised = 5 // TIME_ERROR, adjtimex(2)
	switch {
	case err != nil:
		f.add(Info, "", "the kernel does not say whether the clock is synchronised: %v", err)
	case state == unsynchronised || t.Status&unix.STA_UNSYNC != 0:
		s := Info
		if o.cluster() {
			s = Warning
		}
		f.add(s, "run a time service (chrony), and see: timedatectl", "the clock is not synchronised")
	default:
		f.add(OK, "", "it is synchronised")
	}
}

func (f *findings) leftovers(h *Host, o *Overview) {
	f.check = "leftovers"
	there := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	flag := filepath.Join(h.RunDir, "cfs-restart-flag")
	switch {
	case o.Status != nil && there(flag):
		f.add(Warning, "rm "+flag, "%s says that the daemon is just restarting, and clients wait for it; it is up", flag)
	case o.Status == nil && o.Daemon.PID != 0 && !o.Daemon.Running && !o.Daemon.Locked:
		f.add(Info, "nothing: the next start takes care of it", "the daemon has not ended in order: its pid file is left (pid %d)", o.Daemon.PID)
	}
	tmp := filepath.Join(filepath.Dir(h.CorosyncConf), ".corosync.conf.pmxcfs-new")
	if there(tmp) {
		f.add(Info, "nothing: it is written over", "a new corosync.conf was not put in place: %s", tmp)
	}
}

func (f *findings) samples(h *Host, o *Overview) {
	f.check = "rrd"
	if _, err := os.Stat(h.RRDDir); err != nil {
		f.add(Info, "make the directory, or install rrdcached", "no statistics of the past are kept: %v", err)
		return
	}
	c, err := (&net.Dialer{Timeout: askTime}).Dial("unix", h.RRDSocket)
	if err != nil {
		f.add(Info, "systemctl start rrdcached", "rrdcached is not there, files are written directly: %v", err)
		return
	}
	c.Close()
	f.add(OK, "", "rrdcached answers")
}

// Examination writes an examination for people.
func (p *Painter) Examination(x *Examination) {
	for _, f := range x.Findings {
		mark := map[Severity]string{Failure: "error", Warning: "warning", Info: "note", OK: "ok"}[f.Severity]
		p.printf("%s  %-15s  %s\n", p.paint(f.Severity.color(), fmt.Sprintf("%-7s", mark)), f.Check, clean(f.Text))
		if f.Remedy != "" {
			p.printf("%-26s%s\n", "", p.paint(faint, "→ "+clean(f.Remedy)))
		}
	}
	color := map[string]string{"fine": green, "degraded": yellow, "broken": red}[x.Verdict]
	p.printf("\n%s\n", p.paint(color, x.Verdict))
}
