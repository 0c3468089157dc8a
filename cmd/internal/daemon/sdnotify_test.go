package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"pmxcfs/internal/testutil"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMessagesReachTheManagerByPathAndByAbstractName(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@pmxcfs-test-%d", os.Getpid())} {
		c := testutil.ListenUnixgram(t, name)
		t.Setenv(notifyEnv, name)
		m, err := inheritedManager()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.tell(notifyReady, statusLine("a\nb"), extension(1500*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if got := testutil.Receive(t, c); got != "READY=1\nSTATUS=a b\nEXTEND_TIMEOUT_USEC=1500000" {
			t.Errorf("it heard %q", got)
		}
		if v, ok := os.LookupEnv(notifyEnv); ok {
			t.Errorf("a child would inherit %s=%s", notifyEnv, v)
		}
	}
}

func TestWatchdogIsForTheProcessThatTheManagerMeans(t *testing.T) {
	for _, c := range []struct {
		socket, usec, pid string
		want              time.Duration
		fails             bool
	}{
		{"/s", "2000000", strconv.Itoa(os.Getpid()), 2 * time.Second, false},
		{"/s", "2000000", "", 2 * time.Second, false},
		{"/s", "2000000", "1", 0, false},
		{"/s", "", "", 0, false},
		{"", "2000000", "", 0, false},
		{"/s", "soon", "", 0, true},
		{"/s", "0", "", 0, true},
		{"/s", "-5", "", 0, true},
		{"/s", "9223372036854775807", "", 0, true},
		{"vsock:2:1", "2000000", "", 0, true},
	} {
		t.Setenv(notifyEnv, c.socket)
		t.Setenv(watchdogEnv, c.usec)
		t.Setenv(watchdogPidEnv, c.pid)
		m, err := inheritedManager()
		if m.watchdog != c.want || (err != nil) != c.fails {
			t.Errorf("%+v: %v, %v", c, m.watchdog, err)
		}
		for _, name := range []string{notifyEnv, watchdogEnv, watchdogPidEnv} {
			if _, ok := os.LookupEnv(name); ok {
				t.Errorf("%s is left in the environment", name)
			}
		}
	}
}

func TestWithoutAManagerNobodyIsTold(t *testing.T) {
	if err := (serviceManager{}).tell(notifyReady); err != nil {
		t.Error(err)
	}
}

func TestAManagerThatIsGoneIsAnError(t *testing.T) {
	m := serviceManager{socket: filepath.Join(t.TempDir(), "nobody")}
	if err := m.tell(notifyReady); err == nil || !strings.Contains(err.Error(), "service manager") {
		t.Errorf("it says %v", err)
	}
}

func TestAManagerThatDoesNotReadHoldsNobodyUpForLong(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	testutil.ListenUnixgram(t, name)
	m := serviceManager{socket: name}
	begin := time.Now()
	var err error
	for range 10_000 { // far more than the kernel queues
		if err = m.tell(notifyWatchdog); err != nil {
			break
		}
	}
	if took := time.Since(begin); err == nil || took > notifyPatience+testutil.Patience {
		t.Errorf("after %v it says %v", took, err)
	}
}
