package record

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/memdb/history"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// single is a host whose daemon runs without a cluster.
func single(t *testing.T) *labtest.Node {
	t.Helper()
	c := labtest.Hosts(t, lab.New(t, 1))
	n := c.Node(1)
	n.Flags = []string{"-l"}
	n.Start()
	return n
}

// run runs a command on the node's host, and returns its output, stderr at the end, and whether
// it ended with status 0.
func run(n *labtest.Node, args ...string) (string, bool) {
	n.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := n.Host.Exec(ctx, append([]string{labtest.Program()}, args...)...)
	if err != nil {
		return string(out) + err.Error(), false
	}
	return string(out), true
}

// must is run of what is to succeed.
func must(n *labtest.Node, args ...string) string {
	n.T.Helper()
	out, ok := run(n, args...)
	if !ok {
		n.T.Fatalf("%s: pmxcfs %s: %s", n, strings.Join(args, " "), out)
	}
	return out
}

// refused is run of what is to fail with these words.
func refused(n *labtest.Node, words string, args ...string) {
	n.T.Helper()
	out, ok := run(n, args...)
	if ok || !strings.Contains(out, words) {
		n.T.Errorf("%s: pmxcfs %s: not refused with %q: %s", n, strings.Join(args, " "), words, out)
	}
}

// log is what history --json writes.
type log struct {
	Changes []history.Change
	Gaps    []history.Gap
}

func changes(n *labtest.Node, path string) (l log) {
	n.T.Helper()
	n.Must(json.Unmarshal([]byte(must(n, "history", "--json", path)), &l))
	return l
}

// describe says in short what a list of changes is.
func describe(l log) (list []string) {
	for _, c := range l.Changes {
		list = append(list, fmt.Sprintf("%s %s %d", c.Kind, c.Path, c.Size))
	}
	return list
}

func needGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal(err)
	}
}
