package fuse

import (
	"bufio"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount is a file system that is mounted.
type Mount struct {
	fs     *FS
	server *gofuse.Server
	dir    string
	direct bool // mounted by this process itself, not by fusermount
	done   chan struct{}
}

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
		Options:       []string{"default_permissions"},
		MaxWrite:      maxWrite,
		MaxBackground: 64,
		// Each reader of the device has a buffer for the largest request.
		MaxInflightRequestBytes: maxInflight,
		DisableXAttrs:           true,
		DisableReadDirPlus:      true,
		DisableSplice:           true, // content comes from memory: there is nothing to splice
		EnableSymlinkCaching:    true,
		Logger:                  slogLogger(fs.log),
	}
	target := dir
	if m.direct {
		fd, err := mountDirect(dir)
		if err != nil {
			return nil, err
		}
		target = "/dev/fd/" + strconv.Itoa(fd)
	}
	server, err := gofuse.NewServer(fs, target, opts)
	if err != nil {
		if m.direct {
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		return nil, fmt.Errorf("mounting %s: %w", dir, err)
	}
	m.server = server
	fs.notify.start(server)
	go func() {
		server.Serve()
		fs.notify.stop()
		close(m.done)
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting %s: %w", dir, err), m.Unmount())
	}
	return m, nil
}

// mountDirect mounts with the type and source that tools look for.
func mountDirect(dir string) (int, error) {
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening /dev/fuse (is the fuse module loaded, and may this process use it?): %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd, maxWrite)
	if err := syscall.Mount("/dev/fuse", dir, "fuse", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		syscall.Close(fd)
		return 0, fmt.Errorf("mounting a FUSE file system on %s: %w", dir, err)
	}
	return fd, nil
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

// Unmount takes the file system away. If it is busy, it goes from the name space
// at once, and for those who are in it when they have left or a short time has
// passed.
func (m *Mount) Unmount() error {
	select {
	case <-m.done:
		return nil
	default:
	}
	connection, _ := connectionOf(m.dir)
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
	if err := abort(connection); err != nil {
		m.fs.log.Info("the file system is still in use", "path", m.dir, "error", err)
		return nil
	}
	<-m.done
	return nil
}

// lingerTime is how long those who still have a file open at the end may keep
// it.
const lingerTime = 500 * time.Millisecond

// connectionOf returns the number by which the kernel's control file system
// knows the mount.
func connectionOf(dir string) (uint32, error) {
	// Without a request: a process that is killed while it waits for itself never
	// ends, since the kernel waits for an answer as long as it is there.
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return 0, err
	}
	return st.Dev_minor, nil
}

// abort ends a FUSE connection: all its requests fail.
func abort(connection uint32) error {
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", connection), []byte("1"), 0)
}

// Leftover unmounts what an earlier run has left mounted on dir, and reports
// how many mounts that were. Only FUSE mounts are touched.
func Leftover(dir string) (int, error) {
	for n := 0; ; n++ {
		kind, err := mountedOn(dir)
		if err != nil || !strings.HasPrefix(kind, "fuse") {
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

// mountedOn returns the type of the topmost file system mounted on dir, empty if
// dir is no mount point.
func mountedOn(dir string) (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	kind := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc_pid_mountinfo(5): the mount point is field 5, the type comes after
		// the separator.
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(head)
		if !ok || len(fields) < 5 || unescape(fields[4]) != dir {
			continue
		}
		kind, _, _ = strings.Cut(tail, " ")
	}
	return kind, lines.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// slogLogger passes on what go-fuse has to say.
func slogLogger(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelWarn) }
