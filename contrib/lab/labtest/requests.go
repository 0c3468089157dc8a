package labtest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/status/ipc"
)

// requestsEnv has the test program make requests of the service on the host
// that it runs on: op, colon, data in hexadecimal digits; separated by commas.
const requestsEnv = "PMXCFS_LABTEST_REQUESTS"

// makeRequests makes them and says "errno data" of each on a line. It returns
// the exit status.
func makeRequests(list string) int {
	c, err := qbclient.Dial(ipc.DefaultName)
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
		refused := &qbclient.ResponseError{}
		if err != nil && !errors.As(err, &refused) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Printf("%d %x\n", int(refused.Errno), answer)
	}
	return 0
}

// Request is one request of the service, with its answer.
type Request struct {
	Op   int32
	Data string

	Answer string        // set by Ask
	Errno  syscall.Errno // set by Ask; 0 means no error
}

// Ask makes requests of the service on the node, as root, over one connection.
func (n *Node) Ask(list ...*Request) {
	n.T.Helper()
	exe, err := os.Executable()
	n.Must(err)
	out := filepath.Join(n.T.TempDir(), "answers")
	f, err := os.Create(out)
	n.Must(err)
	defer f.Close()
	var text []string
	for _, r := range list {
		text = append(text, fmt.Sprintf("%d:%x", r.Op, r.Data))
	}
	p, err := n.Host.Start(lab.Spec{Args: []string{exe}, Env: []string{requestsEnv + "=" + strings.Join(text, ","), "GORACE=atexit_sleep_ms=0"}, Stdout: f, Stderr: f})
	n.Must(err)
	err = p.Wait()
	b, rerr := os.ReadFile(out)
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if err = errors.Join(err, rerr); err != nil || len(lines) != len(list) {
		n.T.Fatalf("%s: requests: %v: %q", n, err, b)
	}
	for i, line := range lines {
		errno, answer, _ := strings.Cut(line, " ")
		code, cerr := strconv.Atoi(errno)
		raw, herr := hex.DecodeString(answer)
		n.Must(errors.Join(cerr, herr))
		list[i].Answer, list[i].Errno = string(raw), syscall.Errno(code)
	}
}

// Field pads a text with NULs to the 256 bytes of a name in a request.
func Field(text string) string { return text + strings.Repeat("\x00", 256-len(text)) }
