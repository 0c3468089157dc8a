package diagnosis

import (
	"fmt"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/memdb/history"
	"pmxcfs/status/inspect"
)

const (
	// shownErrors and shownLocks are how many lines of each a status has.
	shownErrors = 5
	shownLocks  = 10
)

// Overview writes an overview for people.
func (p *Painter) Overview(o *Overview) {
	color := map[string]string{"fine": green, "degraded": yellow, "broken": red}[o.Verdict]
	p.printf("%s\n", p.paint(bold, o.title())+": "+p.paint(color, o.Verdict))
	line := func(name, format string, args ...any) {
		p.printf("  %-14s %s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	if s := o.Status; s != nil {
		line("daemon", "version %s, pid %d, up for %s", s.Daemon.Version, s.Daemon.PID, duration(s.Time.Sub(s.Daemon.Started)))
	} else if o.Daemon.Running {
		line("daemon", "pid %d, does not answer", o.Daemon.PID)
	} else {
		line("daemon", "not running")
	}
	line("mode", "%s", o.modeText())
	if c := o.Corosync; c != nil {
		line("quorum", "%s", c.text())
	}
	if o.Status != nil && o.Status.Cluster != nil {
		line("synchronised", "%s", syncText(o.Status.Cluster))
	}
	p.databaseText(o, line)
	if o.Status != nil && o.Status.History != nil {
		line("history", "%s", historyText(o.Status.History))
	}
	if o.Status != nil && o.Status.Conf != nil {
		line("corosync.conf", "%s", confText(o.Status.Conf))
	}
	line("mount", "%s", o.Mount.text())
	p.membersTable(o)
	if o.Status != nil {
		if len(o.Status.Locks) > 0 {
			p.printf("\n")
		}
		p.Locks(o.Status.Locks, o.Status.Time, shownLocks)
		p.problems(o.Status.Errors)
	}
	if len(o.Findings) > 0 {
		p.printf("\n%s\n", p.paint(bold, "What needs attention"))
		p.findings(o.Findings)
	}
}

func (o *Overview) title() string {
	s := o.Status
	switch {
	case s == nil:
		return "pmxcfs on this node"
	case s.Node.Address == "":
		return "pmxcfs on " + clean(s.Node.Name)
	}
	return fmt.Sprintf("pmxcfs on %s (%s)", clean(s.Node.Name), clean(s.Node.Address))
}

func (o *Overview) modeText() string {
	switch {
	case o.Status == nil && o.Offline.Error != "":
		return "not known"
	case !o.cluster():
		return "local, without a cluster"
	case o.Status != nil && o.Status.Cluster.Known:
		return fmt.Sprintf("cluster %q, node %d", o.Status.Cluster.Name, o.Status.Node.ID)
	case o.Corosync != nil && o.Corosync.Error == "":
		return fmt.Sprintf("cluster %q, node %d", o.Corosync.Name, o.Corosync.Self)
	}
	return "cluster"
}

func (c *Corosync) text() string {
	if c.Error != "" {
		return "not known: " + c.Error
	}
	q := c.Quorum
	if q == nil {
		return "not known"
	}
	text := "quorate"
	if !q.Quorate {
		text = "no quorum, read-only"
	}
	text += fmt.Sprintf(": %d of %d votes, %d needed", q.Votes, q.Expected, q.Needed)
	if q.TwoNode {
		text += ", two-node cluster"
	}
	if q.Device != "" {
		text += ", quorum device " + q.Device
	}
	return text
}

func syncText(c *inspect.Cluster) string {
	text := ""
	for i, g := range c.Groups {
		if i > 0 {
			text += "; "
		}
		text += fmt.Sprintf("%s: ", map[int]string{0: "database", 1: "status"}[i])
		switch {
		case !g.Connected:
			text += "no connection to corosync"
		case g.Mode == "synced":
			text += fmt.Sprintf("yes, with %s", plural(g.Members, "member", "members"))
		default:
			text += fmt.Sprintf("no, in mode %s with %s", g.Mode, plural(g.Members, "member", "members"))
		}
		if g.Waiting > 0 {
			text += fmt.Sprintf(", %d changes under way", g.Waiting)
		}
	}
	return text
}

func (p *Painter) databaseText(o *Overview, line func(name, format string, args ...any)) {
	if off := o.Offline; off != nil {
		switch {
		case off.Missing:
			line("database", "none")
			return
		case off.Error != "":
			line("database", "not readable")
			return
		}
		line("database", "version %d, last changed %s, %s", off.Version, when(off.Changed), plural(off.Entries, "entry", "entries"))
		return
	}
	d := &o.Status.Database
	by := ""
	if o.Status.Cluster != nil && d.LastWriter != 0 {
		by = fmt.Sprintf(" by node %d", d.LastWriter)
		for _, m := range o.Status.Cluster.Members {
			if m.ID == d.LastWriter {
				by = " by " + m.Name
			}
		}
	}
	line("database", "version %d, last changed %s%s", d.Version, when(d.LastChange), by)
	line("", "%s with %s; file %s, log %s", plural(d.Entries, "entry", "entries"), size(d.Bytes), size(d.FileBytes), size(d.LogBytes))
	if d.Error != "" {
		line("", "can't be written: %s", d.Error)
	}
}

func historyText(h *history.Status) string {
	if h.Error != "" {
		return "can't be recorded: " + h.Error
	}
	text := plural(int(h.Changes), "change", "changes")
	if !h.Oldest.IsZero() {
		text += " since " + when(h.Oldest)
	}
	text += fmt.Sprintf("; %s", size(h.Bytes))
	if h.Gaps > 0 {
		text += "; " + plural(int(h.Gaps), "gap", "gaps")
	}
	return text
}

func confText(c *inspect.Conf) string {
	if c.Same && c.Tree == c.Running {
		return fmt.Sprintf("version %d in the tree, on the host and in corosync", c.Tree)
	}
	text := fmt.Sprintf("version %d in the tree, %d on the host, ", c.Tree, c.Host)
	if c.Running == 0 {
		return text + "corosync's not known"
	}
	return text + fmt.Sprintf("%d in corosync", c.Running)
}

func (m *Mount) text() string {
	switch {
	case m.Mounts == 0:
		return "nothing on " + m.Path
	case !m.Answers:
		return m.Path + ", does not answer"
	}
	return m.Path
}

func (p *Painter) membersTable(o *Overview) {
	list := o.members()
	if len(list) == 0 {
		return
	}
	rows := [][]cell{head("Member", "ID", "Address", "Votes", "Online", "State", "Version", "Behind", "Told", "Software")}
	for _, m := range list {
		row := []cell{{clean(m.Name), ""}, {fmt.Sprint(m.ID), ""}, {clean(or(m.Address, "?")), ""}, {"?", ""}, o.onlineCell(&m), {"-", ""}, {"-", ""}, {"-", ""}, {"-", ""}, {"-", ""}}
		if m.Self {
			row[0].text += " *"
		}
		if m.votes >= 0 {
			row[3].text = fmt.Sprint(m.votes)
		}
		if m.Self && o.Status != nil {
			row[5].text, row[6].text, row[9].text = o.Status.Cluster.Groups[0].Mode, fmt.Sprint(o.Status.Database.Version), clean(o.Status.Daemon.Version)
		} else if t := m.Peer; t != nil {
			row[5].text, row[6].text, row[9].text = clean(t.Mode), fmt.Sprint(t.Version), clean(t.Software)
			row[7].text = fmt.Sprint(max(0, t.Lag))
			row[8].text = duration(o.Status.Time.Sub(t.Heard)) + " ago"
		}
		if row[5].text != "synced" && row[5].text != "-" {
			row[5].color = yellow
		}
		rows = append(rows, row)
	}
	p.printf("\n")
	p.table(rows)
}

// onlineCell says how far a member is there.
func (o *Overview) onlineCell(m *member) cell {
	switch {
	case m.InDatabase && m.Online:
		return cell{"yes", green}
	case m.InDatabase || m.Online:
		return cell{"partly", yellow}
	case o.Status == nil && m.corosync == "member":
		return cell{"host only", yellow} // of its daemon nothing is known
	case m.corosync == "member":
		return cell{"no daemon", yellow}
	case m.corosync == "" || m.corosync == "unknown":
		return cell{"?", yellow}
	}
	return cell{"no", red}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Locks writes locks as they are at a time, at most so many; 0: all.
func (p *Painter) Locks(list []inspect.Lock, now time.Time, most int) {
	if len(list) == 0 {
		return
	}
	rows := [][]cell{head("Lock", "Holder", "Taken or renewed", "Unchanged for", "Expires")}
	left := 0
	for _, l := range list {
		if most > 0 && len(rows) > most {
			left++
			continue
		}
		expires := cell{"in " + duration(memdb.LockTimeout-now.Sub(l.Since)), ""}
		if l.Expired {
			expires = cell{"expired", yellow}
		}
		holder := clean(l.Holder)
		if holder == "" {
			holder = fmt.Sprintf("node %d, which is not in the cluster", l.ID)
		}
		rows = append(rows, []cell{{clean(l.Name), ""}, {holder, ""}, {when(l.Taken), ""}, {duration(now.Sub(l.Since)), ""}, expires})
	}
	p.table(rows)
	if left > 0 {
		p.printf("and %d more: pmxcfs locks\n", left)
	}
}

// problems writes the most recent problems.
func (p *Painter) problems(list []inspect.Problem) {
	if len(list) == 0 {
		return
	}
	p.printf("\n%s\n", p.paint(bold, "Recent warnings and errors of the daemon"))
	for i, e := range list {
		if i == shownErrors {
			p.printf("  and %d more\n", len(list)-i)
			break
		}
		color := yellow
		if e.Level == "error" {
			color = red
		}
		count := ""
		if e.Count > 1 {
			count = fmt.Sprintf(" (%d times since %s)", e.Count, when(e.First))
		}
		p.printf("  %s %s %s%s\n", when(e.Last), p.paint(color, "["+clean(e.Domain)+"]"), clean(e.Text), count)
		if e.Remedy != "" {
			p.printf("    %s\n", p.paint(faint, "→ "+clean(e.Remedy)))
		}
	}
}
