package web

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ownHost is h for requests to names that this host goes by. A web page from elsewhere can
// have a browser of this host's network ask us under a name of its own that it has resolve
// to our address (DNS rebinding), and read the answer; it can't choose what the request
// says of that name. Addresses and loopback names are nobody else's.
func ownHost(h http.Handler, names func() []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isOwn(r.Host, names) {
			http.Error(w, "this is not the host that was asked for: use its address or its own name", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isOwn tells whether a Host header names this host. No browser leaves it out.
func isOwn(header string, names func() []string) bool {
	host := hostOf(header)
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return names != nil && slices.ContainsFunc(names(), func(name string) bool { return hostOf(name) == host })
}

// hostOf is the host of HOST:PORT or HOST, in one form.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
