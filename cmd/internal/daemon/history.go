package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"pmxcfs/memdb"
	"pmxcfs/memdb/dcdb"
	"pmxcfs/memdb/history"
	"pmxcfs/memdb/sqlite"
)

// startHistory begins to record the changes of the tree, unless the options say that there is
// to be no history. The result is nil then.
func (d *daemon) startHistory(tree *memdb.Tree, db *sqlite.DB) dcdb.Recorder {
	if d.o.HistorySize == 0 {
		return nil
	}
	d.history = history.Start(history.Config{
		Path: history.Beside(db.Path()), Tree: tree, Log: d.logs.Domain("history"),
		Size: d.o.HistorySize, Age: d.o.HistoryAge, Exclude: d.o.HistoryExclude,
		NodeName: d.nodeName, Free: db.Free,
	})
	return d.history
}

// nodeName returns the name of the node with an id, or "" if it isn't known.
func (d *daemon) nodeName(id uint32) string {
	if id == 0 { // local mode
		return d.name
	}
	for _, n := range d.status.Cluster().Nodes {
		if uint32(n.ID) == id {
			return n.Name
		}
	}
	return ""
}

// historyTime is how long a request about the history may wait for the disk.
const historyTime = 30 * time.Second

// errNoHistory is the answer of a daemon that records none.
var errNoHistory = errors.New("this daemon records no history (--history-size 0)")

// serveHistory answers what commands ask of the history of a running daemon.
func (d *daemon) serveHistory(mux *http.ServeMux) {
	handle := func(pattern string, f func(ctx context.Context, r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), historyTime)
			defer cancel()
			if d.history == nil {
				answer(w, nil, errNoHistory)
				return
			}
			document, err := f(ctx, r)
			answer(w, document, err)
		})
	}
	handle("POST /v1/history/flush", func(ctx context.Context, _ *http.Request) (any, error) {
		return struct{}{}, d.history.Flush(ctx)
	})
	handle("POST /v1/history/snapshots/{name}", func(ctx context.Context, r *http.Request) (any, error) {
		return d.history.Snapshot(ctx, r.PathValue("name"), r.FormValue("note"))
	})
	handle("DELETE /v1/history/snapshots/{name}", func(ctx context.Context, r *http.Request) (any, error) {
		return struct{}{}, d.history.DeleteSnapshot(ctx, r.PathValue("name"))
	})
	mux.HandleFunc("GET /v1/history/watch", d.watchHistory)
}

// answer writes a document, or why there is none.
func answer(w http.ResponseWriter, document any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		code := http.StatusInternalServerError
		switch {
		case errors.Is(err, errNoHistory):
			code = http.StatusNotFound
		case errors.Is(err, history.ErrSnapshotExists), errors.Is(err, history.ErrNoSnapshot):
			code = http.StatusConflict
		}
		w.WriteHeader(code)
		document = struct {
			Error string `json:"error"`
		}{err.Error()}
	}
	json.NewEncoder(w).Encode(document)
}

// watchHistory sends each change set as it is stored, one JSON object a line, until the
// client goes away or the daemon ends. An empty line says that everything before it has been
// sent.
func (d *daemon) watchHistory(w http.ResponseWriter, r *http.Request) {
	if d.history == nil {
		answer(w, nil, errNoHistory)
		return
	}
	since := history.Now
	if text := r.FormValue("since"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			answer(w, nil, errors.New("since: not a version of the tree"))
			return
		}
		since = n
	}
	follower, events, err := d.history.Follow(r.Context(), since)
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer follower.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	for {
		for i := range events {
			if out.Encode(&events[i]) != nil {
				return
			}
		}
		// Also before the first one: the client then knows that it is heard.
		if _, err := w.Write([]byte("\n")); err != nil || flush.Flush() != nil {
			return
		}
		if events, err = follower.Next(r.Context()); err != nil {
			return
		}
	}
}
