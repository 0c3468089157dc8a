package join

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pmxcfs/cmd/internal/keys"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// exchange is a recorded request of the stock tool and its answer.
type exchange struct {
	Request struct {
		Method, Path string
		Headers      map[string]string
		Form         map[string]string
	}
	Response struct {
		Status int
		Reason string
		JSON   json.RawMessage
	}
}

func exchanges(t *testing.T, name string) (list []exchange) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// webServer answers recorded requests in their order. What isn't recorded is not found.
type webServer struct {
	*httptest.Server
	t    *testing.T
	left []exchange
}

func newWebServer(t *testing.T, list []exchange) *webServer {
	w := &webServer{t: t, left: list}
	w.Server = httptest.NewTLSServer(w)
	t.Cleanup(w.Close)
	return w
}

func (w *webServer) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if len(w.left) == 0 || r.Method != w.left[0].Request.Method || r.URL.Path != w.left[0].Request.Path {
		out.WriteHeader(http.StatusNotFound)
		return
	}
	e := w.left[0]
	w.left = w.left[1:]
	r.ParseForm()
	form := map[string]string{}
	for k := range r.PostForm {
		form[k] = r.PostForm.Get(k)
	}
	if len(form) != len(e.Request.Form) {
		w.t.Errorf("%s: the form is %v, want %v", r.URL.Path, form, e.Request.Form)
	}
	for k, v := range e.Request.Form {
		if form[k] != v {
			w.t.Errorf("%s: %s is %q, want %q", r.URL.Path, k, form[k], v)
		}
	}
	for k, v := range e.Request.Headers {
		got := r.Header.Get(k)
		if k == "Cookie" { // the stock tool sends a cookie's attributes, too
			v, _, _ = strings.Cut(v, ";")
		}
		if got != v {
			w.t.Errorf("%s: header %s is %q, want %q", r.URL.Path, k, got, v)
		}
	}
	out.Header().Set("Content-Type", "application/json;charset=UTF-8")
	out.WriteHeader(e.Response.Status)
	out.Write(e.Response.JSON)
}

// to is a peer at the server.
func (w *webServer) to(fingerprint string, ask func(string) bool) *api {
	a := newAPI("127.0.0.1", fingerprint, Credentials{Password: "secret"}, ask)
	a.base = w.URL
	return a
}

func (w *webServer) fingerprint() string { return keys.FingerprintOf(w.Certificate().Raw) }

func links(t *testing.T, values ...string) map[int]conf.Link {
	t.Helper()
	m := map[int]conf.Link{}
	for n, v := range values {
		l, err := conf.ParseLink(v)
		if err != nil {
			t.Fatal(err)
		}
		m[n] = l
	}
	return m
}

func TestJoinsOverTheAPIAsTheStockTool(t *testing.T) {
	w := newWebServer(t, exchanges(t, "join.http.json"))
	p := w.to(w.fingerprint(), nil)
	f, err := p.Facts(context.Background())
	if err != nil || f.Protocol != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	if f.Time.IsZero() {
		t.Error("the peer's time is unknown")
	}
	one := 1
	answer, err := p.Enter(context.Background(), Request{Name: "node2", Votes: &one, Links: links(t, "10.99.0.2", "10.98.0.2,priority=3")})
	if err != nil {
		t.Fatal(err)
	}
	var key []byte
	for b := range 256 {
		key = append(key, byte(b))
	}
	if !bytes.Equal(answer.AuthKey, key) {
		t.Errorf("the key is %x", answer.AuthKey)
	}
	want, err := os.ReadFile("testdata/join.conf")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(answer.Conf)) != strings.TrimSpace(string(want)) {
		t.Errorf("corosync.conf is\n%s", answer.Conf)
	}
	if version, err := judge(answer, Request{Name: "node2"}); err != nil || version != 2 {
		t.Errorf("version %d, %v", version, err)
	}
	if _, err := judge(answer, Request{Name: "node3"}); err == nil {
		t.Error("a configuration without this node was taken")
	}
	answer.AuthKey = answer.AuthKey[:100]
	if _, err := judge(answer, Request{Name: "node2"}); err == nil {
		t.Error("a key of 100 bytes was taken")
	}
	if len(w.left) > 0 {
		t.Errorf("%d requests were not made", len(w.left))
	}
}

