package ipc

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pmxcfs/corosync/qb"
	"pmxcfs/memdb"
	"pmxcfs/status"
)

// Config is what the service needs to know. Tree, Store and Logger are required.
type Config struct {
	// Name is the libqb service's name; empty means DefaultName.
	Name string
	// GID is the group whose members may read: that of www-data.
	GID uint32
	// MaxConns limits the connections; 0 means 512. Each takes 3 MiB of shared memory.
	// Read-only clients get three quarters of them at most, so that they can't keep root out.
	MaxConns int

	// Tree has the files that are read, and the guests. Store has all else.
	Tree  *memdb.Tree
	Store *status.Store

	// Logger takes a line for each client that is refused or dropped.
	Logger *slog.Logger

	// Observer is told of requests; it may be nil.
	Observer Observer
}

// Observer is told of requests when they have been answered, with their op, 0 for a number
// that is none. Its methods are called from several goroutines and must be quick.
type Observer interface {
	// Took tells how long an answer took to make: each that puts text together, and
	// one of 16 of the others.
	Took(op int32, took time.Duration)
	// Failed tells of a request that was answered with an error.
	Failed(op int32, errno syscall.Errno)
}

// timeEvery is how many brief requests there are to one that is timed: reading the clock
// twice and keeping the result takes longer than most answers.
const timeEvery = 16

// Stats is how many requests of each op have been answered; at 0, those with an unknown number.
type Stats [OpGuestProperties + 1]uint64

// Service is a running pve2.
type Service struct {
	cfg    Config
	server *qb.Server
	props  propCache

	mu             sync.Mutex   // held while a client is let in
	full, readOnly atomic.Int32 // connected clients
	requests       [len(Stats{})]atomic.Uint64
}

// Start serves until Stop. The error wraps EADDRINUSE if another process serves under
// that name.
func Start(cfg Config) (*Service, error) {
	s, err := newService(cfg)
	if err != nil {
		return nil, err
	}
	s.server, err = qb.Start(qb.Config{
		Name:     s.cfg.Name,
		MaxConns: s.cfg.MaxConns,
		Accept:   s.accept,
		Logger:   cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func newService(cfg Config) (*Service, error) {
	if cfg.Tree == nil || cfg.Store == nil || cfg.Logger == nil {
		return nil, errors.New("ipc: Tree, Store and Logger are needed")
	}
	if cfg.Name == "" {
		cfg.Name = DefaultName
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 512
	}
	return &Service{cfg: cfg}, nil
}

// Stop disconnects the clients and returns when no request is being served and no file,
// socket or thread of the service is left. A client that waits for an answer sees the
// connection go.
func (s *Service) Stop() { s.server.Stop() }

// Ping returns nil when what lets clients in has come around once more; an error if it has
// ended, or ctx's.
func (s *Service) Ping(ctx context.Context) error { return s.server.Ping(ctx) }

// accept decides on a client.
func (s *Service) accept(p qb.Peer) (qb.Handler, error) {
	access := Authorize(p.UID, p.GID, s.cfg.GID)
	if access == Refused {
		s.cfg.Logger.Warn("connection refused: neither root nor group www-data",
			"uid", p.UID, "gid", p.GID, "pid", p.PID)
		return nil, syscall.EACCES
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if access == ReadOnly && int(s.readOnly.Load()) >= s.cfg.MaxConns-s.cfg.MaxConns/4 {
		s.cfg.Logger.Warn("connection refused: too many read-only clients",
			"uid", p.UID, "gid", p.GID, "pid", p.PID)
		return nil, syscall.EAGAIN
	}
	s.connected(access).Add(1)
	return &client{service: s, peer: p, access: access}, nil
}

func (s *Service) connected(access Access) *atomic.Int32 {
	if access == Full {
		return &s.full
	}
	return &s.readOnly
}

// Requests returns how many requests have been answered. It may be called from any
// goroutine.
func (s *Service) Requests() (c Stats) {
	for op := range s.requests {
		c[op] = s.requests[op].Load()
	}
	return c
}

// Clients returns how many clients are connected, by access. It may be called from any
// goroutine.
func (s *Service) Clients() (full, readOnly int) {
	return int(s.full.Load()), int(s.readOnly.Load())
}
