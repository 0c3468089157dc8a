package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmxcfs/cmd/internal/daemon"
	"pmxcfs/memdb"
	"pmxcfs/status/ipc"
)

// place is a path that an option can move.
type place struct {
	flag, env, path, usage string
	set                    func(*daemon.Options, string)
}

// places are the daemon's files, where a Proxmox VE node has them.
var places = [...]place{
	{"mount-point", "PMXCFS_MOUNT_POINT", "/etc/pve", "`DIR` to mount on", func(o *daemon.Options, p string) { o.MountPoint = p }},
	{"database", "PMXCFS_DATABASE", "/var/lib/pve-cluster/config.db", "`FILE` of the tree", func(o *daemon.Options, p string) { o.Database = p }},
	{"lock-file", "PMXCFS_LOCK_FILE", "/var/lib/pve-cluster/.pmxcfs.lockfile", "`FILE` that keeps a second daemon from starting", func(o *daemon.Options, p string) { o.LockFile = p }},
	{"run-dir", "PMXCFS_RUN_DIR", "/run/pve-cluster", "`DIR` of the restart flag", func(o *daemon.Options, p string) { o.RunDir = p }},
	{"pid-file", "PMXCFS_PID_FILE", "/run/pve-cluster.pid", "`FILE` that holds the daemon's process id", func(o *daemon.Options, p string) { o.PidFile = p }},
	{"rrd-dir", "PMXCFS_RRD_DIR", "/var/lib/rrdcached/db", "`DIR` of the RRD files", func(o *daemon.Options, p string) { o.RRDDir = p }},
	{"rrdcached-socket", "PMXCFS_RRDCACHED_SOCKET", "/var/run/rrdcached.sock", "`SOCKET` of rrdcached", func(o *daemon.Options, p string) { o.RRDSocket = p }},
	{"corosync-conf", "PMXCFS_COROSYNC_CONF", "/etc/corosync/corosync.conf", "`FILE` that is the host's copy of corosync.conf", func(o *daemon.Options, p string) { o.CorosyncConf = p }},
}

func daemonFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.BoolFlag{Name: "debug", Aliases: []string{"d"}, EnvVars: []string{"PMXCFS_DEBUG"}, Usage: "log debug messages"},
		&cli.BoolFlag{Name: "foreground", Aliases: []string{"f"}, EnvVars: []string{"PMXCFS_FOREGROUND"}, Usage: "do not daemonise; log to stderr, too"},
		&cli.BoolFlag{Name: "local", Aliases: []string{"l"}, EnvVars: []string{"PMXCFS_LOCAL"}, Usage: "force local mode: ignore corosync.conf, force quorum"},
		&cli.BoolFlag{Name: "force-duplicates", EnvVars: []string{"PMXCFS_FORCE_DUPLICATES"}, Usage: "start although several guest configurations claim one VMID; the log names those left out of the VM list"},
		&cli.BoolFlag{Name: "ignore-chmod", EnvVars: []string{"PMXCFS_IGNORE_CHMOD"}, Usage: "let chmod and chown to another mode or owner than a file's fixed one succeed, without effect"},
		&cli.BoolFlag{Name: "unguarded-conf", EnvVars: []string{"PMXCFS_UNGUARDED_CONF"}, Usage: "give corosync every corosync.conf of the tree, also one that it would refuse"},
		&cli.StringFlag{Name: "root", EnvVars: []string{"PMXCFS_ROOT"}, Usage: "put every path below `DIR` that no option of its own moves, and make the directories"},
	}
	for _, p := range places {
		flags = append(flags, &cli.StringFlag{Name: p.flag, EnvVars: []string{p.env}, Usage: p.usage, DefaultText: p.path})
	}
	return append(flags,
		&cli.StringFlag{Name: "node-name", EnvVars: []string{"PMXCFS_NODE_NAME"}, Usage: "this node's `NAME`", DefaultText: "the host's name up to the first dot"},
		&cli.StringFlag{Name: "node-address", EnvVars: []string{"PMXCFS_NODE_ADDRESS"}, Usage: "this node's `IP` address", DefaultText: "what its name resolves to"},
		&cli.StringFlag{Name: "log-file", EnvVars: []string{"PMXCFS_LOG_FILE"}, Usage: "append the log to `FILE`, too"},
		&cli.StringFlag{Name: "ipc-name", EnvVars: []string{"PMXCFS_IPC_NAME"}, Usage: "`NAME` of the service that Proxmox's tools call", DefaultText: ipc.DefaultName + "; with --root: no service"},
		&cli.StringFlag{Name: "metrics-listen", EnvVars: []string{"PMXCFS_METRICS_LISTEN"}, Usage: "`ADDRESS:PORT` to serve metrics and health on by HTTP; empty means none", DefaultText: daemon.DefaultListen + "; with --root: none"},
		&cli.StringFlag{Name: "metrics-web-config", EnvVars: []string{"PMXCFS_METRICS_WEB_CONFIG"}, Usage: "`FILE` that asks for TLS and passwords there, as Prometheus' exporters have it"},
		&cli.BoolFlag{Name: "no-metrics", EnvVars: []string{"PMXCFS_NO_METRICS"}, Usage: "observe nothing, and serve no metrics"},
		&cli.StringFlag{Name: "socket", EnvVars: []string{"PMXCFS_SOCKET"}, Usage: "Unix `SOCKET` on which the daemon answers root's commands; empty means none", DefaultText: daemon.SocketName + " in the run directory"},
		&cli.StringFlag{Name: "history-size", EnvVars: []string{"PMXCFS_HISTORY_SIZE"}, Value: "64M", Usage: "how large the history of the tree may grow: `SIZE` in bytes, or with K, M or G; 0 means no history"},
		&cli.StringFlag{Name: "history-age", EnvVars: []string{"PMXCFS_HISTORY_AGE"}, Value: "90d", Usage: "how old a change in the history may be: `TIME` such as 90d or 36h; 0 means any age"},
		&cli.StringSliceFlag{Name: "history-exclude", EnvVars: []string{"PMXCFS_HISTORY_EXCLUDE"}, Usage: "leave paths out of the history that match `PATTERN`, as a shell's, with all below them; may be given again"},
		&cli.StringFlag{Name: "group", EnvVars: []string{"PMXCFS_GROUP"}, Value: "www-data", Usage: "`GROUP` that may read all but private files"},
	)
}