func TestWhatThePeerRefusesIsTold(t *testing.T) {
	w := newWebServer(t, exchanges(t, "join-errors.http.json"))
	for _, c := range []struct {
		links []string
		force bool
		want  string
	}{
		{[]string{"10.99.0.2", "10.98.0.3"}, true, "(message)"},
		{[]string{"10.99.0.3", "10.98.0.3"}, false, "(message)\nwarning: (text)\nerror0: (text)"},
	} {
		p := w.to(w.fingerprint(), nil)
		if _, err := p.Facts(context.Background()); err != nil {
			t.Fatal(err)
		}
		_, err := p.Enter(context.Background(), Request{Name: "node3", Links: links(t, c.links...), Force: c.force})
		if plan.CodeOf(err) != plan.Refused || !slices.Equal(plan.Kinds(err), []string{"peer-refused"}) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestOnlyTheRightCertificateIsTrusted(t *testing.T) {
	for _, c := range []struct {
		name, fingerprint string
		ask               func(string) bool
		kind              string
	}{
		{"the right one", "", nil, ""},
		{"another one", strings.Repeat("AB:", 31) + "AB", nil, "fingerprint-mismatch"},
		{"accepted", "-", func(string) bool { return true }, ""},
		{"declined", "-", func(string) bool { return false }, "fingerprint-declined"},
		{"nobody to ask", "-", nil, "fingerprint-declined"},
	} {
		w := newWebServer(t, exchanges(t, "join.http.json"))
		shown := ""
		ask := c.ask
		if ask != nil {
			ask = func(f string) bool { shown = f; return c.ask(f) }
		}
		switch c.fingerprint {
		case "":
			c.fingerprint = strings.ToLower(w.fingerprint())
		case "-":
			c.fingerprint = ""
		}
		_, err := w.to(c.fingerprint, ask).Facts(context.Background())
		if c.kind == "" && err != nil || c.kind != "" && (plan.CodeOf(err) != plan.Trust || !slices.Equal(plan.Kinds(err), []string{c.kind})) {
			t.Errorf("%s: %v, want %q", c.name, err, c.kind)
		}
		if ask != nil && shown != w.fingerprint() {
			t.Errorf("%s: shown was %q", c.name, shown)
		}
		if c.kind != "" && len(w.left) < 3 {
			t.Errorf("%s: the password was sent", c.name)
		}
	}
}

func TestALoginThatFails(t *testing.T) {
	status := http.StatusUnauthorized
	w := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		out.WriteHeader(status)
		out.Write([]byte(`{"data":null}`))
	}))
	defer w.Close()
	p := newAPI("127.0.0.1", keys.FingerprintOf(w.Certificate().Raw), Credentials{Password: "wrong"}, nil)
	p.base = w.URL
	if _, err := p.Facts(context.Background()); plan.CodeOf(err) != plan.Trust || strings.Contains(err.Error(), "--use_ssh") {
		t.Errorf("%v", err)
	}
	status = http.StatusNotImplemented
	if _, err := p.Facts(context.Background()); plan.CodeOf(err) != plan.Trust || !strings.Contains(err.Error(), "--use_ssh") {
		t.Errorf("%v", err)
	}
	w.Close()
	if _, err := p.Facts(context.Background()); plan.CodeOf(err) != plan.Refused || !slices.Equal(plan.Kinds(err), []string{"unreachable"}) {
		t.Errorf("%v", err)
	}
}

// A token needs no login, and no ticket goes with it.
func TestATokenIsSentInsteadOfATicket(t *testing.T) {
	all := exchanges(t, "join.http.json")
	var w *webServer
	for i, e := range all {
		if strings.HasSuffix(e.Request.Path, "/access/ticket") {
			continue
		}
		rest := slices.Clone(all[i:])
		for j := range rest {
			rest[j].Request.Headers = map[string]string{"Authorization": "PVEAPIToken=root@pam!join=secret", "Cookie": "", "CSRFPreventionToken": ""}
		}
		w = newWebServer(t, rest)
		break
	}
	p := newAPI("127.0.0.1", w.fingerprint(), Credentials{Token: "root@pam!join=secret"}, nil)
	p.base = w.URL
	if f, err := p.Facts(t.Context()); err != nil || f.Protocol != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	one := 1
	if _, err := p.Enter(t.Context(), Request{Name: "node2", Votes: &one, Links: links(t, "10.99.0.2", "10.98.0.2,priority=3")}); err != nil {
		t.Fatal(err)
	}
}

