package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/keys"
	"pmxcfs/cmd/internal/plan"
)

const (
	apiPort    = "8006"
	apiVersion = 1
	// apiTimeout is how long an answer may take.
	apiTimeout = 60 * time.Second
	// maxAnswer is the largest answer that is read, in bytes.
	maxAnswer = 8 << 20
)

// Credentials are how root logs in at the API.
type Credentials struct {
	Password string
	Token    string // USER@REALM!NAME=SECRET; then there is no password
}

// api is a peer over Proxmox VE's API.
type api struct {
	host        string // without brackets
	base        string
	client      *http.Client
	credentials Credentials
	ask         func(fingerprint string) bool // whether a certificate is to be trusted
	second      func(kinds []string) (kind, code string, err error)
	ticket      string
	csrf        string
	fingerprint string // that is trusted; empty: what verifies
	protocol    int
	date        time.Time // of the last answer
}

// newAPI returns a peer at HOST's API. ask is called for a certificate that doesn't
// verify, if no fingerprint is given.
func newAPI(host, fingerprint string, c Credentials, ask func(string) bool) *api {
	a := &api{host: host, credentials: c, ask: ask, fingerprint: strings.ToUpper(fingerprint)}
	a.base = "https://" + net.JoinHostPort(host, apiPort)
	a.client = &http.Client{Timeout: apiTimeout, Transport: &http.Transport{
		// The certificate is judged by verify alone.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, VerifyConnection: a.verify},
	}}
	return a
}

// verify judges the peer's certificate: by the fingerprint given or, without one, by
// chain and name, or else by who can be asked.
func (a *api) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the peer has no certificate")
	}
	leaf := state.PeerCertificates[0]
	got := keys.FingerprintOf(leaf.Raw)
	if a.fingerprint != "" {
		if got == a.fingerprint {
			return nil
		}
		return plan.Fail(plan.Trust, "fingerprint-mismatch", "look at it on the peer: pvecm join-info", "the certificate of %s has the fingerprint %s, not the one given", a.host, got)
	}
	others := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		others.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: a.host, Intermediates: others})
	if err == nil {
		return nil
	}
	if a.ask != nil && a.ask(got) {
		a.fingerprint = got
		return nil
	}
	return plan.Fail(plan.Trust, "fingerprint-declined", "give it with --fingerprint if it is right", "the certificate of %s, with the fingerprint %s, is not trusted (%v)", a.host, got, err)
}

// reply is what the API answers.
type reply struct {
	Data    json.RawMessage   `json:"data"`
	Message string            `json:"message"`
	Errors  map[string]string `json:"errors"`
}

// apiError is a refusal by the API.
type apiError struct {
	status   int
	text     string
	warnings []string
	errors   []string
}

func (e *apiError) Error() string {
	text := e.text
	for _, w := range e.warnings {
		text += "\nwarning: " + w
	}
	for _, t := range e.errors {
		text += "\n" + t
	}
	return text
}

// call makes a request.
func (a *api) call(ctx context.Context, method, path string, form url.Values) (json.RawMessage, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+"/api2/json"+path, body)
	if err != nil {
		return nil, err
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	switch {
	case a.credentials.Token != "":
		request.Header.Set("Authorization", "PVEAPIToken="+a.credentials.Token)
	case a.ticket != "":
		request.Header.Set("Cookie", "PVEAuthCookie="+url.QueryEscape(a.ticket))
		request.Header.Set("CSRFPreventionToken", a.csrf)
	}
	response, err := a.client.Do(request)
	if err != nil {
		var p *plan.Error
		if errors.As(err, &p) {
			return nil, p
		}
		return nil, plan.Fail(plan.Refused, "unreachable", "is pveproxy running there, and port 8006 open? --via ssh does without", "%s can't be reached: %v", a.host, err)
	}
	defer response.Body.Close()
	if t, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		a.date = t
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return parseReply(response.StatusCode, response.Status, text)
}

