package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"pmxcfs/cmd/internal/plan"
)

// Whatever becomes of a command, with --output-format json stdout has one document, and the
// status says what became of it.
func TestOutputIsADocument(t *testing.T) {
	e := newTestEnv(t, "node1", "10.99.0.1")
	call := func(status plan.Code, result string, args ...string) map[string]any {
		t.Helper()
		e.out.Reset()
		e.err.Reset()
		if got := e.run(append(args, "--output-format", "json")...); got != int(status) {
			t.Errorf("%q: status %d, want %d: %s", args, got, status, e.err.String())
		}
		var document any
		if err := json.Unmarshal(e.out.Bytes(), &document); err != nil {
			t.Fatalf("%q: %v: %s", args, err, e.out.String())
		}
		o, _ := document.(map[string]any)
		if result != "" && (o["result"] != result || o["status"] != float64(status)) {
			t.Errorf("%q: %v", args, o)
		}
		return o
	}
	// On a host without a cluster that is no failure.
	if o := call(plan.Done, "", "status"); o["cluster"] != nil || len(o) == 0 {
		t.Errorf("status without a cluster: %v", o)
	}
	call(plan.Done, "", "nodes")
	call(plan.Done, "nothing-to-do", "leave")
	call(plan.Refused, "failed", "rename-node", "node9", "beta")
	call(plan.Refused, "failed", "qdevice", "setup", "10.99.0.9")
	call(plan.Done, "planned", "create", "lab", "--dry-run")
	call(plan.Done, "done", "create", "lab")
	call(plan.Done, "nothing-to-do", "create", "lab")
	call(plan.Refused, "failed", "create", "other")
	call(plan.Refused, "failed", "delnode", "node9")
	call(plan.Refused, "failed", "qdevice", "remove")
	e.host.Writable = func() bool { return false }
	call(plan.NotQuorate, "failed", "delnode", "node9")
}

// A password is read from the input or a file, a token from a file; neither is an argument.
func TestSecretsAreNoArguments(t *testing.T) {
	e := newTestEnv(t, "node1", "10.99.0.1")
	for _, c := range commands() {
		for _, p := range append(c.options, c.args...) {
			if strings.Contains(p.name, "password") && p.name != "password-file" || strings.Contains(p.name, "token") && p.name != "api-token-file" && p.name != "token-coefficient" {
				t.Errorf("%s takes a secret: %s", c.name, p.name)
			}
		}
	}
	for _, name := range []string{"/password", "/token"} {
		if err := os.WriteFile(e.host.Path(name), []byte("secret of"+name+"\r\nmore\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(values map[string]string, stdin string) (any, error) {
		e.host.Stdin = strings.NewReader(stdin)
		o, err := addOptions(&call{env: &e.env, values: values})
		if err != nil {
			t.Fatal(err)
		}
		c, err := o.Credentials()
		return c.Password + "|" + c.Token, err
	}
	for _, c := range []struct {
		option, stdin, want string
	}{{"password-file", "", "secret of/password|"}, {"api-token-file", "", "|secret of/token"}, {"", "typed\n", "typed|"}} {
		values := map[string]string{"hostname": "peer"}
		if c.option != "" {
			values[c.option] = map[string]string{"password-file": "/password", "api-token-file": "/token"}[c.option]
		}
		if got, err := read(values, c.stdin); err != nil || got != c.want {
			t.Errorf("%s: %q, %v", c.option, got, err)
		}
	}
	if _, err := read(map[string]string{"hostname": "peer"}, ""); plan.CodeOf(err) != plan.Trust {
		t.Errorf("without a password: %v", err)
	}
	if _, err := read(map[string]string{"hostname": "peer", "password-file": "/nowhere"}, ""); plan.CodeOf(err) != plan.Parameters {
		t.Errorf("without its file: %v", err)
	}
}
