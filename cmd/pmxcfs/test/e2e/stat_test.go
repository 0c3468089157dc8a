package e2e

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStatIsFreshAfterACloseThatEmpties looks at a file between an open with
// O_TRUNC and the close that carries the truncation out.
func TestStatIsFreshAfterACloseThatEmpties(t *testing.T) {
	quiet(t)
	n := newInstance(t)
	n.start()
	for what, end := range map[string]func(int) error{"close": unix.Close, "fsync": unix.Fsync} {
		n.write("file", "content")
		must(t, unix.Utimes(n.path("file"), []unix.Timeval{{}, {Sec: 1000}}))
		fd, err := unix.Open(n.path("file"), unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
		must(t, err)
		_, err = os.Stat(n.path("file"))
		must(t, err)
		must(t, end(fd))
		info, err := os.Stat(n.path("file"))
		must(t, err)
		if info.Size() != 0 || info.ModTime().Unix() == 1000 {
			t.Errorf("after %s it has %d bytes, of %v", what, info.Size(), info.ModTime())
		}
		if what == "fsync" {
			must(t, unix.Close(fd))
		}
	}
	n.stop()
}
