package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The service manager's environment (sd_notify(3), sd_watchdog_enabled(3)).
const (
	notifyEnv       = "NOTIFY_SOCKET"
	watchdogEnv     = "WATCHDOG_USEC"
	watchdogPidEnv  = "WATCHDOG_PID"
	notifyPatience  = time.Second // to wait for a manager that does not read
	notifyReady     = "READY=1"
	notifyStopping  = "STOPPING=1"
	notifyWatchdog  = "WATCHDOG=1"
	notifyStatus    = "STATUS="
	notifyMainPid   = "MAINPID="
	notifyExtension = "EXTEND_TIMEOUT_USEC="
)

// serviceManager is who started this process and wants to know how it is. The
// zero value is nobody.
type serviceManager struct {
	socket string // its path; with @ in front, its abstract name
	// watchdog is the time within which it wants to hear of us, again and again; 0:
	// it does not.
	watchdog time.Duration
}

// inheritedManager returns the manager that the environment names, and takes it out
// of there: no child of ours is to speak for us.
func inheritedManager() (serviceManager, error) {
	m := serviceManager{socket: os.Getenv(notifyEnv)}
	usec, pid := os.Getenv(watchdogEnv), os.Getenv(watchdogPidEnv)
	for _, name := range []string{notifyEnv, watchdogEnv, watchdogPidEnv} {
		os.Unsetenv(name)
	}
	if m.socket == "" {
		return m, nil
	}
	if c := m.socket[0]; c != '/' && c != '@' {
		return serviceManager{}, fmt.Errorf("%s=%s is neither a path nor an abstract name", notifyEnv, m.socket)
	}
	if usec == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return m, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(24*time.Hour/time.Microsecond) {
		return m, fmt.Errorf("%s=%s is no time of a watchdog", watchdogEnv, usec)
	}
	m.watchdog = time.Duration(n) * time.Microsecond
	return m, nil
}

// tell sends assignments in one message. It waits a moment at most.
func (m serviceManager) tell(assignments ...string) error {
	if m.socket == "" {
		return nil
	}
	// Each time anew: the socket is another one after the manager's restart.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	defer conn.Close()
	if err = conn.SetWriteDeadline(time.Now().Add(notifyPatience)); err == nil {
		_, err = conn.Write([]byte(strings.Join(assignments, "\n")))
	}
	if err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	return nil
}

// extension asks for at least so much time from now on, for starting or for
// stopping, whichever goes on. It never shortens what there is.
func extension(d time.Duration) string {
	return notifyExtension + strconv.FormatInt(d.Microseconds(), 10)
}

// statusLine is a text for people, which systemctl status shows.
func statusLine(text string) string {
	return notifyStatus + strings.ReplaceAll(text, "\n", " ")
}
