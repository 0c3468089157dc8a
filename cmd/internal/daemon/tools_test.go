package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"pmxcfs/corosync/qb"
	"pmxcfs/corosync/qb/qbtest"
	"pmxcfs/internal/testutil"
	"pmxcfs/memdb"
	"pmxcfs/status"
	"pmxcfs/status/health"
	"pmxcfs/status/ipc"
)

func newStatus(t *testing.T, tree *memdb.Tree) *status.Store {
	t.Helper()
	s, err := status.New(status.Config{Tree: tree, NodeName: "node1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestANameThatIsTakenIsToldAndTriedAgain(t *testing.T) {
	name := qbtest.Name()
	squatter, err := qb.Start(qb.Config{Name: name, Accept: func(qb.Peer) (qb.Handler, error) { return nil, os.ErrPermission }})
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Stop()
	var log bytes.Buffer
	tree := memdb.New()
	cfg := ipc.Config{Name: name, Tree: tree, Store: newStatus(t, tree), Logger: slog.New(slog.DiscardHandler)}
	s := &toolService{cfg: cfg, log: slog.New(slog.NewTextHandler(&log, nil)), every: 5 * time.Millisecond}
	if err := s.start(); err != nil {
		t.Fatalf("the daemon does not start: %v", err)
	}
	pid := fmt.Sprintf("PID %d ", os.Getpid())
	if err := s.trouble(); err == nil || !strings.Contains(err.Error(), pid) {
		t.Errorf("the trouble is %v", err)
	}
	reasons := health.Node{Up: true, Mounted: true, Tools: s.trouble()}.Reasons()
	if len(reasons) != 1 || reasons[0].Code != health.ServiceTaken || !strings.Contains(reasons[0].Text, pid) || reasons[0].Remedy == "" {
		t.Errorf("reasons are %+v", reasons)
	}
	if err := s.Ping(context.Background()); err != nil {
		t.Errorf("the watchdog is told of %v", err)
	}
	for range 3 {
		s.tell(os.ErrExist) // nothing new
	}
	squatter.Stop()
	testutil.Eventually(t, "it is tried again", s.trouble)
	if h, err := qb.Holder(name); err != nil || h.PID != os.Getpid() {
		t.Errorf("held by %+v, %v", h, err)
	}
	s.stop()
	if n := strings.Count(log.String(), "service-taken"); n != 1 || strings.Count(log.String(), "service-up") != 1 {
		t.Errorf("logged: %s", log.String())
	}
	if _, err := qb.Holder(name); err == nil {
		t.Error("still there after the end")
	}
}

func TestToolsStopWhileTheNameIsTaken(t *testing.T) {
	name := qbtest.Name()
	squatter, err := qb.Start(qb.Config{Name: name, Accept: func(qb.Peer) (qb.Handler, error) { return nil, os.ErrPermission }})
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Stop()
	tree := memdb.New()
	cfg := ipc.Config{Name: name, Tree: tree, Store: newStatus(t, tree), Logger: slog.New(slog.DiscardHandler)}
	s := &toolService{cfg: cfg, log: cfg.Logger, every: time.Hour}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	s.stop()
	var none *toolService
	none.stop()
	if none.trouble() != nil {
		t.Error("a daemon without the service misses it")
	}
}
