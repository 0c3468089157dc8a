package labtest

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/internal/testutil"
	"pmxcfs/status/ipc"
)

// requestsEnv has the test program make requests of the service on the host
// that it runs on.
const requestsEnv = "PMXCFS_LABTEST_REQUESTS"

const requestTimeout = testutil.Patience

// makeRequests reads lists of requests, a line each, until the input ends: op, colon, data in
// hexadecimal digits; separated by commas. It makes each list's over a connection of their own,
// and answers with a line: a list of "errno data", separated by commas, or "!" and what is wrong. It
// returns the exit status.
func makeRequests(in io.Reader, out io.Writer) int {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return 0
		}
		answers, err := makeList(strings.TrimSuffix(line, "\n"))
		text := strings.Join(answers, ",")
		if err != nil {
			text = "!" + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if _, err := fmt.Fprintln(out, text); err != nil {
			return 1
		}
	}
}

func makeList(list string) (answers []string, err error) {
	c, err := qbclient.Dial(ipc.DefaultName)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for text := range strings.SplitSeq(list, ",") {
		op, data, _ := strings.Cut(text, ":")
		id, err := strconv.ParseInt(op, 10, 32)
		raw, herr := hex.DecodeString(data)
		var answer []byte
		if err = errors.Join(err, herr); err == nil {
			answer, err = c.SendRecv(int32(id), raw, requestTimeout)
		}
		refused := &qbclient.ResponseError{}
		if err != nil && !errors.As(err, &refused) {
			return nil, err
		}
		answers = append(answers, fmt.Sprintf("%d %x", int(refused.Errno), answer))
	}
	return answers, nil
}

// requester is a process on a host that makes requests.
type requester struct {
	process *lab.Process
	in, out *os.File
	answers *bufio.Reader
}

// requester returns the node's, which it starts if there is none.
func (n *Node) requester() *requester {
	n.T.Helper()
	if n.asks != nil {
		return n.asks
	}
	exe, err := os.Executable()
	n.Must(err)
	r, in, err := os.Pipe()
	n.Must(err)
	out, w, err := os.Pipe()
	n.Must(err)
	defer r.Close()
	defer w.Close()
	p, err := n.Host.Start(lab.Spec{Args: []string{exe}, Env: []string{requestsEnv + "=1", "GORACE=atexit_sleep_ms=0"}, Stdin: r, Stdout: w})
	n.Must(err)
	n.asks = &requester{p, in, out, bufio.NewReader(out)}
	return n.asks
}

// end ends the process.
func (r *requester) end() error {
	r.in.Close()
	defer r.out.Close()
	return r.process.Wait()
}

// ask sends a line and returns the answer.
func (r *requester) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(r.in, line); err != nil {
		return "", err
	}
	if err := r.out.SetReadDeadline(time.Now().Add(2 * requestTimeout)); err != nil {
		return "", err
	}
	answer, err := r.answers.ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
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
	var text []string
	for _, r := range list {
		text = append(text, fmt.Sprintf("%d:%x", r.Op, r.Data))
	}
	answers, err := n.requester().ask(strings.Join(text, ","))
	lines := strings.Split(answers, ",")
	if err != nil || strings.HasPrefix(answers, "!") || len(lines) != len(list) {
		n.T.Fatalf("%s: requests: %v: %q", n, err, answers)
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
