package daemon

import (
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"strings"

	"pmxcfs/status/health"
	"pmxcfs/status/web"
)

// landingPage answers GET / as Prometheus' exporters do: with what the node's state is,
// as /readyz tells it, and where to look further.
func landingPage(version string, metrics bool, state func() health.Node, log *slog.Logger) http.Handler {
	links := []web.Link{
		{Path: "/readyz", Text: "Readiness", Description: "whether the node can be used, and if not, why"},
		{Path: "/readyz?format=json", Text: "Readiness as JSON"},
		{Path: "/healthz", Text: "Health", Description: "whether the daemon's own loops turn"},
	}
	if metrics {
		links = append([]web.Link{{Path: "/metrics", Text: "Metrics"}}, links...)
	}
	return web.Landing(func() web.Page {
		d := state().Document()
		return web.Page{
			Name: "pmxcfs", Version: version, Description: "the Proxmox cluster file system on node " + d.Node,
			HTML: stateHTML(d), Links: links,
		}
	}, log)
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
