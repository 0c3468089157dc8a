package diagnosis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pmxcfs/internal/event"
	"pmxcfs/status/health"
	"pmxcfs/status/inspect"
)

const (
	// worryLag is how many changes a node may be behind, under load.
	worryLag = 1000
	// worrySilence is how long a node that tells its state every 10 s may say nothing.
	worrySilence = 35 * time.Second
	// worryClock is by how much clocks may differ: locks and logs go by them.
	worryClock = 2 * time.Second
	// worryFull is how full the tree may be.
	worryFull = 0.8
	// worryLog is how long the database's log may be; its checkpoints keep it far
	// below.
	worryLog = 64 << 20
	// worryErrors is how old an error in the log may be.
	worryErrors = time.Hour
)

const (
	restart = "systemctl restart pve-cluster"
	journal = "journalctl -u pve-cluster -e"
	// brokenDatabase is what to do about a database that can't be used.
	brokenDatabase = "in a cluster: move it away and start the daemon, the others send everything; alone: pmxcfs db check, pmxcfs db repair, or a backup"
)

// judge says what needs attention.
func judge(o *Overview) []Finding {
	var f findings
	f.daemon(o)
	f.mount(o)
	if s := o.Status; s != nil {
		f.readiness(s)
		f.database(&s.Database)
		f.history(s)
		f.conf(s.Conf)
		f.locks(s.Locks)
		f.errors(o)
	}
	if o.Corosync != nil {
		f.corosync(o)
	}
	f.members(o)
	f.kept(o)
	rank := []Severity{Failure, Warning, Info, OK}
	slices.SortStableFunc(f.list, func(a, b Finding) int {
		return slices.Index(rank, a.Severity) - slices.Index(rank, b.Severity)
	})
	if f.list == nil {
		f.list = []Finding{}
	}
	return f.list
}

func (f *findings) daemon(o *Overview) {
	f.check = "daemon"
	d := &o.Daemon
	switch {
	case d.Answers:
	case d.Running:
		f.add(Failure, "see its log: "+journal+"; if it is stuck: "+restart, "the daemon (pid %d) runs, but does not answer: %s", d.PID, d.Error)
	case d.Locked:
		f.add(Failure, "see its log: "+journal, "a daemon holds the lock of the database, but is not up yet, or is ending: %s", d.Error)
	default:
		f.add(Failure, "see why it ended: "+journal+"; start it: systemctl start pve-cluster", "the daemon is not running")
	}
	if off := o.Offline; off != nil {
		f.check = "database"
		if off.Missing {
			f.add(Info, "nothing on a new node; if there was one, put it or its backup back before the daemon starts", "there is no database; the daemon makes one when it starts")
		}
		if off.Error != "" {
			f.add(Failure, brokenDatabase, "the database can't be read: %s", off.Error)
		}
		for _, p := range off.Problems {
			f.add(Failure, "pmxcfs db check lists everything that is wrong, pmxcfs db repair makes a sound copy", "the daemon can't start on its database: %s", p)
		}
	}
}

func (f *findings) mount(o *Overview) {
	f.check = "mount"
	m := &o.Mount
	alive := o.Daemon.Answers || o.Daemon.Running
	leave := "starting the daemon takes it away; or by hand: umount -l " + m.Path
	switch {
	case m.Mounts > 0 && !alive && !o.Daemon.Locked:
		f.add(Failure, leave, "a daemon that is gone has left its mount on %s", m.Path)
	case m.Mounts > 1:
		f.add(Warning, restart, "%d file systems are mounted on %s, one above the other", m.Mounts, m.Path)
	case m.Mounts == 0 && o.Daemon.Answers && o.Status.Ready:
		f.add(Failure, restart, "nothing is mounted on %s here, though the daemon serves it (is this another mount namespace?)", m.Path)
	case m.Mounts > 0 && !m.Answers:
		f.add(Failure, "see its log: "+journal+"; then: "+restart, "the file system on %s does not answer: %s", m.Path, m.Error)
	}
}

func (f *findings) readiness(s *inspect.Status) {
	f.check = "readiness"
	for _, r := range s.NotReady {
		remedy := r.Remedy
		if r.Code == health.NotQuorate {
			remedy = "see which nodes are missing below, and check them and the network between them"
		}
		f.add(Failure, remedy, "%s", r.Text)
	}
}

