package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"pmxcfs/internal/testutil"
)

func start(t *testing.T, cfg Config) (*Server, *testutil.Log) {
	t.Helper()
	log := &testutil.Log{}
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	cfg.Retry = 5 * time.Millisecond
	if cfg.Public == nil {
		cfg.Public = says("public")
	}
	if cfg.Private == nil {
		cfg.Private = says("private")
	}
	s := Start(cfg)
	t.Cleanup(s.Stop)
	return s, log
}

func says(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

// freeAddress is one that nobody listens on at the moment.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func onSocket(path string) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return Dial(ctx, path)
		},
	}}
}

// wants asks for an answer of that code and text.
func wants(c *http.Client, url string, code int, text string) func() error {
	return func() error {
		r, err := c.Get(url)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if r.StatusCode != code || !strings.Contains(string(body), text) {
			return fmt.Errorf("%d %q", r.StatusCode, body)
		}
		return nil
	}
}

func TestTCPAndSocketServeTheirOwn(t *testing.T) {
	address, socket := freeAddress(t), filepath.Join(t.TempDir(), "s")
	s, _ := start(t, Config{Address: address, Socket: socket})
	testutil.Eventually(t, "as configured", wants(http.DefaultClient, "http://"+address, 200, "public"))
	testutil.Eventually(t, "as configured", wants(onSocket(socket), "http://x/", 200, "private"))
	st, err := os.Stat(socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	r, err := http.Post("http://"+address, "text/plain", strings.NewReader("x"))
	if err != nil || r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST over TCP: %v %v", r, err)
	}
	s.Stop()
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after the end: %v", err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("it listens after the end")
	}
}

func TestSocketsPathMayBeLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 200))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	s, _ := start(t, Config{Socket: socket})
	testutil.Eventually(t, "as configured", wants(onSocket(socket), "http://x/", 200, "private"))
	s.Stop()
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after the end: %v", err)
	}
	if _, err := Dial(t.Context(), socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("dialling nobody: %v", err)
	}
}

func TestTakenAddressIsServedWhenItIsFree(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := other.Addr().String()
	_, log := start(t, Config{Address: address})
	testutil.Eventually(t, "as configured", func() error {
		if !strings.Contains(log.String(), "address already in use") {
			return errors.New("no warning")
		}
		return nil
	})
	other.Close()
	testutil.Eventually(t, "as configured", wants(http.DefaultClient, "http://"+address, 200, "public"))
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log)
	}
}

func TestSocketOfAKilledDaemonIsReplacedAndALivingOneKept(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	start(t, Config{Socket: socket, Private: says("first")})
	testutil.Eventually(t, "as configured", wants(onSocket(socket), "http://x/", 200, "first"))
	_, log := start(t, Config{Socket: socket, Private: says("second")})
	testutil.Eventually(t, "as configured", func() error {
		if !strings.Contains(log.String(), errInUse.Error()) {
			return errors.New("no warning")
		}
		return nil
	})
	if err := wants(onSocket(socket), "http://x/", 200, "first")(); err != nil {
		t.Error(err)
	}
}

// secured writes a web configuration with TLS and a user.
func secured(t *testing.T, dir string) (file string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "web.yml")
	for name, content := range map[string][]byte{
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
		"web.yml":  fmt.Appendf(nil, "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\nbasic_auth_users:\n  prometheus: %s\n", hash),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return file, roots
}

