package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"pmxcfs/status/web"
)

// maxDocument is the largest document that a client takes, in bytes: a log or a
// comparison has a few hundred thousand.
const maxDocument = 64 << 20

// Client asks a daemon on this host.
type Client struct {
	http   *http.Client
	socket string
}

// NewClient returns a client of the daemon whose socket is at path. Nothing is
// connected before the first question.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return web.Dial(ctx, path) }
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}, socket: path}
}

// ErrNoAnswer is the error of a client that gets no connection or no answer: no
// daemon runs, or it does not turn. It wraps the reason.
var ErrNoAnswer = errors.New("the daemon does not answer")

// Error is a daemon's refusal.
type Error struct {
	Status int // of HTTP
	Text   string
}

func (e *Error) Error() string { return e.Text }

// Is tells which of this package's errors a refusal stands for.
func (e *Error) Is(target error) bool {
	return target == ErrNoCluster && e.Status == http.StatusNotFound || target == ErrBusy && e.Status == http.StatusConflict
}

// Status asks for the document at PathStatus.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return ask[Status](ctx, c, PathStatus, nil)
}

// Locks asks for the document at PathLocks.
func (c *Client) Locks(ctx context.Context) (*Locks, error) {
	return ask[Locks](ctx, c, PathLocks, nil)
}

// Errors asks for the document at PathErrors.
func (c *Client) Errors(ctx context.Context) (*Errors, error) {
	return ask[Errors](ctx, c, PathErrors, nil)
}

// Compare asks for the document at PathCompare.
func (c *Client) Compare(ctx context.Context) (*Comparison, error) {
	return ask[Comparison](ctx, c, PathCompare, nil)
}

// Log is the cluster log, the newest entry first.
type Log struct {
	Entries []LogEntry `json:"data"`
}

// LogEntry is an entry of the cluster log.
type LogEntry struct {
	UID      uint32 `json:"uid"`  // of the node's daemon, from 1 at its start
	Time     int64  `json:"time"` // seconds since 1970, by the node's clock
	Priority int    `json:"pri"`  // syslog's
	Tag      string `json:"tag"`
	PID      uint32 `json:"pid"`
	Node     string `json:"node"`
	User     string `json:"user"`
	Text     string `json:"msg"`
}

// Log asks for the newest entries of the cluster log: at most max (0 means all that
// there are), of one user or, if user is empty, of all.
func (c *Client) Log(ctx context.Context, max int, user string) (*Log, error) {
	q := url.Values{}
	if max > 0 {
		q.Set("max", strconv.Itoa(max))
	}
	if user != "" {
		q.Set("user", user)
	}
	return ask[Log](ctx, c, PathLog, q)
}

// Raw asks for any document that the socket serves, as it is: /metrics, say. What
// comes with another status than 200 is returned along with an *Error.
func (c *Client) Raw(ctx context.Context, path string) ([]byte, error) {
	body, code, err := c.get(ctx, path, nil)
	if err == nil && code != http.StatusOK {
		err = &Error{Status: code, Text: fmt.Sprintf("the daemon answers %s with status %d", path, code)}
	}
	return body, err
}

func (c *Client) get(ctx context.Context, path string, query url.Values) (body []byte, code int, err error) {
	u := url.URL{Scheme: "http", Host: "pmxcfs", Path: path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		// Without the URL, which says nothing to anybody.
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, 0, fmt.Errorf("%w on %s: %w", ErrNoAnswer, c.socket, err)
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxDocument))
	if err != nil {
		return nil, 0, fmt.Errorf("%w on %s: %w", ErrNoAnswer, c.socket, err)
	}
	return body, answer.StatusCode, nil
}

func ask[D any](ctx context.Context, c *Client, path string, query url.Values) (*D, error) {
	body, code, err := c.get(ctx, path, query)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		var f failure
		if json.Unmarshal(body, &f) != nil || f.Error == "" {
			f.Error = fmt.Sprintf("the daemon answers %s with status %d", path, code)
		}
		return nil, &Error{Status: code, Text: f.Error}
	}
	d := new(D)
	if err := json.Unmarshal(body, d); err != nil {
		return nil, fmt.Errorf("the daemon's answer to %s is not understood (is it another version?): %w", path, err)
	}
	return d, nil
}
