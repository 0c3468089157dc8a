package hosts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/cmd/internal/join"
	"pmxcfs/cmd/internal/plan"
)

// hasQuorum tells whether the host's tree can be written, if it should.
func (h host) hasQuorum(t *testing.T, want bool) error {
	t.Helper()
	s, err := h.state(within(t, settles))
	if err == nil && (s.Quorum == nil || s.Quorum.Quorate != want) {
		err = fmt.Errorf("%s: quorum %+v", h.Name(), s.Quorum)
	}
	return err
}

// blip is how long corosync may find no quorum while it takes on a node's new votes: it
// counts them as expected some milliseconds before the node tells that it has them.
const blip = 500 * time.Millisecond

// keepsQuorum watches a host, which must not lose quorum until the test ends.
func (h host) keepsQuorum(t *testing.T) {
	t.Helper()
	path, err := h.Path("/etc/pve/watched")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		good := time.Now()
		for n := 0; ; n++ {
			// Without quorum writing is not allowed. That a busy machine is slow is another
			// thing.
			err := os.WriteFile(path, fmt.Appendf(nil, "%d", n), 0o644)
			if !errors.Is(err, fs.ErrPermission) {
				good = time.Now()
			} else if time.Since(good) > blip {
				done <- fmt.Errorf("after %d writes: %w", n, err)
				return
			}
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("%s lost quorum: %v", h.Name(), err)
		}
	})
}

// started is a pvecm that runs on a host.
type started struct {
	cmd *exec.Cmd
	out bytes.Buffer
	pid int
}

// stopAt starts pvecm and stops it where it has noted that it begins a phase.
func (h host) stopAt(t *testing.T, phase join.Phase, args ...string) *started {
	t.Helper()
	dir, err := h.Path(filepath.Dir(journal))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	p := &started{}
	if p.cmd, err = h.Command(within(t, settles), append([]string{"pvecm"}, args...)...); err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, settles, func() error {
		if p.pid = child(p.cmd.Process.Pid); p.pid == 0 {
			return errors.New("pvecm doesn't run yet")
		}
		return nil
	})
	buffer := make([]byte, 4096)
	for unix.Kill(p.pid, 0) == nil {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000); n == 0 || err != nil {
			continue
		}
		if _, err := unix.Read(fd, buffer); err != nil {
			t.Fatal(err)
		}
		if p.phase(dir) == phase {
			if err := unix.Kill(p.pid, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			// On a busy machine it may have come further: what holds of this phase holds of
			// that one, except at the end.
			switch now := p.phase(dir); {
			case now == phase:
			case now == join.Finished || now == "":
				t.Fatalf("the join was through before it was stopped in phase %s", phase)
			default:
				t.Logf("it went on to phase %s before it was stopped in phase %s", now, phase)
			}
			return p
		}
	}
	err = p.wait()
	t.Fatalf("pvecm %s never was in phase %s: %v:\n%s", strings.Join(args, " "), phase, err, &p.out)
	return nil
}

// phase is how far the join is that is noted in a directory; empty: there is no note.
func (p *started) phase(dir string) join.Phase {
	var note join.Journal
	text, err := os.ReadFile(filepath.Join(dir, filepath.Base(journal)))
	if err != nil || json.Unmarshal(text, &note) != nil {
		return ""
	}
	return note.Phase
}

// wait waits until pvecm has ended. nsenter stops when its child does, and goes on when it
// is told to.
func (p *started) wait() error {
	done := make(chan error)
	go func() { done <- p.cmd.Wait() }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(50 * time.Millisecond):
			_ = p.cmd.Process.Signal(unix.SIGCONT)
		}
	}
}

// child is the process that nsenter made for a program.
func child(parent int) int {
	names, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		var pid int
		if i := bytes.Index(text, []byte("\nPPid:\t")); i >= 0 {
			var ppid int
			fmt.Sscanf(string(text[i:]), "\nPPid:\t%d", &ppid)
			fmt.Sscanf(filepath.Base(filepath.Dir(name)), "%d", &pid)
			if ppid == parent {
				return pid
			}
		}
	}
	return 0
}

