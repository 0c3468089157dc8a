package web

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"

	"pmxcfs/internal/event"
)

// Config says where to serve what.
type Config struct {
	// Address is the TCP address to listen on, as HOST:PORT; empty: none.
	Address string
	// ConfigFile is a file in the format of Prometheus' exporters (exporter-toolkit)
	// that asks for TLS, client certificates or passwords on TCP; empty: none. Until it can be
	// used, TCP is not served at all. A change takes effect at once, unless it can't be used or
	// asks for less: then the last one stays in force; see protection.
	ConfigFile string
	// Public is served on TCP, to requests that name this host by an address, as localhost,
	// as Address does, or by one of Names; nil: none.
	Public http.Handler
	Names  func() []string

	// Socket is the path of the Unix socket; empty: none. It has mode 0600.
	Socket string
	// Private is served on the Unix socket.
	Private http.Handler

	// Log gets what can't be listened on; needed.
	Log *slog.Logger
	// Retry is how long to wait before a listener that failed is tried again;
	// 0: 10 s.
	Retry time.Duration
}

const (
	defaultRetry = 10 * time.Second

	maxConns       = 64               // at a time, on each listener; see limit
	maxHeaderBytes = 16 << 10         // of a request
	headerTimeout  = 5 * time.Second  // for the headers of a request to come
	requestTimeout = 10 * time.Second // for a request on TCP to come as a whole
	answerTimeout  = 30 * time.Second // for an answer on TCP to be made and fetched
	idleTimeout    = 30 * time.Second // for a connection without a request
	stopTimeout    = time.Second      // for the answers under way when the server stops
)

// Server serves until Stop.
type Server struct {
	log   *slog.Logger
	retry time.Duration
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

// Start begins to serve. It never fails: what can't be listened on is logged, once, and
// tried again until Stop.
func Start(cfg Config) *Server {
	s := &Server{log: cfg.Log, retry: cfg.Retry}
	if s.retry == 0 {
		s.retry = defaultRetry
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if cfg.Address != "" {
		s.wg.Go(func() {
			s.keep(&tcpListener{address: cfg.Address, config: cfg.ConfigFile, names: cfg.Names, log: cfg.Log}, cfg.Public)
		})
	}
	if cfg.Socket != "" {
		s.wg.Go(func() { s.keep(&unixListener{path: cfg.Socket}, cfg.Private) })
	}
	return s
}

// Stop ends the listeners at once, and returns when no handler is running: their requests'
// contexts end after a second.
func (s *Server) Stop() {
	s.stop()
	s.wg.Wait()
}

// listener is one of the two kinds.
type listener interface {
	fmt.Stringer
	listen(ctx context.Context) (net.Listener, error)
	// serve returns http.ErrServerClosed after the server's shutdown, else why it ended.
	serve(l net.Listener, s *http.Server) error
	limits(s *http.Server)
	// limit bounds the connections.
	limit(l net.Listener) net.Listener
}

// keep listens and serves, again and again until Stop.
func (s *Server) keep(k listener, h http.Handler) {
	var trouble event.Once
	for s.ctx.Err() == nil {
		err := s.once(k, h, trouble.Over)
		if s.ctx.Err() != nil {
			return
		}
		if trouble.New(err) {
			s.log.Warn("status and metrics are not served; trying again now and then", "address", k.String(), "error", err)
		}
		timer := time.NewTimer(s.retry)
		select {
		case <-s.ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// once serves until Stop or an error. Stop ends it in order.
func (s *Server) once(k listener, h http.Handler, ok func()) error {
	l, err := k.listen(s.ctx)
	if err != nil {
		return err
	}
	// Handlers know from their requests' contexts when to end.
	base, end := context.WithCancel(context.Background())
	defer end()
	server := &http.Server{
		Handler:           guarded(h, s.log),
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // clients' faults
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	k.limits(server)
	served := make(chan error, 1)
	go func() { served <- k.serve(k.limit(l), server) }()
	ok()
	select {
	case err = <-served:
		l.Close()
	case <-s.ctx.Done():
		patience, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if server.Shutdown(patience) != nil {
			end()
			server.Close()
		}
		<-served
	}
	return err
}

// guarded is h; a panic in it concerns its own request only, and is logged.
func guarded(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p != http.ErrAbortHandler {
					log.Error("a request to the status service failed", "path", r.URL.Path, "panic", fmt.Sprint(p))
				}
				panic(http.ErrAbortHandler)
			}
		}()
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		h.ServeHTTP(w, r)
	})
}

// tcpListener serves on TCP.
type tcpListener struct {
	address, config string
	names           func() []string
	log             *slog.Logger
	protection      *protection // of the present attempt; nil: none
}

func (t *tcpListener) String() string { return t.address }

func (t *tcpListener) listen(ctx context.Context) (net.Listener, error) {
	if t.protection = nil; t.config != "" {
		p, err := protect(t.config, t.log)
		if err != nil {
			return nil, err
		}
		t.protection = p
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", t.address)
	switch {
	case t.protection == nil:
		return l, err
	case err != nil:
		t.protection.close()
		return nil, err
	}
	return &refreshing{l, t.protection}, nil
}

func (t *tcpListener) serve(l net.Listener, s *http.Server) error {
	path := ""
	if p := t.protection; p != nil {
		defer p.close()
		path = p.path()
	}
	quiet := slog.New(slog.DiscardHandler) // it tells what is in the file it was given
	return toolkit.Serve(l, s, &toolkit.FlagConfig{WebConfigFile: &path}, quiet)
}

// limit sheds the oldest: anybody on the host can connect.
func (t *tcpListener) limit(l net.Listener) net.Listener {
	return &shedding{Listener: l, most: maxConns}
}

func (t *tcpListener) limits(s *http.Server) {
	s.ReadTimeout, s.WriteTimeout = requestTimeout, answerTimeout
	s.ConnContext = withConn
	h := busy(ownHost(s.Handler, func() []string {
		names := []string{t.address}
		if t.names != nil {
			names = append(names, t.names()...)
		}
		return names
	}))
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "read-only", http.StatusMethodNotAllowed)
			return
		}
		h.ServeHTTP(w, r)
	})
}
