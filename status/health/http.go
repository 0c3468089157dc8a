package health

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Document is what Ready answers as JSON.
type Document struct {
	Node     string   `json:"node"`
	Ready    bool     `json:"ready"`
	Mode     string   `json:"mode"` // "cluster" or "local"
	Mounted  bool     `json:"mounted"`
	Writable bool     `json:"writable"`
	Quorate  bool     `json:"quorate"`
	Version  uint64   `json:"database_version"`
	Config   *Part    `json:"configuration_group,omitempty"`
	Status   *Part    `json:"status_group,omitempty"`
	Reasons  []Reason `json:"reasons,omitempty"`
	Summary  string   `json:"summary"`
}

// Part is a Group in a Document.
type Part struct {
	Connected bool   `json:"connected"`
	Mode      string `json:"mode"`
	Members   int    `json:"members"`
	Synced    int    `json:"synced"`
	LastError string `json:"last_error,omitempty"`
}

// Document returns the node's state in its JSON form.
func (n Node) Document() Document {
	d := Document{
		Node: n.Name, Mode: "local", Mounted: n.Mounted, Writable: n.Writable(), Quorate: !n.Cluster || n.Quorate,
		Version: n.Version, Reasons: n.Reasons(), Summary: n.Summary(),
	}
	d.Ready = len(d.Reasons) == 0
	if n.Cluster {
		d.Mode = "cluster"
		d.Config, d.Status = n.Config.part(), n.Status.part()
	}
	return d
}

func (g Group) part() *Part {
	p := &Part{Connected: g.Connected, Mode: g.Mode.String(), Members: g.Members, Synced: g.Synced}
	if g.LastError != nil && !g.Connected {
		p.LastError = g.LastError.Error()
	}
	return p
}

// ReadyHandler answers with status 200 if the node that state returns is ready, else
// with 503 and why not: a line for each reason, or a Document if the request accepts
// application/json or asks for ?format=json.
func ReadyHandler(state func() Node) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := state()
		reasons := n.Reasons()
		code := http.StatusOK
		if len(reasons) > 0 {
			code = http.StatusServiceUnavailable
		}
		if wantsJSON(r) {
			answerJSON(w, code, n.Document())
			return
		}
		var b strings.Builder
		if len(reasons) == 0 {
			b.WriteString(n.Summary() + "\n")
		}
		for _, reason := range reasons {
			b.WriteString(string(reason.Code) + ": " + reason.Text + "\n")
			if reason.Remedy != "" {
				b.WriteString("    " + reason.Remedy + "\n")
			}
		}
		answerText(w, code, b.String())
	})
}

// AliveHandler answers with status 200 if the daemon's loops turn, else with 503 and what
// is stuck.
func AliveHandler(l *Liveness) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, text := http.StatusOK, "alive"
		err := l.Alive(r.Context())
		if err != nil {
			code, text = http.StatusServiceUnavailable, err.Error()
		}
		if wantsJSON(r) {
			stuck := ""
			if err != nil {
				stuck = text
			}
			answerJSON(w, code, struct {
				Alive bool   `json:"alive"`
				Stuck string `json:"stuck,omitempty"`
			}{err == nil, stuck})
			return
		}
		answerText(w, code, text+"\n")
	})
}

func wantsJSON(r *http.Request) bool {
	return r.URL.Query().Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json")
}

func answerJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(body, '\n'))
}

func answerText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write([]byte(text))
}