// parseReply reads an answer of the API.
func parseReply(status int, line string, text []byte) (json.RawMessage, error) {
	var r reply
	err := json.Unmarshal(text, &r)
	if status >= 200 && status < 300 {
		if err != nil {
			return nil, fmt.Errorf("the answer can't be read: %w", err)
		}
		return r.Data, nil
	}
	e := &apiError{status: status, text: strings.TrimSpace(r.Message)}
	if e.text == "" {
		e.text = line
	}
	for key, value := range r.Errors {
		if value = strings.TrimSpace(value); strings.HasPrefix(key, "warning") {
			e.warnings = append(e.warnings, value)
		} else {
			e.errors = append(e.errors, key+": "+value)
		}
	}
	slices.Sort(e.warnings)
	slices.Sort(e.errors)
	return nil, e
}

// login gets a ticket.
func (a *api) login(ctx context.Context) error {
	if a.credentials.Token != "" || a.ticket != "" {
		return nil
	}
	var session struct {
		Ticket string `json:"ticket"`
		CSRF   string `json:"CSRFPreventionToken"`
	}
	ask := func(form url.Values) error {
		data, err := a.call(ctx, http.MethodPost, "/access/ticket", form)
		var refused *apiError
		switch {
		case errors.As(err, &refused) && refused.status == http.StatusNotImplemented:
			return plan.Fail(plan.Trust, "login-failed", "join over ssh: --use_ssh", "%s doesn't offer this way of logging in: %v", a.host, err)
		case errors.As(err, &refused):
			return plan.Fail(plan.Trust, "login-failed", "the password is that of root on "+a.host, "%s refuses the login: %v", a.host, err)
		case err != nil:
			return err
		}
		if err := json.Unmarshal(data, &session); err != nil || session.Ticket == "" {
			return plan.Fail(plan.Trust, "login-failed", "", "%s answers the login without a ticket (%v)", a.host, err)
		}
		return nil
	}
	form := url.Values{"username": {"root@pam"}, "password": {a.credentials.Password}}
	if err := ask(form); err != nil {
		return err
	}
	first := session
	if challenge, found := strings.CutPrefix(session.Ticket, "PVE:!tfa!"); found {
		kind, code, err := a.secondFactor(challenge)
		if err != nil {
			return err
		}
		if err := ask(url.Values{"username": {"root@pam"}, "password": {kind + ":" + code}, "tfa-challenge": {first.Ticket}}); err != nil {
			return err
		}
		if session.CSRF == "" {
			session.CSRF = first.CSRF
		}
	}
	a.ticket, a.csrf = session.Ticket, session.CSRF
	return nil
}

// secondFactor asks for a code.
func (a *api) secondFactor(challenge string) (kind, code string, err error) {
	kinds, err := tfaKinds(challenge)
	switch {
	case err != nil:
		return "", "", plan.Fail(plan.Trust, "login-failed", "", "%s asks for a second factor in a way that can't be read: %v", a.host, err)
	case len(kinds) == 0:
		return "", "", plan.Fail(plan.Trust, "login-failed", "join over ssh: --use_ssh", "%s asks for a second factor that works in a browser only", a.host)
	case a.second == nil:
		return "", "", plan.Fail(plan.Trust, "login-failed", "call it on a terminal, or join over ssh", "%s asks for a second factor", a.host)
	}
	return a.second(kinds)
}

