package daemon

import (
	"cmp"
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

// liveness is what a store lets know of its being alive.
type liveness interface {
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
	if d.manager.socket != "" {
		d.reporter = startReporter(d.statusText, func(text string) { d.tell(statusLine(text)) })
	}
}

// checks are the parts that never may stand still.
func (d *daemon) checks() []*check {
	disk := func(least time.Duration) string {
		if d.liveness.Waits().Disk >= least {
			return "the database's disk"
		}
		return ""
	}
	list := []*check{{
		name: "the store",
		ping: d.liveness.Ping,
		waits: func(least time.Duration) string {
			if d.liveness.Waits().Corosync >= least {
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
			rest: mountRest,
			waits: func(least time.Duration) string {
				// Large writes that wait take up all room for requests.
				if d.liveness.Waits().Deliveries > 0 {
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
	for _, c := range list {
		c.rest = max(c.rest, partRest)
	}
	return list
}

// statusText says in one line how the daemon is. What is wrong, health says.
func (d *daemon) statusText() string {
	n := d.node()
	parts := []string{"local mode"}
	if n.Cluster {
		parts = d.cluster.statusText(n)
	}
	for _, r := range n.Reasons() {
		if r.Code != health.Starting {
			parts = append(parts, r.Text)
		}
	}
	parts = append(parts, "version "+strconv.FormatUint(n.Version, 10))
	if d.watchdog != nil {
		if note := d.watchdog.waiting(); note != "" {
			parts = append(parts, note)
		}
	}
	return strings.Join(parts, "; ")
}

// statusText says where this node is in the cluster.
func (c *cluster) statusText(n health.Node) []string {
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
	if n.Quorate {
		parts = append(parts, "quorate")
	}
	var members []string
	for _, m := range c.store.Status().Group.Members {
		members = append(members, cmp.Or(names[m.Node], m.String()))
	}
	if len(members) > 0 {
		parts = append(parts, "members: "+strings.Join(members, ", "))
	}
	if n.Config.Mode == dfsm.ModeSynced {
		parts = append(parts, "synced")
	}
	return parts
}

// reporter tells a status whenever it has changed.
type reporter struct {
	quit chan struct{}
	done chan struct{}
}

// The time between two looks at the status: the least while it changes, and up to the most
// while it doesn't.
const (
	reportLeast = time.Second
	reportMost  = 8 * time.Second
)

func startReporter(status func() string, report func(string)) *reporter {
	r := &reporter{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		wait := reportLeast
		clock := time.NewTimer(wait)
		defer clock.Stop()
		for last := ""; ; clock.Reset(wait) {
			wait = min(2*wait, reportMost)
			if text := status(); text != last {
				last, wait = text, reportLeast
				report(text)
			}
			select {
			case <-r.quit:
				return
			case <-clock.C:
			}
		}
	}()
	return r
}

func (r *reporter) stop() {
	close(r.quit)
	<-r.done
}
