package lab

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestLabInAChrootStaysThere makes a lab in a chroot, where /mnt has a file that the
// machine's own has not.
func TestLabInAChrootStaysThere(t *testing.T) {
	const inside, marker = "LAB_TEST_CHROOT", "/mnt/marker"
	if os.Getenv(inside) != "" {
		l, err := Up(Options{Hosts: 1, NoCorosync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := l.Down(); err != nil {
				t.Error(err)
			}
		}()
		if out, err := l.Host(1).Exec(t.Context(), "cat", marker); err != nil || string(out) != "inside\n" {
			t.Errorf("a program on a host sees %q, %v", out, err)
		}
		return
	}
	Require(t, "unshare", "chroot")
	dir := t.TempDir()
	cmd := exec.Command("sh", "-ec", `mount --rbind / "$1"; mount -t tmpfs tmpfs "$1/mnt"; echo inside > "$1`+marker+`"
		exec chroot "$1" "$2" -test.run='^TestLabInAChrootStaysThere$' -test.v`, "sh", dir, os.Args[0])
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestLabInAChrootStaysThere") {
		t.Errorf("%v:\n%s", err, out)
	}
}
