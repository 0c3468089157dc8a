package daemon

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/status/health"
)

// pulse is what a store lets know of its being alive.
type pulse interface {
	Ping(ctx context.Context) error
	Waits() dcdb.Waits
}

const (
	// stopTime is what stopping takes at most, apart from the database: who has
	// files open gets half a second, corosync four.
	stopTime = 10 * time.Second
	// loadRate is what even a bad disk reads or writes in a second, in bytes.
	loadRate = 1 << 20
)

// loadTime is how long loading or closing the database may take.
func (d *daemon) loadTime() time.Duration {
	bytes := int64(0)
	for _, name := range []string{d.o.Database, d.o.Database + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			bytes += info.Size()
		}
	}
	return 20*time.Second + time.Duration(bytes/loadRate)*time.Second
}

// tell tells the service manager. What can't be told is no reason to stop.
func (d *daemon) tell(assignments ...string) {
	if err := d.manager.tell(assignments...); err != nil {
		d.log.Debug("a message to the service manager is lost", "error", err)
	}
}

// serve says that the daemon is ready, and from then on how it is.
func (d *daemon) serve() {
	if err := d.manager.tell(notifyReady, statusLine(d.statusText())); err != nil {
		d.log.Error("the service manager does not know that the daemon is ready", "error", err)
	}
	d.watchdog = startWatchdog(d.manager.watchdog, d.checks(), func() { d.tell(notifyWatchdog) }, d.log)
	d.alive.Add(health.Check{Name: "watchdog", Run: func(context.Context) error { return d.watchdog.stuck() }})
	d.reporter = startReporter(d.statusText, func(text string) { d.tell(statusLine(text)) })
}

// checks are the parts that never may stand still.
func (d *daemon) checks() []*check {
	disk := func(least time.Duration) string {
		if d.pulse.Waits().Disk >= least {
			return "the database's disk"
		}
		return ""
	}
	list := []*check{{
		name: "the store",
		ping: d.pulse.Ping,
		waits: func(least time.Duration) string {
			if d.pulse.Waits().Corosync >= least {
				return "corosync"
			}
			return disk(least)
		},
	}}
	list = append(list, &check{
		name: "the status store",
		ping: func(context.Context) error {
			d.status.Version() // takes its locks, and the tree's
			return nil
		},
	})
	if d.guard != nil {
		list = append(list, &check{
			name: "the mount",
			ping: d.guard.Ping,
			waits: func(least time.Duration) string {
				// Large writes that wait take up all room for requests.
				if d.pulse.Waits().Deliveries > 0 {
					return "corosync to deliver changes"
				}
				return disk(least)
			},
		})
	}
	if d.cluster != nil {
		list = append(list, &check{
			name: "the status group",
			ping: d.cluster.kv.Ping,
			waits: func(least time.Duration) string {
				if d.cluster.kv.Outside() >= least {
					return "corosync"
				}
				return ""
			},
		})
	}
	if d.tools != nil {
		list = append(list, &check{name: "the service for Proxmox's tools", ping: d.tools.Ping})
	}
	return list
}

// statusText says in one line how the daemon is.
func (d *daemon) statusText() string {
	parts := []string{"local mode"}
	if d.cluster != nil {
		parts = d.cluster.statusText()
	} else if err := d.local.Failing(); err != nil {
		parts = append(parts, "the database can't be written ("+err.Error()+")")
	}
	if d.tools.trouble() != nil {
		parts = append(parts, "no service for Proxmox's tools")
	}
	parts = append(parts, "version "+strconv.FormatUint(d.tree.Root().Version, 10))
	if d.watchdog != nil {
		if note := d.watchdog.waiting(); note != "" {
			parts = append(parts, note)
		}
	}
	return strings.Join(parts, "; ")
}

// statusText says how this node's part in the cluster is.
func (c *cluster) statusText() []string {
	s := c.store.Status()
	names := map[corosync.NodeID]string{}
	parts := []string{"cluster mode"}
	if info := c.info.Load(); info != nil {
		if info.Name != "" {
			parts[0] = "cluster " + info.Name
		}
		for _, n := range info.Nodes {
			names[n.ID] = n.Name
		}
	}
	if s.Quorate {
		parts = append(parts, "quorate")
	} else {
		parts = append(parts, "not quorate")
	}
	members := make([]string, len(s.Group.Members))
	for i, m := range s.Group.Members {
		if members[i] = names[m.Node]; members[i] == "" {
			members[i] = m.String()
		}
	}
	switch {
	case s.Database != nil:
		return append(parts, "out of the group: the database can't be written ("+s.Database.Error()+")")
	case s.Group.Mode.Final():
		return append(parts, "out of the group until restarted, the log says why")
	case len(members) > 0 && !s.Group.Mode.Failed():
		parts = append(parts, "members: "+strings.Join(members, ", "))
		if s.Group.Mode == dfsm.ModeSynced {
			return append(parts, "synced")
		}
		return append(parts, "synchronising")
	case !s.Group.Connected && s.Group.LastError != nil:
		return append(parts, "no connection to corosync ("+s.Group.LastError.Error()+")")
	case !s.Group.Connected:
		return append(parts, "no connection to corosync yet")
	}
	return append(parts, "joining the group")
}

// reporter tells a status whenever it has changed.
type reporter struct {
	quit chan struct{}
	done chan struct{}
}

// reportInterval is the least time between two reports.
const reportInterval = time.Second

func startReporter(status func() string, report func(string)) *reporter {
	r := &reporter{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		tick := time.NewTicker(reportInterval)
		defer tick.Stop()
		for last := ""; ; {
			if text := status(); text != last {
				last = text
				report(text)
			}
			select {
			case <-r.quit:
				return
			case <-tick.C:
			}
		}
	}()
	return r
}

func (r *reporter) stop() {
	close(r.quit)
	<-r.done
}
