package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"pmxcfs/cmd/internal/exit"
	"strconv"
	"syscall"
)

// readyEnv names the descriptor on which a background daemon tells its parent
// that it is ready.
const readyEnv = "PMXCFS_READY_FD"

// readyText is what it says.
const readyText = "ready"

// daemonise starts this program again in the background and returns once that
// is ready to be used: the mount is up and so are the services. If it ends before,
// its exit code is this one's; it has said why on stderr.
func daemonise(args []string, stderr io.Writer) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("daemonising: %w", err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", args[1:]...)
	cmd.Args[0] = args[0]
	// A watchdog is for the process that stays.
	if os.Getenv(watchdogPidEnv) == strconv.Itoa(os.Getpid()) {
		os.Unsetenv(watchdogPidEnv)
	}
	cmd.Env = append(os.Environ(), readyEnv+"=3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("daemonising: %w", err)
	}
	w.Close()
	said, err := io.ReadAll(r)
	if string(said) == readyText {
		// Until it knows better, a service manager takes this process for the one
		// to listen to.
		manager, err := inheritedManager()
		if err == nil {
			err = manager.tell(notifyReady, notifyMainPid+strconv.Itoa(cmd.Process.Pid))
		}
		if err != nil {
			fmt.Fprintf(stderr, "pmxcfs: %v\n", err)
		}
		return cmd.Process.Release()
	}
	var ended *exec.ExitError
	if werr := cmd.Wait(); errors.As(werr, &ended) && ended.ExitCode() > 0 {
		return exit.Status(ended.ExitCode())
	}
	return errors.Join(errors.New("the daemon ended before it was ready"), err)
}

// readiness tells whoever waits for the daemon that it is ready.
type readiness struct{ pipe *os.File }

// inheritedReadiness returns the means that the environment names, which is
// then taken out of it; with none, telling does nothing.
func inheritedReadiness() (readiness, bool) {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	os.Unsetenv(readyEnv)
	if err != nil {
		return readiness{}, false
	}
	syscall.CloseOnExec(fd)
	return readiness{os.NewFile(uintptr(fd), "readiness")}, true
}

// tell says that the daemon is ready, and lets go of the terminal.
func (r readiness) tell() error {
	if r.pipe == nil {
		return nil
	}
	_, err := r.pipe.WriteString(readyText)
	null, nerr := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if nerr != nil {
		return errors.Join(err, nerr, r.pipe.Close())
	}
	for fd := range 3 {
		err = errors.Join(err, syscall.Dup3(int(null.Fd()), fd, 0))
	}
	return errors.Join(err, null.Close(), r.pipe.Close())
}