// tfaKinds reads which second factors root has, of those that are words to type.
func tfaKinds(challenge string) (kinds []string, err error) {
	challenge, _, _ = strings.Cut(challenge, ":")
	text, err := url.QueryUnescape(challenge)
	if err != nil {
		return nil, err
	}
	var has map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &has); err != nil {
		return nil, err
	}
	for _, kind := range []string{"totp", "recovery", "yubico"} {
		if v, ok := has[kind]; ok && !slices.Contains([]string{"false", "null", "0", "[]"}, string(bytes.TrimSpace(v))) {
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}

func (a *api) Facts(ctx context.Context) (*Facts, error) {
	if err := a.login(ctx); err != nil {
		return nil, err
	}
	f := &Facts{Quorate: true}
	if data, err := a.call(ctx, http.MethodGet, "/cluster/config/apiversion", nil); err == nil {
		f.Protocol, _ = strconv.Atoi(strings.Trim(string(data), `"`))
	}
	a.protocol = f.Protocol
	f.Time = a.date
	// What the join information tells saves a refusal later; a host without a cluster
	// has none.
	if data, err := a.call(ctx, http.MethodGet, "/cluster/config/join", nil); err == nil {
		f.readJoinInfo(data)
	}
	return f, nil
}

// readJoinInfo takes facts from the answer of GET join.
func (f *Facts) readJoinInfo(data []byte) {
	var info struct {
		Nodes     []map[string]any `json:"nodelist"`
		Preferred string           `json:"preferred_node"`
		Totem     struct {
			Cluster string `json:"cluster_name"`
		} `json:"totem"`
	}
	if json.Unmarshal(data, &info) != nil {
		return
	}
	f.Node, f.Cluster = info.Preferred, info.Totem.Cluster
	for _, n := range info.Nodes {
		text := func(key string) string {
			switch v := n[key].(type) {
			case string:
				return v
			case float64:
				return strconv.FormatFloat(v, 'f', -1, 64)
			}
			return ""
		}
		id, _ := strconv.ParseUint(text("nodeid"), 10, 32)
		m := Member{Name: text("name"), ID: uint32(id), Online: true, Addresses: map[int]string{}}
		for link := range 8 {
			if address := text(fmt.Sprintf("ring%d_addr", link)); address != "" {
				m.Addresses[link] = address
			}
		}
		f.Members = append(f.Members, m)
	}
}

func (a *api) Check(context.Context, Request) ([]plan.Problem, error) { return nil, nil }

// enterForm is what the API wants of a node.
func enterForm(r Request, protocol int) url.Values {
	form := url.Values{}
	if r.Force {
		form.Set("force", "1")
	}
	if r.ID != 0 {
		form.Set("nodeid", strconv.FormatUint(uint64(r.ID), 10))
	}
	if r.Votes != nil {
		form.Set("votes", strconv.Itoa(*r.Votes))
	}
	for n, l := range r.Links {
		form.Set("link"+strconv.Itoa(n), l.String())
	}
	if len(r.Links) == 0 && protocol >= 1 {
		form.Set("new_node_ip", r.Fallback)
	} else if len(r.Links) == 0 {
		form.Set("link0", r.Fallback)
	}
	if protocol >= 1 {
		form.Set("apiversion", strconv.Itoa(apiVersion))
	}
	return form
}

func (a *api) Enter(ctx context.Context, r Request) (*cluster.Answer, error) {
	data, err := a.call(ctx, http.MethodPost, "/cluster/config/nodes/"+url.PathEscape(r.Name), enterForm(r, a.protocol))
	var refused *apiError
	if errors.As(err, &refused) {
		return nil, plan.Fail(plan.Refused, "peer-refused", "", "%s refuses the node: %v", a.host, err)
	}
	if err != nil {
		return nil, err
	}
	return parseAnswer(data)
}

// parseAnswer reads what the API answers to a node that enters.
func parseAnswer(data []byte) (*cluster.Answer, error) {
	var answer struct {
		Key      string   `json:"corosync_authkey"`
		Conf     string   `json:"corosync_conf"`
		Warnings []string `json:"warnings"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("the peer's answer can't be read: %w", err)
	}
	// The key's bytes are the characters of the text.
	key := make([]byte, 0, len(answer.Key))
	for _, c := range answer.Key {
		if c > 0xff {
			return nil, errors.New("the peer's answer has a key that is none")
		}
		key = append(key, byte(c))
	}
	return &cluster.Answer{AuthKey: key, Conf: []byte(answer.Conf), Warnings: answer.Warnings}, nil
}

// Confirm does nothing: the node has had its votes from the beginning.
func (a *api) Confirm(context.Context, Request) error { return nil }

func (a *api) Remove(ctx context.Context, r Request) error {
	if err := a.login(ctx); err != nil {
		return err
	}
	_, err := a.call(ctx, http.MethodDelete, "/cluster/config/nodes/"+url.PathEscape(r.Name), nil)
	return err
}

func (a *api) Close() error { a.client.CloseIdleConnections(); return nil }

// apiAnswers tells whether there is an API at a host.
func apiAnswers(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// Nothing is told it and nothing believed of it but that it is there.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(host, apiPort)+"/api2/json/cluster/config/apiversion", nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK || response.StatusCode == http.StatusUnauthorized
}
