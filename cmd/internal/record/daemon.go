package record

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"pmxcfs/memdb/history"
	"pmxcfs/status/inspect"
	"pmxcfs/status/web"
)

// Daemon asks a running daemon about its history, on its Unix socket.
type Daemon struct {
	socket string
	http   http.Client
}

// NewDaemon returns one for a socket; nothing is connected yet.
func NewDaemon(socket string) *Daemon {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return web.Dial(ctx, socket) }
	return &Daemon{socket, http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// ErrNoHistory means that the daemon records no history.
var ErrNoHistory = errors.New("the daemon records no history")

// flushTime is how long a daemon may take to store what it has queued.
const flushTime = 15 * time.Second

// Flush has the daemon store what it has queued. Without a daemon there is nothing to store.
func (d *Daemon) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	err := d.call(ctx, http.MethodPost, "flush", nil, nil)
	if errors.Is(err, inspect.ErrNoAnswer) && ctx.Err() == nil || errors.Is(err, ErrNoHistory) {
		return nil
	}
	return err
}

// CreateSnapshot gives the present state of the tree a name.
func (d *Daemon) CreateSnapshot(ctx context.Context, name, note string) (s history.Snapshot, err error) {
	if err := history.ValidName(name); err != nil {
		return s, err
	}
	return s, d.call(ctx, http.MethodPost, "snapshots/"+name, url.Values{"note": {note}}, &s)
}

// DeleteSnapshot forgets it.
func (d *Daemon) DeleteSnapshot(ctx context.Context, name string) error {
	if err := history.ValidName(name); err != nil {
		return err
	}
	return d.call(ctx, http.MethodDelete, "snapshots/"+name, nil, nil)
}

func (d *Daemon) ask(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	if d.socket == "" {
		return nil, fmt.Errorf("%w: it has no socket (option --socket)", inspect.ErrNoAnswer)
	}
	u := url.URL{Scheme: "http", Host: "pmxcfs", Path: "/v1/history/" + path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := d.http.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, fmt.Errorf("%w on %s: %w", inspect.ErrNoAnswer, d.socket, err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	var refusal struct{ Error string }
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	switch err := json.Unmarshal(body, &refusal); {
	case err != nil && answer.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%w: it is of an older version", ErrNoHistory)
	case answer.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s", ErrNoHistory, refusal.Error)
	case err != nil || refusal.Error == "":
		refusal.Error = fmt.Sprintf("the daemon answers with status %d", answer.StatusCode)
	}
	return nil, errors.New(refusal.Error)
}

func (d *Daemon) call(ctx context.Context, method, path string, query url.Values, document any) error {
	answer, err := d.ask(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if document == nil {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(document)
}

// version returns the version of the tree that the daemon has now.
func (d *Daemon) version(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	s, err := inspect.NewClient(d.socket).Status(ctx)
	if err != nil {
		return 0, err
	}
	return s.Database.Version, nil
}

// Watch calls f with each change set after a version of the tree, and with each gap, until ctx
// is done or f fails. Since is history.Now for what is still to come. A daemon that ends is
// waited for; lost is called then, with why.
func (d *Daemon) Watch(ctx context.Context, since uint64, lost func(error), f func(*history.Event) error) error {
	if since == history.Now {
		// As a number, so that nothing is missed if the daemon is restarted.
		version, err := d.version(ctx)
		if err != nil {
			return err
		}
		since = version
	}
	heard := false
	for {
		err := d.stream(ctx, &since, &heard, f)
		var own *ownError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &own):
			return own.error
		case !heard:
			return err
		}
		if err != nil {
			lost(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// ownError is an error of what the events are for.
type ownError struct{ error }

// stream reads events as long as the daemon sends them.
func (d *Daemon) stream(ctx context.Context, since *uint64, heard *bool, f func(*history.Event) error) error {
	answer, err := d.ask(ctx, http.MethodGet, "watch", url.Values{"since": {strconv.FormatUint(*since, 10)}})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	in := bufio.NewReaderSize(answer.Body, 1<<16)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return errors.New("the daemon has ended the stream")
		}
		*heard = true
		if strings.TrimSpace(line) == "" {
			continue
		}
		e := &history.Event{}
		if err := json.Unmarshal([]byte(line), e); err != nil {
			return fmt.Errorf("the daemon's event is not understood (is it another version?): %w", err)
		}
		if err := f(e); err != nil {
			return &ownError{err}
		}
		switch {
		case e.Gap != nil:
			*since = max(*since, e.Gap.Version)
		case len(e.Changes) > 0:
			*since = e.Changes[0].Tree
		}
	}
}