func (f *findings) database(d *inspect.Database) {
	f.check = "database"
	full := func(what string, have, most float64, unit string) {
		if have > worryFull*most {
			f.add(Warning, "remove unneeded files below the mount point", "the tree has %.0f of %.0f %s: beyond that every change fails", have, most, unit)
		}
	}
	full("entries", float64(d.Entries), float64(d.MaxEntries), "entries")
	full("bytes", float64(d.Bytes)/(1<<20), float64(d.MaxBytes)/(1<<20), "MiB")
	if d.LogBytes > worryLog {
		f.add(Warning, "see whether another program holds the database open: fuser "+d.Path, "the database's log has %s: it is not being copied into the database", size(d.LogBytes))
	}
}

func (f *findings) history(s *inspect.Status) {
	f.check = "history"
	h := s.History
	if h == nil { // none is wanted
		return
	}
	if h.Error != "" {
		f.add(Warning, event.HistoryFailed.Remedy(), "changes can't be recorded in the history: %s", h.Error)
	}
	if h.Limit > 0 && h.Bytes > h.Limit+h.Limit/4 {
		f.add(Info, "give it more room (--history-size), or delete snapshots: pmxcfs snapshot list", "the history takes %s of %s: what is in the tree now and what snapshots need is kept all the same", size(h.Bytes), size(h.Limit))
	}
}

func (f *findings) conf(c *inspect.Conf) {
	f.check = "corosync.conf"
	kept := ""
	if c != nil && c.Refused != "" {
		kept = "; the tree's is kept from corosync, as corosync.conf.refused beside the host's"
	}
	switch {
	case c == nil:
	case c.Tree == 0:
		f.add(Warning, "correct it in a copy, and move that over corosync.conf in the tree", "corosync.conf in the tree has no usable config_version")
	case c.Mistake != "":
		f.add(Failure, "correct it in a copy, with a higher config_version, and move that over corosync.conf in the tree; without quorum: correct the host's copy and start corosync first",
			"corosync.conf in the tree can't be parsed, and corosync can't start with it: %s", c.Mistake)
	case c.Host > c.Tree:
		f.add(Warning, "if the host's copy is the right one: write its content to corosync.conf in the tree, with a higher config_version", "the host's corosync.conf (version %d) is newer than the tree's (%d)%s", c.Host, c.Tree, kept)
	case c.Refused != "":
		f.add(Failure, "correct it in a copy, with a higher config_version, and move that over corosync.conf in the tree; pvecm config check FILE checks it before",
			"corosync goes on with the host's corosync.conf%s: %s", kept, c.Refused)
	case c.Host != c.Tree || !c.Same:
		f.add(Warning, "see why it could not be written: "+journal, "the host's corosync.conf (version %d) is not the tree's (%d)", c.Host, c.Tree)
	case c.Running != 0 && c.Running != c.Tree:
		f.add(Warning, "have corosync read it: corosync-cfgtool -R; some changes need a restart: systemctl restart corosync", "corosync runs with version %d of its configuration, the tree has %d", c.Running, c.Tree)
	}
}

func (f *findings) locks(list []inspect.Lock) {
	f.check = "locks"
	var names []string
	for _, l := range list {
		if l.Expired {
			names = append(names, l.Name)
		}
	}
	if len(names) > 0 {
		more := ""
		if n := len(names) - 3; n > 0 {
			names, more = names[:3], fmt.Sprintf(" and %d more", n)
		}
		f.add(Info, "nothing: the next process that wants a lock takes it; or: pmxcfs locks break NAME", "locks have not been renewed for long, and have expired: %s%s", strings.Join(names, ", "), more)
	}
}

func (f *findings) errors(o *Overview) {
	f.check = "log"
	n := 0
	for _, p := range o.Status.Errors {
		if p.Level == "error" && o.Time.Sub(p.Last) < worryErrors {
			n++
		}
	}
	if n > 0 {
		f.add(Warning, "see below, and "+journal, "the daemon has logged %s within the last hour", plural(n, "error", "errors"))
	}
}

func (f *findings) corosync(o *Overview) {
	f.check = "corosync"
	c := o.Corosync
	if c.Error != "" {
		told := o.Status != nil && slices.ContainsFunc(o.Status.NotReady, func(r health.Reason) bool {
			return r.Code == health.NotConnected || r.Code == health.ForeignCorosync
		})
		if !told {
			f.add(Failure, "see whether it runs: systemctl status corosync", "corosync does not answer: %s", c.Error)
		}
		return
	}
	q := c.Quorum
	if q == nil {
		return
	}
	if o.Status == nil && !q.Quorate {
		f.add(Failure, "check the missing nodes and the network between them", "this part of the cluster has no quorum: %d of %d votes, %d needed", q.Votes, q.Expected, q.Needed)
	}
	if q.Quorate && q.Votes == q.Needed && len(c.Nodes) > 2 && q.Votes < q.Expected {
		f.add(Warning, "bring the missing nodes back soon", "one more node lost means no quorum: %d of %d votes, %d needed", q.Votes, q.Expected, q.Needed)
	}
}

