package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
)

// ErrNoCluster is the error of asking a node without a cluster about others.
var ErrNoCluster = errors.New("inspect: this node is not in a cluster")

// ErrBusy is the error of a Compare while another one runs.
var ErrBusy = errors.New("inspect: another comparison is running")

// Handler serves the documents. It checks nobody's rights: it belongs on a socket
// that only root can open.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, document func(r *http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			d, err := document(r)
			if err != nil {
				fail(w, err)
				return
			}
			write(w, http.StatusOK, d)
		})
	}
	get(PathStatus, func(*http.Request) (any, error) { return s.Status(), nil })
	get(PathLocks, func(*http.Request) (any, error) { return &Locks{s.Locks()}, nil })
	get(PathErrors, func(*http.Request) (any, error) { return &Errors{s.cfg.Recent.Problems()}, nil })
	get(PathPeers, func(*http.Request) (any, error) { return &Peers{s.Members()}, nil })
	get(PathLog, func(r *http.Request) (any, error) {
		max, err := number(r.FormValue("max"))
		return json.RawMessage(s.cfg.Status.ClusterLog(max, r.FormValue("user"))), err
	})
	get(PathCompare, func(r *http.Request) (any, error) { return s.Compare(r.Context()) })
	return mux
}

// maxLogEntries is more than the cluster log holds.
const maxLogEntries = 1 << 16

// number reads how many log entries are wanted; empty means all.
func number(text string) (int, error) {
	if text == "" {
		return maxLogEntries, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLogEntries {
		return 0, &requestError{"max: not a number from 1 to " + strconv.Itoa(maxLogEntries)}
	}
	return n, nil
}

// requestError is a request that can't be answered as it is.
type requestError struct{ what string }

func (e *requestError) Error() string { return e.what }

// failure is the document of an error.
type failure struct {
	Error string `json:"error"`
}

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var bad *requestError
	switch {
	case errors.As(err, &bad):
		code = http.StatusBadRequest
	case errors.Is(err, ErrNoCluster):
		code = http.StatusNotFound
	case errors.Is(err, ErrBusy):
		code = http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded):
		code = http.StatusGatewayTimeout
	}
	write(w, code, &failure{err.Error()})
}

func write(w http.ResponseWriter, code int, document any) {
	b, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // who has gone away doesn't want it
}
