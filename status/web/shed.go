package web

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// shedding is a listener that keeps so many connections at most: for a new one, the
// oldest makes room that has no request under way, or else the oldest. So no number of
// clients that say nothing, or say it slowly, keeps others from being answered; and a
// client whose idle connection is closed makes another.
type shedding struct {
	net.Listener
	most int

	mu    sync.Mutex // guards conns
	conns list.List  // of *shedConn, the oldest first
}

// shedConn is a connection of a shedding listener.
type shedConn struct {
	net.Conn
	of      *shedding
	at      *list.Element // of's lock guards it; nil: not counted any more
	serving atomic.Int32  // requests under way
}

func (l *shedding) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &shedConn{Conn: conn, of: l}
	l.mu.Lock()
	var victim *shedConn
	if l.conns.Len() >= l.most {
		victim = l.oldest()
		l.remove(victim)
	}
	c.at = l.conns.PushBack(c)
	l.mu.Unlock()
	if victim != nil {
		victim.Conn.Close()
	}
	return c, nil
}

// oldest is the connection that makes room. mu is held, and there is one.
func (l *shedding) oldest() *shedConn {
	for e := l.conns.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*shedConn); c.serving.Load() == 0 {
			return c
		}
	}
	return l.conns.Front().Value.(*shedConn)
}

// remove takes a connection off the list. mu is held.
func (l *shedding) remove(c *shedConn) {
	if c.at != nil {
		l.conns.Remove(c.at)
		c.at = nil
	}
}

func (c *shedConn) Close() error {
	c.of.mu.Lock()
	c.of.remove(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

type shedKey struct{}

// withConn is for http.Server.ConnContext, so that busy knows a request's connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if c, ok := c.(*shedConn); ok {
		return context.WithValue(ctx, shedKey{}, c)
	}
	return ctx
}

// busy is h; while it answers, the request's connection is not one that makes room.
func busy(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(shedKey{}).(*shedConn); ok {
			c.serving.Add(1)
			defer c.serving.Add(-1)
		}
		h.ServeHTTP(w, r)
	})
}