func (f *findings) members(o *Overview) {
	f.check = "members"
	var software []string
	behind, ahead := int64(0), "" // this node, and whose data are newest
	for _, m := range o.members() {
		switch {
		case m.Self:
		case m.corosync == "dead" || m.corosync == "leaving":
			f.add(Warning, "see whether the host runs and can be reached", "%s is offline", m.Name)
			continue
		case o.Status == nil:
			continue
		case !m.InDatabase && o.inDatabase():
			f.add(Warning, "see there: systemctl status pve-cluster", "%s: its corosync is there, its pmxcfs is not", m.Name)
			continue
		case m.InDatabase && !m.Online && o.online():
			f.add(Warning, "it should pass by itself; if not, see there: pmxcfs status", "%s takes part in the configuration database, but not in the status store", m.Name)
		}
		p := m.Peer
		if o.Status == nil || !m.InDatabase {
			continue
		}
		if p == nil {
			if o.hearsItself() {
				f.add(Info, "", "%s is a member, but reports nothing about itself (a stock daemon?)", m.Name)
			}
			continue
		}
		if !slices.Contains(software, p.Software) {
			software = append(software, p.Software)
		}
		if m.Self {
			continue
		}
		if silent := o.Status.Time.Sub(p.Heard); silent > worrySilence {
			f.add(Warning, "see there: pmxcfs status", "%s has reported nothing for %s", m.Name, duration(silent))
			continue
		}
		if p.Lag < -worryLag && -p.Lag > behind {
			behind, ahead = -p.Lag, m.Name
		}
		if p.Lag > worryLag {
			f.add(Warning, "see its disk and load: pmxcfs status there", "%s is behind by %d changes", m.Name, p.Lag)
		}
		if p.Mode != "synced" {
			f.add(Warning, "it should pass by itself; if not, see there: pmxcfs status", "%s is not synchronised (mode %s)", m.Name, p.Mode)
		}
		if offset := time.Duration(p.ClockOffset * float64(time.Second)); offset.Abs() > worryClock {
			f.add(Warning, "see to the time synchronisation of both (timedatectl)", "the clock of %s differs by %.1f s", m.Name, p.ClockOffset)
		}
	}
	if ahead != "" {
		f.add(Warning, "see this node's disk and load: its journal, and top", "this node is behind %s by %d changes", ahead, behind)
	}
	if len(software) > 1 {
		f.add(Info, "bring all nodes to one version when you can", "different versions run: %s", strings.Join(software, ", "))
	}
}

// inDatabase tells whether this node is in the database's group: only then it knows
// who else is.
func (o *Overview) inDatabase() bool {
	return slices.ContainsFunc(o.Status.Cluster.Members, func(m inspect.Member) bool { return m.Self && m.InDatabase })
}

// online tells whether this node is in the status store's group.
func (o *Overview) online() bool {
	return slices.ContainsFunc(o.Status.Cluster.Members, func(m inspect.Member) bool { return m.Self && m.Online })
}

// hearsItself tells whether this node hears what daemons tell.
func (o *Overview) hearsItself() bool {
	return slices.ContainsFunc(o.Status.Cluster.Members, func(m inspect.Member) bool { return m.Self && m.Peer != nil })
}

// member is a node as the daemon and corosync see it.
type member struct {
	inspect.Member
	corosync string // its state; empty: not known
	votes    int    // -1: not known
}

// members are all nodes that the daemon or corosync knows, ascending by name.
func (o *Overview) members() []member {
	var list []member
	if o.Status != nil && o.Status.Cluster != nil {
		for _, m := range o.Status.Cluster.Members {
			list = append(list, member{Member: m, votes: -1})
		}
	}
	if o.Corosync == nil {
		return list
	}
	for _, n := range o.Corosync.Nodes {
		i := slices.IndexFunc(list, func(m member) bool { return m.ID == n.ID })
		if i < 0 {
			i = len(list)
			list = append(list, member{Member: inspect.Member{Name: n.Name, ID: n.ID, Self: n.ID == o.Corosync.Self}})
		}
		m := &list[i]
		m.corosync, m.votes = n.State, n.Votes
		if m.Address == "" {
			m.Address = n.Address
		}
	}
	slices.SortFunc(list, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	return list
}
