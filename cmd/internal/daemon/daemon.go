package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"pmxcfs/cmd/internal/exit"
	"pmxcfs/cmd/internal/logging"
	"pmxcfs/fuse"
	"pmxcfs/internal/event"
	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/history"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status"
	"pmxcfs/status/health"
	"pmxcfs/status/ipc"
	"pmxcfs/status/metrics"
	"pmxcfs/status/rrd"
	"pmxcfs/status/web"
)

// Run runs the daemon, in the foreground or not.
func Run(o Options, stderr io.Writer) error {
	ready, child := inheritedReadiness()
	if !o.Foreground && !child {
		return daemonise(os.Args, stderr)
	}
	nameProcess(daemonName)
	if child {
		// Only now: what the command line said of files was relative to there.
		if err := os.Chdir("/"); err != nil {
			return err
		}
	}
	logs, err := logging.New(logging.Config{Debug: o.Debug, File: o.LogFile}, stderr)
	if err != nil {
		return err
	}
	defer logs.Close()
	d := &daemon{o: o, logs: logs, log: logs.Domain("main")}
	d.manager, err = inheritedManager()
	if err != nil {
		d.log.Warn("can't notify the service manager", "error", err)
	}
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGXFSZ)
	if err = d.start(); err == nil {
		err = ready.tell()
	}
	if err == nil {
		d.serve()
		select {
		case s := <-stop:
			d.log.Log(context.Background(), event.LevelNotice, "stopping", "signal", s.String(), event.DaemonStopping.Attr("path", o.MountPoint))
		case <-d.mount.Done():
			if err = d.mount.Err(); err == nil {
				err = errUnmounted // a failure, for the service manager to start the daemon again
				d.log.Warn("stopping: "+err.Error(), "path", o.MountPoint, event.DaemonStopping.Attr())
			} else {
				d.log.Log(context.Background(), event.LevelCritical, "stopping: the file system is not served any more", "path", o.MountPoint, "error", err, event.DaemonFailed.Attr())
			}
		}
		go func() {
			<-stop
			d.log.Error("a second signal: ending at once")
			os.Exit(exit.Failure)
		}()
	} else {
		d.log.Log(context.Background(), event.LevelCritical, "the daemon can't start", "error", err, event.DaemonFailed.Attr())
		d.tell(statusLine("can't start: " + err.Error()))
	}
	if serr := d.stop(); serr != nil {
		d.log.Error("stopping", "error", serr)
		err = errors.Join(err, serr)
	}
	if err != nil {
		return exit.Status(exit.Failure) // the log has said why
	}
	return nil
}

// errUnmounted is why a daemon ends that nobody has told to.
var errUnmounted = errors.New("somebody has unmounted the file system")

// daemon is what runs, in the order in which it is started; stop goes backwards
// through what there is.
type daemon struct {
	o    Options
	logs *logging.Logs
	log  *slog.Logger

	name     string    // the node's
	address  string    // the node's; empty means unknown
	begin    time.Time // of the start
	db       *sqlite.DB
	gid      uint32
	lock     *os.File
	samples  *rrd.Writer
	tree     *memdb.Tree
	status   *status.Store
	store    io.Closer         // closes the database
	liveness liveness          // the store's
	cluster  *cluster          // the store in cluster mode; nil means local mode
	local    *dcdb.Local       // the store in local mode
	history  *history.Recorder // nil means none
	alive    health.Liveness
	web      *web.Server
	metrics  *metrics.Metrics // nil means none
	mount    *fuse.Mount
	guard    *guard
	tools    *toolService // nil means none
	gc       *memoryTuner
	pid      bool // the pid file is written
	up       bool // everything was started

	manager  serviceManager
	watchdog *watchdog
	reporter *reporter

	// Asked for by other goroutines while it changes.
	mounted           atomic.Pointer[fuse.Mount]
	running, stopping atomic.Bool
}

