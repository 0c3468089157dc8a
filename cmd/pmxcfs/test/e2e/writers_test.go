package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// How programs write who look at no close(2), or only at their own status.
var writers = []struct{ name, program, args string }{
	{"echo >", "sh", `echo new > "$1"`},
	{"echo >>", "sh", `echo more >> "$1"`},
	{"printf >", "sh", `printf new > "$1"`},
	{"python", "python3", `import sys; open(sys.argv[1], "w").write("py")`},
	{"perl", "perl", `open F, ">", $ARGV[0] or die; print F "pl"; close F or exit 1;`},
}

// writing returns the writer's command for a file.
func writing(i int, path string) *exec.Cmd {
	w := writers[i]
	switch w.program {
	case "sh":
		return exec.Command("sh", "-c", w.args, "sh", path)
	case "perl":
		return exec.Command("perl", "-e", w.args, path)
	}
	return exec.Command(w.program, "-c", w.args, path)
}

// A change that a full disk takes back is told to everybody who writes, and the old content
// stays.
func TestProgramsHearOfAFullDisk(t *testing.T) {
	n := newInstance(t)
	disk := filepath.Dir(n.db)
	must(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"))
	n.start()
	n.write("a", "orig")
	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	must(t, err)
	for piece := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(piece)
	}
	f.Close()
	ran := 0
	for i, w := range writers {
		if _, err := exec.LookPath(w.program); err != nil && w.program != "sh" {
			t.Logf("no %s here", w.program)
			continue
		}
		ran++
		out, err := writing(i, n.path("a")).CombinedOutput()
		if err == nil {
			t.Errorf("%s: status 0 on a full disk: %s", w.name, out)
		}
		n.wantContent("a", "orig")
	}
	if ran < 3 {
		t.Fatal("hardly any program ran")
	}
	must(t, os.Remove(ballast))
	for i, w := range writers {
		if _, err := exec.LookPath(w.program); err != nil {
			continue
		}
		if out, err := writing(i, n.path("a")).CombinedOutput(); err != nil {
			t.Errorf("%s: with room again: %v: %s", w.name, err, out)
		}
	}
	n.stop()
}

// What a write with O_SYNC or O_DSYNC has returned from survives the daemon and its guard being
// killed at the next moment.
func TestSynchronousWritesSurviveAKill(t *testing.T) {
	for _, flag := range []int{unix.O_SYNC, unix.O_DSYNC} {
		t.Run(fmt.Sprintf("%#x", flag), func(t *testing.T) {
			n := newInstance(t)
			n.start()
			guard := n.guardOf()
			f, err := os.OpenFile(n.path("s"), os.O_WRONLY|os.O_CREATE|flag, 0o640)
			must(t, err)
			_, err = f.WriteAt([]byte("0000"), 0)
			must(t, err)
			_, err = f.WriteAt([]byte("AAAA"), 0)
			must(t, err)
			must(t, syscall.Kill(guard, syscall.SIGKILL))
			n.kill()
			f.Close()
			n.start()
			n.wantContent("s", "AAAA")
			n.stop()
		})
	}
}
