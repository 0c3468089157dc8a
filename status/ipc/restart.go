package ipc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// RestartFlag is the file that tells clients, which find no service, to try again for up
// to 10 s. Its path on a Proxmox VE host is /run/pve-cluster/cfs-restart-flag.
type RestartFlag struct {
	Path string
	GID  int // the group www-data's; negative means the file keeps the group it is made with
}

// Set leaves the flag, with mode 0440. It is for the moment before the service stops. A
// flag that is already there is replaced.
func (f RestartFlag) Set() error {
	if err := f.Clear(); err != nil {
		return err
	}
	file, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o440)
	if err != nil {
		return fmt.Errorf("ipc: restart flag: %w", err)
	}
	defer file.Close()
	if err := file.Chmod(0o440); err != nil { // whatever the umask
		return fmt.Errorf("ipc: restart flag: %w", err)
	}
	if f.GID >= 0 {
		if err := file.Chown(-1, f.GID); err != nil {
			return fmt.Errorf("ipc: restart flag: %w", err)
		}
	}
	return nil
}

// Clear removes the flag, if there is one. It is for the moment when the service is up.
func (f RestartFlag) Clear() error {
	if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ipc: restart flag: %w", err)
	}
	return nil
}