func (d *daemon) start() error {
	begin := time.Now()
	name, err := NodeName(d.o)
	if err != nil {
		return err
	}
	d.logs.SetNode(name)
	address, err := NodeAddress(d.o, name)
	switch {
	case err != nil && d.o.Local: // nobody asks for it then
		d.log.Warn("the node's address is unknown", "error", err)
	case err != nil:
		return err
	}
	if d.gid, err = groupID(d.o.Group); err != nil {
		return err
	}
	syscall.Umask(0o027)
	if err := d.makeDirs(); err != nil {
		return err
	}
	// Once, now that it is there: whatever becomes of a symbolic link in it later, this
	// is where the mount is, under the name that the kernel's list of mounts has.
	if d.o.MountPoint, err = fuse.Resolve(d.o.MountPoint); err != nil {
		return err
	}
	d.tell(statusLine("waiting for an earlier run to end"), extension(2*lockWait))
	if d.lock, err = takeLock(d.o.LockFile, d.helpToEnd); err != nil {
		return err
	}
	d.name, d.begin = name, begin
	if address != nil {
		d.address = address.String()
	}
	// Before there is a mount, and while the database is loaded: a daemon that is killed
	// with a mount and without a guard may be unable to end.
	if d.guard, err = startGuard(d.o.MountPoint, name, d.log); err != nil {
		d.log.Warn(noGuardText, "error", err)
	}
	if d.o.IPCName != "" {
		d.tools = &toolService{log: d.log, every: toolsRetry}
	}
	d.tell(statusLine("loading the database"), extension(d.loadTime()))
	tree, err := d.openStore(name, address, begin)
	if err != nil {
		return err
	}
	d.startWeb()
	if n, err := fuse.Leftover(d.o.MountPoint); err != nil {
		return err
	} else if n > 0 {
		d.log.Info("unmounted the dead mount of an earlier run", "path", d.o.MountPoint, "mounts", n)
	}
	d.awaitGuard()
	if d.mount, err = tree.Mount(d.o.MountPoint); err != nil {
		return err
	}
	d.mounted.Store(d.mount)
	spreadProcs()
	mode := "local"
	if d.cluster != nil {
		mode = "cluster"
		d.cluster.start()
	}
	if err := d.startTools(); err != nil {
		return err
	}
	if err := d.writePid(); err != nil {
		return err
	}
	if err := d.restartFlag().Clear(); err != nil {
		d.log.Warn("removing the restart flag", "error", err)
	}
	d.up = true
	d.running.Store(true)
	d.log.Log(context.Background(), event.LevelNotice, "the file system is up", "path", d.o.MountPoint, "node", name, "address", address, "mode", mode, "took", time.Since(begin).Round(time.Millisecond),
		event.DaemonUp.Attr("version", d.tree.Root().Version, "program", d.o.Version))
	return nil
}

// noGuardText is what the log says of a daemon without a guard.
const noGuardText = "no guard will end the mount if this daemon is killed and can't"

// awaitGuard returns when the guard looks on, or is not to be waited for any longer.
func (d *daemon) awaitGuard() {
	if d.guard == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), guardStart)
	defer cancel()
	if err := d.guard.Ping(ctx); err != nil {
		d.log.Warn(noGuardText, "error", err)
	}
}

// helpToEnd ends what keeps a killed daemon from ending.
func (d *daemon) helpToEnd() {
	b, err := os.ReadFile(d.o.PidFile)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid == os.Getpid() {
		return
	}
	ended, err := endDying(d.o.MountPoint, pid)
	switch {
	case err != nil:
		d.log.Error("a killed daemon can't end, and its file system can't be ended", "pid", pid, "path", d.o.MountPoint, "error", err)
	case ended:
		d.log.Warn(mountEndedText, "pid", pid, "path", d.o.MountPoint, event.MountEnded.Attr())
	}
}

// makeDirs makes the directories that the daemon owns.
func (d *daemon) makeDirs() error {
	for _, dir := range []string{filepath.Dir(d.o.Database), filepath.Dir(d.o.LockFile), d.o.RunDir, filepath.Dir(d.o.PidFile), d.o.MountPoint} {
		// A mount point that a killed daemon has left can't even be looked at.
		if err := os.MkdirAll(dir, 0o750); err != nil && !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making a directory that the daemon needs: %w", err)
		}
	}
	return d.toGroup(d.o.RunDir)
}

// toGroup gives a file of ours to the group, if this process may.
func (d *daemon) toGroup(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, 0, int(d.gid))
}

