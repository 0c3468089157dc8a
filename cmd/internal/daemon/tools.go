package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pmxcfs/corosync/qb"
	"pmxcfs/internal/event"
	"pmxcfs/status/ipc"
)

// toolsRetry is the time between two attempts to get the service's name.
const toolsRetry = 2 * time.Second

// toolService is the service that Proxmox's tools call. Any local user can hold its name, an
// abstract socket: the daemon does without it then, says so, and tries again.
type toolService struct {
	cfg   ipc.Config
	log   *slog.Logger
	every time.Duration // between two attempts

	serving atomic.Pointer[ipc.Service] // nil means not yet
	taken   atomic.Pointer[error]       // why not; nil means it serves

	done  chan struct{} // closed to end the attempts
	tries sync.WaitGroup
}

// start starts the service, or attempts to. The error is one that doesn't pass.
func (s *toolService) start() error {
	s.done = make(chan struct{})
	switch service, err := ipc.Start(s.cfg); {
	case err == nil:
		s.serving.Store(service)
		return nil
	case errors.Is(err, syscall.EADDRINUSE):
		s.tell(err)
		s.tries.Go(s.retry)
		return nil
	default:
		return fmt.Errorf("starting the service %q: %w", s.cfg.Name, err)
	}
}

// tell says who holds the name, once for each holder.
func (s *toolService) tell(cause error) {
	err := fmt.Errorf("the service for Proxmox's tools, %q, can't be started: %w", s.cfg.Name, cause)
	attrs := []any{event.ServiceTaken.Attr("service", s.cfg.Name)}
	holder, herr := qb.Holder(s.cfg.Name)
	switch {
	case herr == nil:
		err = fmt.Errorf("another process holds the name of the service for Proxmox's tools, %q: PID %d (%s), user %d", s.cfg.Name, holder.PID, holder.Name, holder.UID)
		attrs = []any{event.ServiceTaken.Attr("service", s.cfg.Name, "holder", holder.PID, "command", holder.Name, "user", holder.UID)}
	case s.taken.Load() != nil:
		return // it may have ended a moment ago
	case errors.Is(herr, fs.ErrNotExist):
		err = fmt.Errorf("a process that can't be found holds the name of the service for Proxmox's tools, %q", s.cfg.Name)
	}
	if before := s.taken.Swap(&err); before == nil || (*before).Error() != err.Error() {
		s.log.Error(err.Error(), attrs...)
	}
}

func (s *toolService) retry() {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		service, err := ipc.Start(s.cfg)
		if err != nil {
			s.tell(err)
			continue
		}
		s.serving.Store(service)
		s.taken.Store(nil)
		s.log.Log(context.Background(), event.LevelNotice, "the service for Proxmox's tools is up", event.ServiceUp.Attr("service", s.cfg.Name))
		return
	}
}

// trouble returns why there is no service; nil means there is.
func (s *toolService) trouble() error {
	if s == nil {
		return nil
	}
	if err := s.taken.Load(); err != nil {
		return *err
	}
	return nil
}

// Ping is the service's, if it is up.
func (s *toolService) Ping(ctx context.Context) error {
	if service := s.serving.Load(); service != nil {
		return service.Ping(ctx)
	}
	return nil
}

func (s *toolService) stop() {
	if s == nil || s.done == nil {
		return
	}
	close(s.done)
	s.tries.Wait()
	if service := s.serving.Load(); service != nil {
		service.Stop()
	}
}

// Clients is the service's.
func (s *toolService) Clients() (full, readOnly int) {
	if service := s.serving.Load(); service != nil {
		return service.Clients()
	}
	return 0, 0
}

// Requests is the service's.
func (s *toolService) Requests() (c ipc.Stats) {
	if service := s.serving.Load(); service != nil {
		return service.Requests()
	}
	return c
}
