package cluster

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
)

// api answers what a joining node asks of Proxmox VE's API, on a node of a cluster, with
// the node's certificate. Root's password is "right"; with "two factors" a code is asked
// for, which is 123456.
type api struct{}

const (
	ticket    = "PVE:root@pam:65000000::abc+/="
	csrfToken = "65000000:csrf"
	challenge = "PVE:!tfa!%7B%22totp%22%3Atrue%2C%22recovery%22%3A%5B%5D%7D:65000000::sig"
)

func (api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	data := func(v any) { answer(http.StatusOK, map[string]any{"data": v}) }
	failed := func(status int, text string) { answer(status, map[string]any{"data": nil, "message": text}) }
	form := r.PostFormValue
	path, found := strings.CutPrefix(r.URL.Path, "/api2/json/")
	if !found {
		failed(http.StatusNotImplemented, "no such path")
		return
	}
	if r.Method == http.MethodPost && path == "access/ticket" {
		token := func(t string) {
			data(map[string]any{"ticket": t, "CSRFPreventionToken": csrfToken, "username": "root@pam"})
		}
		switch {
		case form("username") != "root@pam":
		case form("tfa-challenge") == challenge && form("password") == "totp:123456", form("password") == "right":
			token(ticket)
			return
		case form("tfa-challenge") == "" && form("password") == "two factors":
			token(challenge)
			return
		}
		failed(http.StatusUnauthorized, "authentication failure")
		return
	}
	cookie, err := r.Cookie("PVEAuthCookie")
	if err != nil || cookie.Value != "PVE%3Aroot%40pam%3A65000000%3A%3Aabc%2B%2F%3D" || r.Method != http.MethodGet && r.Header.Get("CSRFPreventionToken") != csrfToken {
		failed(http.StatusUnauthorized, "no ticket")
		return
	}
	node, isNode := strings.CutPrefix(path, "cluster/config/nodes/")
	switch {
	case r.Method == http.MethodGet && path == "cluster/config/apiversion":
		data(1)
	case r.Method == http.MethodPost && isNode:
		args := []string{"addnode", node}
		_ = r.ParseForm()
		for name := range r.PostForm {
			args = append(args, "--"+name, form(name))
		}
		if out, err := exec.Command("/usr/bin/pvecm", args...).CombinedOutput(); err != nil {
			failed(http.StatusInternalServerError, strings.TrimSpace(string(out)))
			return
		}
		key, err := os.ReadFile("/etc/corosync/authkey")
		conf, err2 := os.ReadFile("/etc/pve/corosync.conf")
		if err != nil || err2 != nil {
			failed(http.StatusInternalServerError, fmt.Sprint(err, err2))
			return
		}
		var text []byte // a character for each byte
		for _, b := range key {
			text = utf8.AppendRune(text, rune(b))
		}
		data(map[string]any{"corosync_authkey": string(text), "corosync_conf": string(conf), "warnings": []string{}})
	case r.Method == http.MethodDelete && isNode:
		if out, err := exec.Command("/usr/bin/pvecm", "delnode", node).CombinedOutput(); err != nil {
			failed(http.StatusInternalServerError, strings.TrimSpace(string(out)))
			return
		}
		data(nil)
	default:
		failed(http.StatusNotImplemented, "no such call: "+r.Method+" "+path)
	}
}

// serves runs the API until its input ends.
func serves(t *testing.T) {
	dir := "/etc/pve/nodes/node1/"
	certificate, err := tls.LoadX509KeyPair(dir+"pve-ssl.pem", dir+"pve-ssl.key")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", ":8006", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(l, api{})
	fmt.Println("serving")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// A node joins over the API of one that runs the stock tool.
func TestAJoinOverTheAPI(t *testing.T) {
	if lab.Inside() {
		serves(t)
		return
	}
	t.Parallel()
	c := fresh(t, 3)
	one, two, three := c.node(1), c.node(2), c.node(3)
	c.creates()
	one.StartAgent(t, "TestAJoinOverTheAPI").Want(t, "serving")
	info := strings.TrimSpace(one.must("join-info"))
	before := one.read("/etc/pve/corosync.conf")
	refused := func(status int, says, stdin string, args ...string) {
		t.Helper()
		out, got := two.in(stdin, append([]string{"/usr/bin/pvecm", "add"}, args...)...)
		if got != status || !strings.Contains(out, says) {
			t.Errorf("%q: status %d, want %d and %q: %s", args, got, status, says, out)
		}
		if after := one.read("/etc/pve/corosync.conf"); !bytes.Equal(before, after) {
			t.Fatalf("%q: the cluster's corosync.conf was changed", args)
		}
		two.wantAlone()
	}
	two.write("/root/right", "right\n")
	two.write("/root/wrong", "wrong\n")
	refused(5, "fingerprint", "", "10.99.0.1", "--via", "api", "--password-file", "/root/right", "--fingerprint", strings.TrimSuffix(strings.Repeat("AB:", 32), ":"))
	refused(5, "can't be verified", "no\n", "10.99.0.1", "--via", "api", "--password-file", "/root/right")
	refused(5, "refuses the login", "", "--join-info", info, "--password-file", "/root/wrong")
	refused(5, "password", "", "--join-info", info)
	// Without a terminal nobody can be asked for the second factor.
	two.write("/root/two", "two factors\n")
	refused(5, "second factor", "", "--join-info", info, "--password-file", "/root/two")
	refused(4, "10.99.0.1", "right\n", "--join-info", info, "--link0", "10.99.0.1", "--force=link-address")

	// From join information, the password from the input.
	if out, status := two.in("right\n", "/usr/bin/pvecm", "add", "--join-info", info, "--timeout", "60"); status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	c.wantTogether(2, one, two)
	// On a terminal, with a second factor.
	three.atTerminal([]string{"Password", "two factors\r", "Code", "123456\r"}, "add", "--join-info", info, "--timeout", "60")
	c.wantTogether(3, c.all...)
}

// atTerminal runs pvecm at a terminal, where each prompt gets the text behind it.
func (o *node) atTerminal(dialogue []string, args ...string) {
	o.t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	defer terminal.Close()
	if err := unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		o.t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err != nil {
		o.t.Fatal(err)
	}
	other, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	p, err := o.Start(lab.Spec{Args: append([]string{"/usr/bin/pvecm"}, args...), Stdin: other, Stdout: other, Stderr: other})
	other.Close()
	if err != nil {
		o.t.Fatal(err)
	}
	seen := make(chan []byte, 1<<10)
	go func() {
		defer close(seen)
		for {
			b := make([]byte, 1<<10)
			n, err := terminal.Read(b)
			if err != nil {
				return
			}
			seen <- b[:n]
		}
	}()
	var out bytes.Buffer
	from := 0
	testutil.EventuallyWithin(o.t, 3*testutil.Patience, func() error {
		select {
		case b, open := <-seen:
			out.Write(b)
			if !open && p.Running() {
				return fmt.Errorf("it runs, and its terminal is closed")
			}
		default:
		}
		if len(dialogue) > 0 && bytes.Contains(out.Bytes()[from:], []byte(dialogue[0])) {
			from = out.Len()
			if _, err := terminal.WriteString(dialogue[1]); err != nil {
				o.t.Fatal(err)
			}
			dialogue = dialogue[2:]
		}
		if p.Running() {
			return fmt.Errorf("pvecm hasn't ended; it says %q", out.String())
		}
		return nil
	})
	if err := p.Wait(); err != nil || len(dialogue) > 0 {
		o.t.Fatalf("%v, not asked: %q: %s", err, dialogue, &out)
	}
}
