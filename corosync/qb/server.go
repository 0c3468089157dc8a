package qb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Peer is who is at the other end of a connection, as the kernel vouches for it:
// real user and group id, and process id in the server's pid name space
// (SCM_CREDENTIALS, unix(7)).
type Peer struct {
	UID, GID uint32
	PID      int32
}

// A Handler answers one connection's requests. Its methods are called one after the other, on the
// connection's goroutine.
type Handler interface {
	// Serve answers the request id with data, the bytes after its header, which are valid
	// only during the call. It returns the bytes after the response's header, or an errno
	// other than 0, with which no data is sent. The returned bytes are read until they are
	// sent, so nobody may ever change them. An answer that is too long for the
	// connection goes out as EMSGSIZE.
	Serve(id int32, data []byte) (reply []byte, errno syscall.Errno)

	// Closed is called once, when the connection is gone.
	Closed()
}

// Config is what a Server needs to know.
type Config struct {
	// Name is the service's name, which clients connect to.
	Name string
	// BufferSize is the largest message in bytes, header included, in both
	// directions; 0 means DefaultBufferSize. Clients that ask for more are refused
	// with EMSGSIZE.
	BufferSize int
	// MaxConns is the number of connections from which on further ones are refused
	// with EAGAIN; 0 means 512. Each takes 3 × BufferSize of shared memory.
	MaxConns int
	// SlowLimit is how long a client may take to finish its handshake, and to make
	// room for a reply, before it is dropped; 0 means 10 s.
	SlowLimit time.Duration
	// Accept decides on a connection. It is called on the connection's goroutine. An error
	// refuses the client: it sees the syscall.Errno in it, or EACCES.
	Accept func(Peer) (Handler, error)
	// Logger takes what goes wrong with a single client; nil discards it.
	Logger *slog.Logger
}

