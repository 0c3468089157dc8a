package rrd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests mount a small file system. They run in a process with a mount
// namespace of its own, which the kernel cleans up whatever becomes of it.

const inNamespace = "RRD_TEST_IN_NAMESPACE"

// inOwnNamespace tells whether the test is to go on; if not, it has been run
// in another process.
func inOwnNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) == t.Name() {
		return true
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), inNamespace+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("no mount namespaces here: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// mountTmpfs mounts a tmpfs of the given size and gives its directory.
func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the room there is.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFullDiskIsLoggedOnceAndLeavesNoHalves(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	dir := mountTmpfs(t, "1m")
	w := newTestWriter(t, Config{Dir: dir}, librrd{})
	at := 1795251031
	write := func() { // a guest's file is larger than the disk, a storage's is not
		t.Helper()
		at++
		w.write(
			fmt.Sprintf("pve-vm-9.0/%d", at), strings.Replace(vmValue, "1795251030", fmt.Sprint(at), 1),
			"pve-node-9.0/n", strings.Replace(recordedValue, "1795251028", fmt.Sprint(at), 1),
			"pve-storage-9.0/n/s", fmt.Sprintf("%d:1:2", at))
	}
	write()
	w.wantLog("pve-vm-9.0: no space left on device", "pve-node-9.0: no space left on device")
	write()
	write()
	w.wantLog()
	if got := tree(t, dir); !slices.Equal(got, []string{"pve-storage-9.0/n/s"}) {
		t.Errorf("files %v", got)
	}
	// What exists is updated in place.
	fill(t, filepath.Join(dir, "filler"))
	write()
	w.wantLog()
	if got, want := lastUpdate(t, filepath.Join(dir, "pve-storage-9.0/n/s")), fmt.Sprintf("%d: 1 2", at); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	// Room again.
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	write()
	w.wantLog("making files works again.*family=pve-vm-9.0", "making files works again.*family=pve-node-9.0")
	if s := w.Stats(); s.Created != 3 || s.Failed != 8 || s.Direct != 7 {
		t.Errorf("%+v", s)
	}
}

func TestHolesInAFileOnAFullDiskDoNotKillTheProcess(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	dir := mountTmpfs(t, "1m")
	w := newTestWriter(t, Config{Dir: dir}, librrd{})
	const key = "pve-storage-9.0/n/s"
	w.write(key, "1795251031:1:2")
	w.wantLog()
	file := filepath.Join(dir, key)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// All but the header becomes a hole.
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, info.Size()-4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	w.clock.advance(24 * time.Hour)
	for i := range 100 { // librrd writes into many places
		w.write(key, fmt.Sprintf("%d:1:2", 1795251100+60*i))
	}
	w.wantLog("cannot write to files.*no space left on device")
	if s := w.Stats(); s.Failed != 100 {
		t.Errorf("%+v", s)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		w.write(key, fmt.Sprintf("%d:1:2", 1795261100+60*i))
	}
	w.wantLog("writing to files works again")
}

func TestReadOnlyDiskIsLoggedOnce(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	dir := mountTmpfs(t, "4m")
	w := newTestWriter(t, Config{Dir: dir}, librrd{})
	w.write("pve-storage-9.0/n/s", "1795251031:1:2")
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.write("pve-storage-9.0/n/s", "1795251041:1:2", "pve-storage-9.0/n/t", "1795251041:1:2", "pve-vm-9.0/100", vmValue)
	}
	const readOnly = "read-only file system"
	w.wantLogInAnyOrder("pve-storage-9.0/n: "+readOnly, "pve-vm-9.0: "+readOnly, "pve-storage-9.0/n/s: "+readOnly)
}