// openStore loads the database and builds everything up to the file system.
func (d *daemon) openStore(name string, address net.IP, begin time.Time) (*fuse.FS, error) {
	dbLog := d.logs.Domain("database")
	if !d.o.NoMetrics {
		d.metrics = metrics.New(metrics.Config{Version: d.o.Version, Log: d.logs.Domain("web")})
	}
	dbCfg := sqlite.Config{Path: d.o.Database, Log: dbLog}
	d.observeDatabase(&dbCfg)
	db, entries, created, err := sqlite.Open(dbCfg)
	if errors.Is(err, sqlite.ErrInUse) {
		return nil, fmt.Errorf("%w: end it, or give this one a database of its own by --database", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (pmxcfs db check shows what is wrong with a database, pmxcfs db repair makes a sound copy)", err)
	}
	tree, dups, err := memdb.Build(entries)
	if err == nil {
		err = d.acceptDuplicates(dups)
	}
	if err == nil && created && !d.o.Local {
		err = d.importCorosyncConf(tree, db)
	}
	if err == nil {
		err = d.openSamples()
	}
	if err == nil {
		err = d.newStatus(tree, name, address, begin)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", d.o.Database, err), db.Close())
	}
	d.db = db
	d.gc = startMemoryTuner()

	state := d.status
	cfg := fuse.Config{
		Specials: []fuse.Special{
			{Name: ".version", Mode: 0o440, Read: state.Version},
			{Name: ".members", Mode: 0o440, Read: state.Members},
			{Name: ".vmlist", Mode: 0o440, Read: state.VMList},
			{Name: ".clusterlog", Mode: 0o440, Read: func() []byte { return state.ClusterLog(0, "") }},
			{Name: ".rrd", Mode: 0o440, Read: state.RRD},
			{Name: ".debug", Mode: 0o640, Read: d.logs.ReadDebug, Write: d.logs.WriteDebug},
		},
		Links: fuse.Links(name),
		UID:   uint32(os.Geteuid()),
		GID:   d.showGroup(),
		Log:   d.logs.Domain("fuse"),

		IgnoreChmod: d.o.IgnoreChmod,
	}
	if d.guard != nil {
		cfg.Mounted = d.guard.watch
	}
	d.observeMount(&cfg)
	mount := fuse.New(cfg)
	recorder := d.startHistory(tree, db)
	if _, ok := tree.Lookup("corosync.conf"); ok && !d.o.Local {
		d.cluster, err = newCluster(clusterConfig{
			tree: tree, db: db, status: state, observer: d.observers(state, mount), metrics: d.metrics,
			quorumChanged: mount.QuorumChanged, hostConf: d.o.CorosyncConf, unguarded: d.o.UnguardedConf, node: name, software: d.o.Version, logs: d.logs, recorder: recorder,
		})
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		d.store, d.liveness = d.cluster, d.cluster.store
		mount.SetStore(d.cluster.store)
		mount.Share()
	} else {
		d.local = dcdb.NewLocal(dcdb.Config{Tree: tree, DB: db, Log: dbLog, Observer: d.observers(state, mount), Free: db.Free, Recorder: recorder})
		d.store, d.liveness = d.local, d.local
		mount.SetStore(d.local)
	}
	d.watchMetrics(db, mount)
	return mount, nil
}

// showGroup is the group that files show: the configured one, or this process's
// own if it can't give files away.
func (d *daemon) showGroup() uint32 {
	if os.Geteuid() != 0 {
		return uint32(os.Getegid())
	}
	return d.gid
}

// acceptDuplicates decides about VMIDs that several configurations claim.
func (d *daemon) acceptDuplicates(dups []memdb.Duplicate) error {
	if len(dups) == 0 {
		return nil
	}
	if !d.o.ForceDuplicates {
		for _, dup := range dups {
			d.log.Error("a VMID is claimed twice", "vmid", dup.VMID, "by", dup.Kept, "and_by", dup.Dropped, event.Duplicate.Attr())
		}
		return fmt.Errorf("%w (remove one of each pair with pmxcfs db repair, or start with --force-duplicates)", &memdb.DuplicateError{Duplicates: dups})
	}
	for _, dup := range dups {
		d.log.Warn("a VMID is claimed twice; the VM list leaves one out", "vmid", dup.VMID, "listed", dup.Kept, "left_out", dup.Dropped, event.Duplicate.Attr())
	}
	return nil
}

func (d *daemon) writePid() error {
	if err := os.WriteFile(d.o.PidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("writing the pid file: %w", err)
	}
	d.pid = true
	return os.Chmod(d.o.PidFile, 0o644)
}

// restartFlag is the file that has clients wait for the next daemon.
func (d *daemon) restartFlag() ipc.RestartFlag {
	f := ipc.RestartFlag{Path: filepath.Join(d.o.RunDir, "cfs-restart-flag"), GID: -1}
	if os.Geteuid() == 0 {
		f.GID = int(d.gid)
	}
	return f
}

// stop ends what was started, in reverse order.
func (d *daemon) stop() error {
	if d.up {
		d.tell(notifyStopping, statusLine("stopping"), extension(stopTime))
	}
	if d.reporter != nil {
		d.reporter.stop()
		d.watchdog.stop()
	}
	var errs []error
	d.stopping.Store(true)
	if d.up {
		errs = append(errs, d.restartFlag().Set())
	}
	d.tools.stop()
	if d.mount != nil {
		errs = append(errs, d.mount.Unmount())
	}
	if d.guard != nil {
		d.guard.stop()
	}
	if d.gc != nil {
		d.gc.stop()
	}
	if d.web != nil {
		d.web.Stop()
	}
	if d.store != nil {
		d.tell(extension(stopTime + d.loadTime()))
		errs = append(errs, d.store.Close())
	}
	if d.history != nil {
		d.history.Close()
	}
	if d.samples != nil {
		d.closeSamples()
	}
	if d.pid {
		errs = append(errs, os.Remove(d.o.PidFile))
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// observers tells several of each change.
type observers []dcdb.Observer

func (o observers) Applied(op *memdb.Op, changes []memdb.Change, foreign bool) {
	for _, x := range o {
		x.Applied(op, changes, foreign)
	}
}

func (o observers) Reset(changes []memdb.Change) {
	for _, x := range o {
		x.Reset(changes)
	}
}
