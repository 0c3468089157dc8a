package web

import (
	"html"
	"log/slog"
	"net/http"

	toolkit "github.com/prometheus/exporter-toolkit/web"
)

// Page is what a landing page shows. All but HTML is plain text.
type Page struct {
	Name, Version, Description string
	HTML                       string // below the links
	Links                      []Link
}

// Link is one of a Page's links, by a path.
type Link struct{ Path, Text, Description string }

// Landing answers with a page in the form that Prometheus' exporters have, made anew for
// each request.
func Landing(page func() Page, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := page()
		// The library puts texts in as they are.
		cfg := toolkit.LandingConfig{
			Name: html.EscapeString(p.Name), Version: html.EscapeString(p.Version), Description: html.EscapeString(p.Description),
			ExtraHTML: p.HTML, Profiling: "false",
		}
		for _, l := range p.Links {
			cfg.Links = append(cfg.Links, toolkit.LandingLinks{Address: html.EscapeString(l.Path), Text: html.EscapeString(l.Text), Description: html.EscapeString(l.Description)})
		}
		handler, err := toolkit.NewLandingPage(cfg)
		if err != nil {
			log.Error("making the landing page", "error", err)
			http.Error(w, "the page can't be made: see the log", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		w.Header().Set("Cache-Control", "no-store")
		handler.ServeHTTP(w, r)
	})
}
