package clustertest

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync/qb"
	"pmxcfs/status/ipc"
)

// requestsEnv has the test program make requests of the service on the host
// that it runs on: op, colon, data in hexadecimal digits; separated by commas.
const requestsEnv = "PMXCFS_CLUSTERTEST_REQUESTS"

// makeRequests makes them and says "errno data" of each on a line. It returns
// the exit status.
func makeRequests(list string) int {
	c, err := qb.Dial(ipc.DefaultName)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	for text := range strings.SplitSeq(list, ",") {
		op, data, _ := strings.Cut(text, ":")
		id, err := strconv.ParseInt(op, 10, 32)
		raw, herr := hex.DecodeString(data)
		var answer []byte
		if err = errors.Join(err, herr); err == nil {
			answer, err = c.SendRecv(int32(id), raw, 10*time.Second)
		}
		refused := &qb.ResponseError{}
		if err != nil && !errors.As(err, &refused) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Printf("%d %x\n", int(refused.Errno), answer)
	}
	return 0
}

// request is one request of the service, with its answer.
type request struct {
	op   int32
	data string

	answer string
	errno  syscall.Errno
}

// ask makes requests of the service on the node.
func (n *node) ask(list ...*request) {
	n.t.Helper()
	exe, err := os.Executable()
	n.must(err)
	out := filepath.Join(n.t.TempDir(), "answers")
	f, err := os.Create(out)
	n.must(err)
	defer f.Close()
	var text []string
	for _, r := range list {
		text = append(text, fmt.Sprintf("%d:%x", r.op, r.data))
	}
	p, err := n.host.Start(lab.Spec{Args: []string{exe}, Env: []string{requestsEnv + "=" + strings.Join(text, ","), "GORACE=atexit_sleep_ms=0"}, Stdout: f, Stderr: f})
	n.must(err)
	err = p.Wait()
	b, rerr := os.ReadFile(out)
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if err = errors.Join(err, rerr); err != nil || len(lines) != len(list) {
		n.t.Fatalf("%s: requests: %v: %q", n, err, b)
	}
	for i, line := range lines {
		errno, answer, _ := strings.Cut(line, " ")
		code, cerr := strconv.Atoi(errno)
		raw, herr := hex.DecodeString(answer)
		n.must(errors.Join(cerr, herr))
		list[i].answer, list[i].errno = string(raw), syscall.Errno(code)
	}
}

// field pads a text with NULs.
func field(text string) string { return text + strings.Repeat("\x00", 256-len(text)) }

// service checks that what tools set through the service on one node reaches
// the others' services and special files.
func service(c *cluster) {
	for _, n := range c.nodes {
		const ident, tag = "root@pam", "test"
		entry := string([]byte{6, byte(len(ident) + 1), byte(len(tag) + 1)}) + ident + "\x00" + tag + "\x00message of " + n.String() + "\x00"
		list := []*request{
			{op: ipc.OpSetStatus, data: field("test") + "value of " + n.String()},
			{op: ipc.OpSetStatus, data: field("rrd/pve2-node/"+n.String()) + "1:2:3\x00"},
			{op: ipc.OpLog, data: entry},
		}
		n.ask(list...)
		for _, r := range list {
			if r.errno != 0 {
				c.t.Fatalf("%s: request %d: %v", n, r.op, r.errno)
			}
		}
	}
	for _, n := range c.nodes {
		n.eventually("it has everybody's values, messages and samples", func() error {
			log := &request{op: ipc.OpGetLog, data: strings.Repeat("\x00", 17)}
			list := []*request{log}
			for _, o := range c.nodes {
				list = append(list, &request{op: ipc.OpGetStatus, data: field("test") + field(o.String())})
			}
			n.ask(list...)
			file, err := os.ReadFile(n.path(".clusterlog"))
			rrd, rerr := os.ReadFile(n.path(".rrd"))
			version, verr := os.ReadFile(n.path(".version"))
			var v struct{ KVStore map[string]map[string]int }
			if err = errors.Join(err, rerr, verr, json.Unmarshal(version, &v)); err != nil {
				return err
			}
			for i, o := range c.nodes {
				if r := list[i+1]; r.errno != 0 || r.answer != "value of "+o.String() {
					return fmt.Errorf("value of %s: %q, %v", o, r.answer, r.errno)
				}
				for _, text := range []string{log.answer, string(file)} {
					if !strings.Contains(text, "message of "+o.String()) || !json.Valid([]byte(text)) {
						return fmt.Errorf("log: %s", text)
					}
				}
				if !strings.Contains(string(rrd), "pve2-node/"+o.String()+":1:2:3\n") {
					return fmt.Errorf(".rrd: %s", rrd)
				}
				if _, ok := v.KVStore[o.String()]["test"]; !ok {
					return fmt.Errorf(".version: %s", version)
				}
			}
			return nil
		})
		conf := &request{op: ipc.OpGetConfig, data: "corosync.conf\x00"}
		info := &request{op: ipc.OpClusterInfo}
		n.ask(conf, info)
		if conf.errno != 0 || conf.answer != c.lab.Conf().String() {
			c.t.Errorf("%s: corosync.conf through the service: %v, %q", n, conf.errno, conf.answer)
		}
		if info.errno != 0 || !strings.Contains(info.answer, `"name": "lab"`) {
			c.t.Errorf("%s: cluster info through the service: %v, %q", n, info.errno, info.answer)
		}
	}
	// What a node has said outlives its daemon on the others, and the service is
	// back with the daemon.
	n := c.node(3)
	n.stop()
	if _, err := os.Stat(n.host.Path("/run/pve-cluster/cfs-restart-flag")); err != nil {
		c.t.Errorf("%s: the restart flag: %v", n, err)
	}
	r := &request{op: ipc.OpGetStatus, data: field("test") + field("node3")}
	if c.node(1).ask(r); r.errno != 0 || r.answer != "value of node3" {
		c.t.Errorf("value of a node that is away: %q, %v", r.answer, r.errno)
	}
	n.start()
	if _, err := os.Stat(n.host.Path("/run/pve-cluster/cfs-restart-flag")); !errors.Is(err, os.ErrNotExist) {
		c.t.Errorf("%s: the restart flag is left: %v", n, err)
	}
	c.wantTogether(c.nodes...)
	n.eventually("it has learnt what the others say", func() error {
		r := &request{op: ipc.OpGetStatus, data: field("test") + field("node1")}
		if n.ask(r); r.errno != 0 || r.answer != "value of node1" {
			return fmt.Errorf("%q, %v", r.answer, r.errno)
		}
		return nil
	})
}
