package daemon

import (
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"strings"

	toolkit "github.com/prometheus/exporter-toolkit/web"

	"pmxcfs/status/health"
)

// landingPage answers GET / as Prometheus' exporters do: with what the node's state is,
// as /readyz tells it, and where to look further.
func landingPage(version string, metrics bool, state func() health.Node, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := state().Document()
		cfg := toolkit.LandingConfig{
			Name: "pmxcfs", Version: html.EscapeString(version), Profiling: "false",
			Description: "the Proxmox cluster file system on node " + html.EscapeString(d.Node),
			ExtraHTML:   stateHTML(d),
			Links: []toolkit.LandingLinks{
				{Address: "/readyz", Text: "Readiness", Description: "whether the node can be used, and if not, why"},
				{Address: "/readyz?format=json", Text: "Readiness as JSON"},
				{Address: "/healthz", Text: "Health", Description: "whether the daemon's own loops turn"},
			},
		}
		if metrics {
			cfg.Links = append([]toolkit.LandingLinks{{Address: "/metrics", Text: "Metrics"}}, cfg.Links...)
		}
		page, err := toolkit.NewLandingPage(cfg)
		if err != nil {
			log.Error("making the landing page", "error", err)
			http.Error(w, "the page can't be made: see the log", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		w.Header().Set("Cache-Control", "no-store")
		page.ServeHTTP(w, r)
	})
}

// stateHTML is a node's state for people.
func stateHTML(d health.Document) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<h2>%s</h2>\n", html.EscapeString(d.Summary))
	if len(d.Reasons) > 0 {
		b.WriteString("<ul>\n")
		for _, r := range d.Reasons {
			b.WriteString("<li>" + html.EscapeString(r.Text))
			if r.Remedy != "" {
				b.WriteString("<br>" + html.EscapeString(r.Remedy))
			}
			b.WriteString("</li>\n")
		}
		b.WriteString("</ul>\n")
	}
	return b.String()
}
