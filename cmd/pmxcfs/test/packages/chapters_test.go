package packages

import (
	"os"
	"strings"
	"testing"
)

// block is a block of commands of the documentation.
type block struct {
	host  string // that its fence names; empty: the reader's
	text  string
	title string // of its chapter
}

// blocks reads the blocks of commands of a document. A fence says that one is to be run,
// and on which host: ```sh node1.
func blocks(t *testing.T, name string) []block {
	t.Helper()
	text, err := os.ReadFile("../../../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var list []block
	var title string
	in := false
	for line := range strings.Lines(string(text)) {
		switch {
		case in && strings.HasPrefix(line, "```"):
			in = false
		case in:
			list[len(list)-1].text += line
		case strings.HasPrefix(line, "```sh"):
			in = true
			list = append(list, block{host: strings.TrimSpace(strings.TrimPrefix(line, "```sh")), title: title})
		case strings.HasPrefix(line, "#"):
			title = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	return list
}

// does runs a block of commands as it stands.
func (h host) does(t *testing.T, b block) {
	t.Helper()
	if strings.Contains(b.text, "apt-get") {
		lock, err := h.HoldApt(within(t, 4*settles))
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
	}
	if out, err := h.Exec(within(t, settles), "bash", "-euo", "pipefail", "-c", b.text); err != nil {
		t.Fatalf("%q, on %s: %v\n%s", b.title, h.Name(), err, out)
	}
}

// carried are the files that the documentation says to take to another host.
var carried = []string{"/root/handover.tar", "/root/node2.pub", "/root/node1.fingerprint"}

// follow does what a chapter of the documentation says, on the hosts that it names, or
// else on reader. What is to be taken to another host is there after the block that makes it.
func follow(t *testing.T, document, title string, reader host, hosts ...host) {
	t.Helper()
	n := 0
	for _, b := range blocks(t, document) {
		if b.title != title {
			continue
		}
		n++
		h := reader
		for _, other := range hosts {
			if b.host == other.Name() {
				h = other
			}
		}
		if b.host != "" && h.Name() != b.host {
			t.Fatalf("%s, %q: no host %s", document, title, b.host)
		}
		h.does(t, b)
		for _, name := range carried {
			content, err := h.Exec(within(t, settles), "cat", name)
			if err != nil {
				continue
			}
			for _, other := range hosts {
				if err := other.WriteFile(name, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if n == 0 {
		t.Fatalf("%s has no commands in a chapter %q", document, title)
	}
}