// notEmpty objects to options for paths that are given without a value, as by a variable
// of a script that is not set: the default would be another place than the one that was
// meant. An empty --socket or --metrics-listen is the documented way to have none.
func notEmpty(c *cli.Context) error {
	names := []string{"root", "log-file", "metrics-web-config"}
	for _, p := range places {
		names = append(names, p.flag)
	}
	for _, name := range names {
		value, isSet := given(c, name)
		if isSet && value == "" {
			return fmt.Errorf("--%s is empty: give it a path, or leave the option out", name)
		}
		variable := "PMXCFS_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if text, there := os.LookupEnv(variable); there && text == "" && !isSet { // to the library it is not set
			return fmt.Errorf("%s is empty: give it a path, or unset it", variable)
		}
	}
	return nil
}

// historyOptions reads the options about the history, which only the daemon has.
func historyOptions(c *cli.Context, o *daemon.Options) (err error) {
	if size, _ := given(c, "history-size"); size != "" {
		if o.HistorySize, err = parseSize(size); err != nil {
			return fmt.Errorf("--history-size: %w", err)
		}
	}
	if age, _ := given(c, "history-age"); age != "" {
		if o.HistoryAge, err = parseAge(age); err != nil {
			return fmt.Errorf("--history-age: %w", err)
		}
	}
	for _, pattern := range c.StringSlice("history-exclude") {
		pattern = memdb.CleanPath(pattern)
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("--history-exclude: %q is no pattern", pattern)
		}
		o.HistoryExclude = append(o.HistoryExclude, pattern)
	}
	return nil
}

// parseSize reads a number of bytes: 1048576, 64M, 64MiB, 1G.
func parseSize(text string) (int64, error) {
	number, shift := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "IB"), "B"), 0
	for unit, bits := range map[string]int{"K": 10, "M": 20, "G": 30} {
		if short, ok := strings.CutSuffix(number, unit); ok {
			number, shift = short, bits
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<40>>shift {
		return 0, fmt.Errorf("%q is no size: 0, 1048576, 64M, 1G", text)
	}
	return n << shift, nil
}

// parseAge reads a time, which may be in days.
func parseAge(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	age, err := time.ParseDuration(text)
	if err != nil || age < 0 {
		return 0, fmt.Errorf("%q is no time: 0, 36h, 90d", text)
	}
	return age, nil
}

func parseOptions(c *cli.Context) (*daemon.Options, error) {
	if err := notEmpty(c); err != nil {
		return nil, err
	}
	o := &daemon.Options{
		Version:         version,
		Debug:           c.Bool("debug"),
		Foreground:      c.Bool("foreground"),
		Local:           c.Bool("local"),
		ForceDuplicates: c.Bool("force-duplicates"),
		UnguardedConf:   c.Bool("unguarded-conf"),
		IgnoreChmod:     c.Bool("ignore-chmod"),
		IPCName:         c.String("ipc-name"),
	}
	o.NodeName, _ = given(c, "node-name")
	o.Address, _ = given(c, "node-address")
	o.Group, _ = given(c, "group")
	root := "/"
	if r, _ := given(c, "root"); r != "" {
		abs, err := filepath.Abs(r)
		if err != nil {
			return nil, err
		}
		root = abs
	}
	for _, p := range places {
		file := filepath.Join(root, p.path)
		if moved, _ := given(c, p.flag); moved != "" {
			abs, err := filepath.Abs(moved)
			if err != nil {
				return nil, err
			}
			file = abs
		}
		p.set(o, file)
	}
	if o.IPCName == "" && root == "/" {
		o.IPCName = ipc.DefaultName // it is the machine's: there is one
	}
	o.NoMetrics = c.Bool("no-metrics")
	o.Listen = c.String("metrics-listen")
	if !c.IsSet("metrics-listen") && root == "/" {
		o.Listen = daemon.DefaultListen
	}
	var moved bool
	if o.Socket, moved = given(c, "socket"); !moved {
		o.Socket = filepath.Join(o.RunDir, daemon.SocketName)
	}
	if err := historyOptions(c, o); err != nil {
		return nil, err
	}
	o.LogFile, o.WebConfig = c.String("log-file"), c.String("metrics-web-config")
	for _, file := range []*string{&o.LogFile, &o.WebConfig, &o.Socket} {
		if *file == "" {
			continue
		}
		abs, err := filepath.Abs(*file)
		if err != nil {
			return nil, err
		}
		*file = abs
	}
	if o.Group == "" {
		return nil, errors.New("--group must name a group")
	}
	return o, nil
}