func TestSecondFactor(t *testing.T) {
	challenge := "PVE:!tfa!" + url.QueryEscape(`{"totp":true,"recovery":[1,2],"yubico":false,"webauthn":{}}`) + ":AAAA::sig"
	list := exchanges(t, "join.http.json")[:2]
	first := list[0]
	first.Response.JSON = json.RawMessage(`{"data":{"ticket":"` + challenge + `","CSRFPreventionToken":"6B0D7EEC:Y3NyZg","username":"root@pam"}}`)
	second := list[0]
	second.Request.Form = map[string]string{"username": "root@pam", "password": "totp:123456", "tfa-challenge": challenge}
	second.Response.JSON = json.RawMessage(`{"data":{"ticket":"PVE:root@pam:6B0D7EEC::c2lnbmF0dXJl","username":"root@pam"}}`)
	w := newWebServer(t, []exchange{first, second, list[1]})
	p := w.to(w.fingerprint(), nil)
	p.second = func(kinds []string) (string, string, error) {
		if !slices.Equal(kinds, []string{"totp", "recovery"}) {
			t.Errorf("offered are %v", kinds)
		}
		return "totp", "123456", nil
	}
	if f, err := p.Facts(context.Background()); err != nil || f.Protocol != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	w = newWebServer(t, []exchange{first})
	if _, err := w.to(w.fingerprint(), nil).Facts(context.Background()); plan.CodeOf(err) != plan.Trust {
		t.Errorf("without a terminal: %v", err)
	}
}

func TestFactsOfTheJoinInformation(t *testing.T) {
	text, err := os.ReadFile("testdata/join-info.json")
	if err != nil {
		t.Fatal(err)
	}
	data, err := parseReply(200, "200 OK", text)
	if err != nil {
		t.Fatal(err)
	}
	var f Facts
	f.readJoinInfo(data)
	if f.Cluster != "lab" || f.Node != "node1" || len(f.Members) != 2 || f.Members[1].Addresses[1] != "10.98.0.1" || f.Members[0].ID != 2 {
		t.Errorf("%+v", f)
	}
	if got := f.links(); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("links %v", got)
	}
}

func TestWhatAnOldPeerIsAsked(t *testing.T) {
	for _, c := range []struct {
		r        Request
		protocol int
		form     string
		args     string
	}{
		{Request{Name: "n", Fallback: "10.0.0.1"}, 1, "apiversion=1&new_node_ip=10.0.0.1", "pvecm addnode n --new_node_ip 10.0.0.1 --apiversion 1"},
		{Request{Name: "n", Fallback: "10.0.0.1"}, 0, "link0=10.0.0.1", "pvecm addnode n --link0 10.0.0.1"},
		{Request{Name: "n", Links: links(t, "10.0.0.1"), ID: 4, Force: true}, 1, "apiversion=1&force=1&link0=10.0.0.1&nodeid=4", "pvecm addnode n --force 1 --nodeid 4 --link0 10.0.0.1 --apiversion 1"},
	} {
		if got := enterForm(c.r, c.protocol).Encode(); got != c.form {
			t.Errorf("%s, want %s", got, c.form)
		}
		if got := strings.Join(addNodeArgs(c.r, c.protocol), " "); got != c.args {
			t.Errorf("%s, want %s", got, c.args)
		}
	}
}

func TestHostKeysAreFoundByTheirFingerprints(t *testing.T) {
	scan := "# x SSH-2.0\nx ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB\nx ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n"
	_, seen := hostKey(scan, "")
	if len(seen) != 2 {
		t.Fatalf("%v", seen)
	}
	for _, f := range seen {
		if line, _ := hostKey(scan, f); !strings.HasPrefix(line, "x ssh-") {
			t.Errorf("%s finds %q", f, line)
		}
	}
	if line, _ := hostKey(scan, "SHA256:other"); line != "" {
		t.Errorf("%q was found", line)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"corosync_authkey":"\u0000ÿ","corosync_conf":"totem {\n}\n","warnings":["x"]}`))
	f.Add([]byte(`{"corosync_authkey":"Ā"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := parseAnswer(data); err == nil {
			judge(a, Request{Name: "node2"})
		}
		var refused *apiError
		if _, err := parseReply(500, "500 x", data); !errors.As(err, &refused) {
			t.Errorf("a refusal is %v", err)
		}
		new(Facts).readJoinInfo(data)
		tfaKinds(string(data))
	})
}
