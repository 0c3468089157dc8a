package fuse

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mount is a file system that is mounted.
type Mount struct {
	fs     *FS
	server *gofuse.Server
	dir    string
	direct bool // mounted by this process itself, not by fusermount
	minor  uint32
	done   chan struct{}
}

// ErrAborted means that somebody has ended the FUSE connection of a mount that is
// still there: every use of it fails.
var ErrAborted = errors.New("fuse: the connection was aborted")

// maxWrite is the greatest request to read or write, in bytes: a whole file.
const maxWrite = 1 << 20

// maxInflight bounds the memory that requests take, in bytes. More requests than
// fit wait in the kernel.
const maxInflight = 6 * (maxWrite + 8192)

// Mount mounts the file system on dir and serves it. It returns when the mount
// can be used. Other users may see it if this process is root, or
// /etc/fuse.conf allows it.
func (fs *FS) Mount(dir string) (*Mount, error) {
	m := &Mount{fs: fs, dir: dir, direct: os.Geteuid() == 0, done: make(chan struct{})}
	opts := &gofuse.MountOptions{
		Name:          "pmxcfs",
		FsName:        "/dev/fuse",
		AllowOther:    m.direct || userAllowOther(),
		Options:       fs.options(),
		MaxWrite:      maxWrite,
		MaxBackground: 64,
		// Each reader of the device has a buffer for the largest request.
		MaxInflightRequestBytes: maxInflight,
		DisableReadDirPlus:      true,
		ExtraCapabilities:       gofuse.CAP_ATOMIC_O_TRUNC, // an overwrite is a request less
		DisableSplice:           true,                      // content comes from memory: there is nothing to splice
		EnableSymlinkCaching:    true,
		Logger:                  slogLogger(fs.log),
	}
	target := dir
	if m.direct {
		fd, err := mountDirect(dir, fs.options()...)
		if err != nil {
			return nil, err
		}
		if err := m.identify(); err != nil {
			return nil, errors.Join(err, syscall.Close(fd), syscall.Unmount(dir, syscall.MNT_DETACH))
		}
		target = "/dev/fd/" + strconv.Itoa(fd)
	}
	var served gofuse.RawFileSystem = fs
	if fs.inFlight.to != nil {
		served = &observed{fs}
	}
	server, err := gofuse.NewServer(served, target, opts)
	if err != nil {
		if m.direct {
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		return nil, fmt.Errorf("mounting %s: %w", dir, err)
	}
	m.server = server
	if !m.direct {
		if err := m.identify(); err != nil {
			return nil, errors.Join(err, server.Unmount())
		}
	}
	fs.notify.start(server)
	go func() {
		server.Serve()
		fs.notify.stop()
		fs.calls.close()
		close(m.done)
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting %s: %w", dir, err), m.Unmount())
	}
	return m, nil
}

// identify learns which connection the new mount is, and tells who wants to know
// before the first request is served.
func (m *Mount) identify() error {
	mount, err := mountedOn(m.dir)
	if err == nil && !strings.HasPrefix(mount.kind, "fuse") {
		err = errors.New("the new mount is not in /proc/self/mountinfo: is the path the real one, without symbolic links?")
	}
	if err != nil {
		return fmt.Errorf("mounting %s: %w", m.dir, err)
	}
	m.minor = mount.minor
	m.fs.device.Store(mount.minor)
	if m.fs.mounted != nil {
		m.fs.mounted(mount.minor)
	}
	return nil
}

// mountDirect mounts with the type and source that tools look for.
func mountDirect(dir string, more ...string) (int, error) {
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening /dev/fuse (is the fuse module loaded, and may this process use it?): %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=%d", fd, maxWrite)
	for _, o := range more {
		options += "," + o
	}
	if err := syscall.Mount("/dev/fuse", dir, "fuse", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		syscall.Close(fd)
		return 0, fmt.Errorf("mounting a FUSE file system on %s: %w", dir, err)
	}
	return fd, nil
}

// options are the mount's own. Without default_permissions every request is checked here.
func (fs *FS) options() []string {
	if fs.kernelChecks {
		return []string{"default_permissions"}
	}
	return nil
}

// userAllowOther reports whether an unprivileged user may let others in.
func userAllowOther() bool {
	conf, err := os.ReadFile("/etc/fuse.conf")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(conf)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}

// Done is closed when the file system is not served any more: after Unmount, or
// when somebody else has unmounted it.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Err says, once Done is closed, why the file system is not served any more: nil
// if it was unmounted, ErrAborted if it is still mounted.
func (m *Mount) Err() error {
	if there, err := m.there(); err != nil || !there {
		return err
	}
	return ErrAborted
}

// there reports whether this very file system is mounted, be it below another one.
func (m *Mount) there() (bool, error) {
	mounts, err := mountsOn(m.dir)
	return slices.ContainsFunc(mounts, func(x mounted) bool {
		return strings.HasPrefix(x.kind, "fuse") && x.minor == m.minor
	}), err
}

// Unmount takes the file system away. If it is busy, it goes from the name space
// at once, and for those who are in it when they have left or a short time has
// passed.
func (m *Mount) Unmount() error {
	select {
	case <-m.done:
		if there, err := m.there(); err != nil || !there {
			return err
		}
	default:
	}
	var err error
	if m.direct {
		if err = syscall.Unmount(m.dir, 0); errors.Is(err, syscall.EBUSY) {
			err = syscall.Unmount(m.dir, syscall.MNT_DETACH)
		}
	} else {
		err = m.server.Unmount()
	}
	if err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: it is not mounted
		return fmt.Errorf("unmounting %s: %w", m.dir, err)
	}
	select {
	case <-m.done:
		return nil
	case <-time.After(lingerTime):
	}
	// Somebody holds a file open. Their calls fail from now on; where the
	// connection can't be ended, from the end of this process.
	if err := abort(m.minor); err != nil {
		m.fs.log.Info("the file system is still in use", "path", m.dir, "error", err)
		return nil
	}
	<-m.done
	return nil
}