func (c *Config) setDefaults() error {
	switch {
	case c.Name == "" || len(c.Name) >= socketName:
		return fmt.Errorf("qb: a service's name has 1 to %d bytes, not %d", socketName-1, len(c.Name))
	case c.Accept == nil:
		return errors.New("qb: a service needs an Accept function")
	case c.BufferSize < 0, c.BufferSize > 1<<30:
		return fmt.Errorf("qb: buffer size %d out of range", c.BufferSize)
	}
	if c.BufferSize == 0 {
		c.BufferSize = DefaultBufferSize
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 512
	}
	if c.SlowLimit <= 0 {
		c.SlowLimit = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Why a connection ends, beside what is wrong with a ring.
var (
	errSlow      = errors.New("the client doesn't fetch its replies")
	errHandshake = errors.New("handshake not finished")
)

// A Server is a running libqb IPC service.
type Server struct {
	cfg      Config
	listener *net.UnixListener
	running  sync.WaitGroup // the acceptor and the connections

	stopOnce sync.Once

	mu         sync.Mutex // guards all below
	stopping   bool
	ended      bool // the acceptor has
	pings      []chan<- struct{}
	sockets    map[*net.UnixConn]struct{} // of all clients
	handshakes []*net.UnixConn            // oldest first
	conns      int                        // accepted
}

// Start creates the service and begins to serve it. The error wraps EADDRINUSE if the name is
// taken: Holder tells by whom. Rings that an earlier process has left are removed.
func Start(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	listener, err := listen(cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("qb: service %q: %w", cfg.Name, err)
	}
	switch removed, err := removeStaleServer(cfg.Name); {
	case err != nil:
		cfg.Logger.Warn("stale rings are left", "error", err)
	case len(removed) > 0:
		cfg.Logger.Info("removed the rings of an earlier process", "count", len(removed))
	}
	s := &Server{cfg: cfg, listener: listener, sockets: make(map[*net.UnixConn]struct{})}
	s.running.Go(s.accept)
	return s, nil
}

// Stop disconnects all clients, removes the service with its socket and
// shared memory, and returns when nothing of it is left: it waits for requests that are
// being served. It may be called more than once.
func (s *Server) Stop() {
	s.stopOnce.Do(func() {
		s.mu.Lock()
		s.stopping = true
		for c := range s.sockets {
			c.Close()
		}
		s.mu.Unlock()
		s.listener.Close()
		s.running.Wait()
	})
}

// ErrEnded means that the service has ended.
var ErrEnded = errors.New("qb: the service has ended")

// Ping returns nil when the goroutine that lets clients in has come around once more. Other
// errors: ErrEnded, or ctx's.
func (s *Server) Ping(ctx context.Context) error {
	pong := make(chan struct{})
	s.mu.Lock()
	if s.stopping || s.ended {
		s.mu.Unlock()
		return ErrEnded
	}
	s.pings = append(s.pings, pong)
	s.listener.SetDeadline(time.Unix(1, 0)) // the past
	s.mu.Unlock()
	select {
	case <-pong:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ended {
			return ErrEnded
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answerPings is called when the acceptor comes around.
func (s *Server) answerPings() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pings {
		close(p)
	}
	s.pings = nil
	s.listener.SetDeadline(time.Time{})
}

// acceptPause is the time between two attempts to let a client in when there is no descriptor or
// no memory for it: it stays in the queue meanwhile.
const acceptPause = 100 * time.Millisecond

func (s *Server) accept() {
	defer func() {
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		s.answerPings()
	}()
	for {
		socket, err := s.listener.AcceptUnix()
		switch {
		case err == nil:
			if s.admit(socket) {
				s.running.Go(func() { s.serve(socket) })
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.answerPings()
		case errors.Is(err, net.ErrClosed):
			return
		default:
			s.cfg.Logger.Debug("no client can be let in now", "error", err)
			time.Sleep(acceptPause)
		}
	}
}

// maxHandshakes is how many clients may be about to send their credentials. Any
// process on the host may connect that far. Honest ones take microseconds, but hundreds may come
// at once when the daemon starts.
const maxHandshakes = 512

// admit takes a new client among the handshakes, for whose sake the oldest goes if they are too
// many.
func (s *Server) admit(socket *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		socket.Close()
		return false
	}
	s.sockets[socket] = struct{}{}
	s.handshakes = append(s.handshakes, socket)
	if len(s.handshakes) > maxHandshakes {
		s.handshakes[0].Close()
		s.handshakes = s.handshakes[1:]
	}
	return true
}

// greeted takes a client from among the handshakes.
func (s *Server) greeted(socket *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.handshakes {
		if h == socket {
			s.handshakes = append(s.handshakes[:i], s.handshakes[i+1:]...)
			return
		}
	}
}

// serve looks after a client from its first byte on.
func (s *Server) serve(socket *net.UnixConn) {
	defer func() {
		socket.Close()
		s.mu.Lock()
		delete(s.sockets, socket)
		s.mu.Unlock()
	}()
	socket.SetDeadline(time.Now().Add(s.cfg.SlowLimit))
	peer, size, err := hello(socket)
	s.greeted(socket)
	if err != nil {
		s.cfg.Logger.Debug("client dropped", "error", err)
		return
	}
	if !s.enter() {
		s.cfg.Logger.Warn("client refused: too many connections",
			"pid", peer.PID, "uid", peer.UID, "limit", s.cfg.MaxConns)
		s.refuse(socket, syscall.EAGAIN)
		return
	}
	defer s.leave()
	if size > uint32(s.cfg.BufferSize) {
		s.cfg.Logger.Warn("client refused: wants larger buffers", "pid", peer.PID, "uid", peer.UID)
		s.refuse(socket, syscall.EMSGSIZE)
		return
	}
	handler, err := s.cfg.Accept(peer)
	if err != nil {
		errno, ok := errors.AsType[syscall.Errno](err)
		if !ok || errno == 0 {
			errno = syscall.EACCES
		}
		s.refuse(socket, errno)
		return
	}
	defer handler.Closed()
	if err := s.converse(socket, peer, handler); err != io.EOF {
		s.cfg.Logger.Warn("client dropped", "error", err, "pid", peer.PID, "uid", peer.UID)
	}
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns >= s.cfg.MaxConns {
		return false
	}
	s.conns++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
}

// converse makes an accepted client's rings and serves it. The error is io.EOF if it went of its
// own.
func (s *Server) converse(socket *net.UnixConn, peer Peer, handler Handler) error {
	f, err := makeFiles(s.cfg.Name, peer, descriptor(socket), s.cfg.BufferSize)
	if err != nil {
		s.refuse(socket, syscall.ENOMEM)
		return fmt.Errorf("its rings can't be made (is %s full?): %w", shmDir, err)
	}
	defer f.remove()
	if _, err := socket.Write(encodeWelcome(0, s.cfg.BufferSize, f.base)); err != nil {
		return io.EOF
	}
	socket.SetDeadline(time.Time{})
	c := conn{server: s, socket: socket, peer: peer, handler: handler, files: f}
	return c.serve()
}

// refuse tells a client that it isn't let in. It may be gone already.
func (s *Server) refuse(socket *net.UnixConn, errno syscall.Errno) {
	_, _ = socket.Write(encodeWelcome(errno, 0, nil))
}

// hello reads a client's first message. With its bytes the kernel sends whose they are.
func hello(socket *net.UnixConn) (peer Peer, bufferSize uint32, err error) {
	if err := passCredentials(socket, true); err != nil {
		return peer, 0, err
	}
	var msg [helloSize]byte
	known := false
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)) // no room for descriptors
	for got := 0; got < len(msg); {
		n, oobn, _, _, err := socket.ReadMsgUnix(msg[got:], oob)
		if err != nil || n == 0 {
			return peer, 0, errHandshake
		}
		got += n
		cred, err := credentials(oob[:oobn])
		if err != nil {
			return peer, 0, fmt.Errorf("a message without credentials: %w", err)
		}
		// All parts must come from the same.
		from := Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
		if known && from != peer {
			return peer, 0, errors.New("a first message from several processes")
		}
		peer, known = from, true
	}
	bufferSize, err = decodeHello(&msg)
	if err != nil {
		return peer, 0, err
	}
	return peer, bufferSize, passCredentials(socket, false)
}

func credentials(oob []byte) (*unix.Ucred, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	if len(msgs) != 1 {
		return nil, syscall.EPERM
	}
	return unix.ParseUnixCredentials(&msgs[0])
}