// kill kills pvecm itself, and nothing that it started.
func (p *started) kill(t *testing.T) {
	t.Helper()
	if err := unix.Kill(p.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = p.wait()
}

// ends lets pvecm go on to its end, and returns its status.
func (p *started) ends(t *testing.T) int {
	t.Helper()
	if err := unix.Kill(p.pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	err := p.wait()
	var exit *exec.ExitError
	if err == nil {
		return 0
	}
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return exit.ExitCode()
}

// lacks waits until the cluster's configuration doesn't have a host.
func (h host) lacks(t *testing.T, other host) {
	t.Helper()
	eventually(t, settles, func() error {
		text, err := h.read(conf)
		if err == nil && bytes.Contains(text, []byte("name: "+other.Name()+"\n")) {
			err = fmt.Errorf("%s still has %s in its configuration", h.Name(), other.Name())
		}
		return err
	})
}

// leaves takes the last host out of the cluster, and makes it a fresh one again.
func (s *hosts) leaves(t *testing.T, h host) {
	t.Helper()
	h.sh(t, `systemctl stop pve-cluster corosync
rm -rf /etc/corosync/authkey /etc/corosync/corosync.conf /var/lib/pve-cluster/config.db* /var/lib/corosync/*`)
	eventually(t, settles, func() error {
		out, err := s.all[0].Exec(within(t, settles), "pvecm", "delnode", h.Name())
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	h.sh(t, "systemctl start pve-cluster")
	h.isAlone(t)
	s.all[0].letsIn(t, h) // its key has gone with it
}

// surviveKills has the joining process killed in each phase.
func (s *hosts) surviveKills(t *testing.T) {
	members, h := s.all[:3], s.all[3]
	add := []string{"add", "node1", "--via", "ssh", "--fingerprint", s.all[0].hostKey(t)}
	for _, phase := range []join.Phase{join.Prepared, join.Entered, join.Switched, join.Joined, join.Finished} {
		for _, after := range []string{"--abort", "--resume"} {
			// What is done can't be aborted, and what has changed nothing not resumed.
			if phase == join.Finished && after == "--abort" || phase == join.Prepared && after == "--resume" {
				continue
			}
			t.Run(string(phase)+after, func(t *testing.T) {
				members[1].keepsQuorum(t)
				h.stopAt(t, phase, add...).kill(t)
				h.fails(t, plan.Refused, []string{"--resume", "--abort"}, add...)
				out := h.pvecm(t, "add", after)
				if after == "--resume" {
					are(t, s.all...)
					if h.has(journal) {
						t.Errorf("the note is left: %s", out)
					}
					s.leaves(t, h)
				} else {
					members[0].lacks(t, h)
					h.isAlone(t)
				}
				are(t, members...)
			})
		}
	}
}

// surviveCuts has the peer cut off in each phase: from the joining host and from the rest
// of the cluster.
func (s *hosts) surviveCuts(t *testing.T) {
	members, h := s.all[:3], s.all[3]
	add := []string{"add", "node1", "--via", "ssh", "--timeout", "20", "--fingerprint", s.all[0].hostKey(t)}
	for _, phase := range []join.Phase{join.Prepared, join.Entered, join.Switched, join.Joined} {
		t.Run(string(phase), func(t *testing.T) {
			members[1].keepsQuorum(t) // the two others have a majority
			p := h.stopAt(t, phase, add...)
			if err := s.Cut(1); err != nil {
				t.Fatal(err)
			}
			status := p.ends(t)
			if err := s.Heal(); err != nil {
				t.Fatal(err)
			}
			t.Logf("status %d:\n%s", status, &p.out)
			if status == 0 {
				are(t, s.all...)
				s.leaves(t, h)
			} else {
				if !slices.Contains([]plan.Code{plan.Failed, plan.Trust, plan.Timeout}, plan.Code(status)) {
					t.Errorf("status %d", status)
				}
				h.isAlone(t)
				members[1].lacks(t, h)
			}
			are(t, members...)
		})
	}
}
