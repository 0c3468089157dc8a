package floor

import (
	"context"
	"fmt"
	"strconv"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// maxWrite is the daemon's greatest request, in bytes.
const maxWrite = 1 << 20

// ServeFS mounts the file system on dir and serves it until ctx is done; version is the
// content of the file .version in the root. It must run as root.
func ServeFS(ctx context.Context, dir string, version []byte) error {
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd, maxWrite)
	if err := syscall.Mount("bench", dir, "fuse", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		return fmt.Errorf("mounting on %s: %w", dir, err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	server, err := gofuse.NewServer(newFS(version), "/dev/fd/"+strconv.Itoa(fd), &gofuse.MountOptions{
		MaxWrite:             maxWrite,
		MaxBackground:        64,
		DisableXAttrs:        true,
		DisableReadDirPlus:   true,
		DisableSplice:        true,
		ExtraCapabilities:    gofuse.CAP_ATOMIC_O_TRUNC,
		EnableSymlinkCaching: true,
	})
	if err != nil {
		return fmt.Errorf("serving %s: %w", dir, err)
	}
	go func() {
		<-ctx.Done()
		syscall.Unmount(dir, syscall.MNT_DETACH)
	}()
	server.Serve()
	return nil
}