// lingerTime is how long those who still have a file open at the end may keep
// it.
const lingerTime = 500 * time.Millisecond

// abort ends a FUSE connection: all its requests fail. The control file system
// is mounted for a moment where it is not.
func abort(connection uint32) error {
	name := strconv.FormatUint(uint64(connection), 10) + "/abort"
	err := os.WriteFile(filepath.Join("/sys/fs/fuse/connections", name), []byte("1"), 0)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	dir, err := os.MkdirTemp("", "fusectl-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := syscall.Mount("fusectl", dir, "fusectl", 0, ""); err != nil {
		return fmt.Errorf("mounting the FUSE control file system: %w", err)
	}
	err = os.WriteFile(filepath.Join(dir, name), []byte("1"), 0)
	return errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH))
}

// EndDying ends a FUSE connection, given by its device's minor number, if process
// pid, which serves it, is being killed and can't end: a thread of it waits in the
// kernel for something that waits for an answer of the same process. It reports
// whether it did. What another process has mounted at the same place is another
// connection.
func EndDying(connection uint32, pid int) (bool, error) {
	if !Dying(pid) {
		return false, nil
	}
	return true, abort(connection)
}

// Connection returns the FUSE connection that is mounted on dir, topmost; false if
// there is none.
func Connection(dir string) (uint32, bool, error) {
	mount, err := mountedOn(dir)
	return mount.minor, err == nil && strings.HasPrefix(mount.kind, "fuse"), err
}

// Dying reports whether a process has been killed and can't end yet. One of which
// nothing is left but what its parent has not waited for (a zombie) has ended: its
// descriptors are closed. See proc_pid_status(5).
func Dying(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	var zombie, killed bool
	threads := 0
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "State": // the first thread's
			zombie = strings.HasPrefix(value, "Z")
		case "Threads":
			threads, _ = strconv.Atoi(value)
		case "SigPnd", "ShdPnd":
			if mask, err := strconv.ParseUint(value, 16, 64); err == nil && mask&(1<<(syscall.SIGKILL-1)) != 0 {
				killed = true
			}
		}
	}
	if zombie {
		return threads > 1 // a signal that killed it stays noted
	}
	return killed
}

// Resolve returns the path of a mount point without symbolic links, as the kernel
// names it. It asks nothing of what is mounted there, whose server may be gone. A
// path at which there is nothing stays as it is.
func Resolve(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return dir, nil
	}
	if err != nil {
		return "", fmt.Errorf("resolving the mount point %s: %w", dir, err)
	}
	defer unix.Close(fd)
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}

// Leftover unmounts what an earlier run has left mounted on dir, and reports
// how many mounts that were. Only FUSE mounts are touched.
func Leftover(dir string) (int, error) {
	for n := 0; ; n++ {
		mount, err := mountedOn(dir)
		if err != nil || !strings.HasPrefix(mount.kind, "fuse") {
			return n, err
		}
		if os.Geteuid() != 0 {
			return n, fmt.Errorf("%s: an earlier mount is left there: take it away with fusermount3 -u", dir)
		}
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			return n, fmt.Errorf("unmounting what is left on %s: %w", dir, err)
		}
	}
}

// mounted is a file system that is mounted somewhere.
type mounted struct {
	kind  string // type; empty means there is none
	minor uint32 // of its device number
}

// mountedOn returns the topmost file system mounted on dir. It asks nothing of
// that file system, whose server may be gone.
func mountedOn(dir string) (mounted, error) {
	all, err := mountsOn(dir)
	if len(all) == 0 {
		return mounted{}, err
	}
	return all[len(all)-1], err
}

// mountsOn returns the file systems mounted on dir, a path without symbolic links,
// the topmost one last.
func mountsOn(dir string) ([]mounted, error) {
	list, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != dir, false })
	var found []mounted
	for _, m := range list {
		found = append(found, mounted{m.FSType, uint32(m.Minor)})
	}
	return found, err
}

// slogLogger passes on what go-fuse has to say.
func slogLogger(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelWarn) }