func TestWebConfigAsksForTLSAndAPassword(t *testing.T) {
	dir := t.TempDir()
	file, roots := secured(t, dir)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// What can't be understood is never served without protection.
	if err := os.WriteFile(file, []byte("tls_server_config: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address, socket := freeAddress(t), filepath.Join(dir, "s")
	_, log := start(t, Config{Address: address, ConfigFile: file, Socket: socket})
	testutil.Eventually(t, "as configured", func() error {
		if !strings.Contains(log.String(), "web.yml") {
			return errors.New("no warning")
		}
		return nil
	})
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("it listens with a broken configuration")
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	testutil.Eventually(t, "as configured", wants(client, "https://"+address, 401, ""))
	testutil.Eventually(t, "as configured", wants(client, "https://prometheus:secret@"+address, 200, "public"))
	testutil.Eventually(t, "as configured", wants(client, "https://prometheus:guess@"+address, 401, ""))
	if err := wants(http.DefaultClient, "http://"+address, 200, "")(); err == nil {
		t.Error("answered without TLS")
	}
	testutil.Eventually(t, "as configured", wants(onSocket(socket), "http://x/", 200, "private"))
}

// What a file holds in the middle of a change, or by mistake, opens no door that was closed.
func TestNoChangeOfTheWebConfigOpensADoor(t *testing.T) {
	dir := t.TempDir()
	file, roots := secured(t, dir)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	half, _, _ := strings.Cut(string(good), "basic_auth_users")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	write(" \n")
	_, log := start(t, Config{Address: address, ConfigFile: file})
	said := func(words string) {
		t.Helper()
		testutil.Eventually(t, "it is said", func() error {
			if !strings.Contains(log.String(), words) {
				return errors.New(log.String())
			}
			return nil
		})
	}
	said("it is empty")
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("it listens with an empty configuration")
	}
	write(string(good))
	kept := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	fresh := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	testutil.Eventually(t, "as configured", wants(kept, "https://prometheus:secret@"+address, 200, "public"))
	for _, c := range []struct{ name, text, words string }{
		{"empty", "", "it is empty"},
		{"unparsable", "tls_server_config: [", "can't be used"},
		{"the first half", half, "passwords any more"},
		{"without TLS", strings.Replace(string(good), half, "", 1), "TLS any more"},
		{"another file's", "what: ever\n", "field what not found"},
	} {
		write(c.text)
		for _, client := range []*http.Client{kept, fresh} {
			for _, err := range []error{
				wants(client, "https://"+address, 401, "")(),
				wants(client, "https://prometheus:guess@"+address, 401, "")(),
				wants(client, "https://prometheus:secret@"+address, 200, "public")(),
			} {
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			}
		}
		said(c.words)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := wants(kept, "https://"+address, 401, "")(); err != nil {
		t.Error("removed:", err)
	}
	// A change that asks for as much is in force at once, on old connections, too.
	hash, err := bcrypt.GenerateFromPassword([]byte("new"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write(half + "basic_auth_users:\n  prometheus: " + string(hash) + "\n")
	if err := wants(kept, "https://prometheus:secret@"+address, 200, "public")(); err == nil {
		t.Error("the old password is taken after the change")
	}
	if err := wants(fresh, "https://prometheus:secret@"+address, 401, "")(); err != nil {
		t.Error(err)
	}
	testutil.Eventually(t, "as changed", wants(kept, "https://prometheus:new@"+address, 200, "public"))
}

func TestStopEndsRequestsUnderWay(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	entered, left := make(chan struct{}), make(chan struct{})
	s, _ := start(t, Config{Socket: socket, Private: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	})})
	testutil.Eventually(t, "as configured", func() error { _, err := os.Stat(socket); return err })
	go onSocket(socket).Get("http://x/")
	<-entered
	s.Stop()
	select {
	case <-left:
	case <-time.After(testutil.Patience):
		t.Error("the handler is still there")
	}
}

func TestClientsThatSayNothingAreSentAway(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	start(t, Config{Address: address})
	testutil.Eventually(t, "as configured", wants(http.DefaultClient, "http://"+address, 200, "public"))
	http.DefaultClient.CloseIdleConnections()
	var conns []net.Conn
	for i := range maxConns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-")
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		c.SetReadDeadline(time.Now().Add(testutil.Patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a silent client is still connected")
		}
	}
}

// TestSlowClientsMakeRoom has far more of them than there are places: who asks is answered
// at once, over and over, and on a connection of before as well.
func TestSlowClientsMakeRoom(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	entered, release := make(chan struct{}), make(chan struct{})
	start(t, Config{Address: address, Public: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-release
		}
		io.WriteString(w, "public")
	})})
	testutil.Eventually(t, "as configured", wants(http.DefaultClient, "http://"+address, 200, "public"))
	// A request that is under way is none of those that make room.
	slow := make(chan error, 1)
	go func() {
		slow <- wants(&http.Client{Transport: &http.Transport{}}, "http://"+address+"/slow", 200, "public")()
	}()
	<-entered
	keep := &http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{}}
	for i := range 1000 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nX-")
		}
		if i%100 == 99 {
			begin := time.Now()
			for name, client := range map[string]*http.Client{"a new one": {Timeout: 4 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}, "one of before": keep} {
				if err := wants(client, "http://"+address, 200, "public")(); err != nil || time.Since(begin) > headerTimeout {
					t.Fatalf("%s, beside %d slow ones, after %v: %v", name, i+1, time.Since(begin), err)
				}
			}
		}
	}
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("a request under way was cut: %v", err)
	}
}

func TestRequestsForOtherHostsAreRefused(t *testing.T) {
	for host, want := range map[string]bool{
		"": true, "localhost": true, "localhost:9922": true, "LOCALHOST.": true, "x.localhost:1": true, "127.0.0.1:9922": true, "10.1.2.3": true,
		"[::1]:9922": true, "[fe80::1]": true, "::1": true, "node1": true, "Node1:9922": true, "node1.example.com.": true, "metrics.example.org:9922": true,
		"evil.example": false, "evil.example:9922": false, "node1.evil.example": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false,
		"xlocalhost": false, "node2": false, "10.1.2.3.4": false, "a b": false, "/": false,
	} {
		names := func() []string { return []string{"metrics.example.org:9922", "node1", "node1.example.com"} }
		if got := isOwn(host, names); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	address, socket := freeAddress(t), filepath.Join(t.TempDir(), "s")
	start(t, Config{Address: address, Socket: socket})
	testutil.Eventually(t, "as configured", wants(http.DefaultClient, "http://"+address, 200, "public"))
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
	if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 421 ") || strings.Contains(string(answer), "public") {
		t.Errorf("%q, %v", answer, err)
	}
	testutil.Eventually(t, "as configured", wants(onSocket(socket), "http://whatever/", 200, "private"))
}

func TestPanicInAHandlerIsLoggedAndEndsItsRequestOnly(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	_, log := start(t, Config{Socket: socket, Private: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			panic("no such thing")
		}
	})})
	testutil.Eventually(t, "as configured", wants(onSocket(socket), "http://x/", 200, ""))
	if _, err := onSocket(socket).Get("http://x/bad"); err == nil {
		t.Error("answered")
	}
	testutil.Eventually(t, "as configured", wants(onSocket(socket), "http://x/", 200, ""))
	if !strings.Contains(log.String(), "no such thing") {
		t.Errorf("log: %s", log)
	}
}
