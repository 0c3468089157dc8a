package join

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pmxcfs/cmd/internal/cluster"
	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/keys"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// shell runs commands on the peer, as root, over ssh.
type shell struct {
	h       *host.Host
	peer    string
	options []string
	dir     string // of what the connection needs; empty: nothing
}

// newShell prepares a way to the peer. With a fingerprint only a host key of that
// SHA-256 is accepted. Without, ssh itself knows the key, or asks on a terminal.
func newShell(ctx context.Context, h *host.Host, peer, fingerprint string, ask bool) (*shell, error) {
	s := &shell{h: h, peer: peer}
	if !ask {
		s.options = []string{"-o", "BatchMode=yes"}
	}
	s.options = append(s.options, "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "UpdateHostKeys=no")
	dir, err := connectionDir(h)
	if err != nil {
		return nil, err
	}
	s.dir = dir
	// One login for the whole join.
	s.options = append(s.options, "-o", "ControlMaster=auto", "-o", "ControlPath="+dir+"/ssh", "-o", "ControlPersist=60")
	if fingerprint == "" {
		return s, nil
	}
	keys, err := h.Output(ctx, "ssh-keyscan", "-T", "10", peer)
	if err != nil && len(keys) == 0 {
		return nil, errors.Join(plan.Fail(plan.Refused, "unreachable", "does sshd run there?", "the host keys of %s can't be read: %v", peer, err), s.Close())
	}
	line, seen := hostKey(string(keys), fingerprint)
	if line == "" {
		return nil, errors.Join(plan.Fail(plan.Trust, "host-key", "look at them on the peer: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", "no host key of %s has the fingerprint %s; it has %s", peer, fingerprint, strings.Join(seen, ", ")), s.Close())
	}
	known := dir + "/known_hosts"
	if err := os.WriteFile(known, []byte(line+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.options = append(s.options, "-o", "UserKnownHostsFile="+known, "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes")
	return s, nil
}

// connectionDir makes a directory for what a connection needs, and removes those of joins
// that were killed.
func connectionDir(h *host.Host) (string, error) {
	base, prefix := "/run", "pvecm-join-"
	if h.Root != "" {
		base = "" // the path of a socket has to be short
	}
	if base != "" {
		old, _ := filepath.Glob(filepath.Join(base, prefix+"*"))
		for _, dir := range old {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
			if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
				_ = os.RemoveAll(dir)
			}
		}
	}
	return os.MkdirTemp(base, fmt.Sprintf("%s%d-", prefix, os.Getpid()))
}

// hostKey finds the key with a fingerprint among the lines of ssh-keyscan, and returns
// the fingerprints of all.
func hostKey(scan, fingerprint string) (line string, seen []string) {
	want, plain := strings.CutPrefix(fingerprint, "SHA256:")
	if !plain {
		want = strings.ToUpper(fingerprint) // as that of a certificate
	}
	for l := range strings.Lines(scan) {
		fields := strings.Fields(l)
		if len(fields) < 3 || strings.HasPrefix(l, "#") {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(fields[2])
		if err != nil {
			continue
		}
		sum := sha256.Sum256(blob)
		text := base64.RawStdEncoding.EncodeToString(sum[:])
		seen = append(seen, "SHA256:"+text)
		if !plain && keys.FingerprintOf(blob) == want || plain && text == strings.TrimRight(want, "=") {
			line = strings.TrimSpace(l)
		}
	}
	slices.Sort(seen)
	return line, seen
}

// sshFailed is ssh's status if it could not run the command. The stock tool ends with that
// status, too, so on the peer it becomes another one.
const sshFailed = 255

// args is the command line that runs a command on the peer.
func (s *shell) args(command ...string) []string {
	args := append([]string{"/usr/bin/ssh"}, s.options...)
	var words []string
	for _, word := range command {
		words = append(words, quote(word))
	}
	text := strings.Join(words, " ") + fmt.Sprintf("; s=$?; [ $s -ne %d ] || s=1; exit $s", sshFailed)
	return append(args, "root@"+s.peer, "--", text)
}

// quote makes a word stand for itself in the peer's shell.
func quote(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:,") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// output runs a command on the peer.
func (s *shell) output(ctx context.Context, command ...string) ([]byte, error) {
	out, err := s.h.Output(ctx, s.args(command...)...)
	var failed *host.CommandError
	if errors.As(err, &failed) && failed.Status == sshFailed {
		return out, plan.Fail(plan.Trust, "ssh", "root's key gets there with --copy-id", "root on %s can't be reached over ssh: %s", s.peer, failed.Stderr)
	}
	return out, err
}

// copyID takes root's key to the peer, which may ask for a password.
func (s *shell) copyID(ctx context.Context) error {
	args := []string{"ssh-copy-id", "-i", "/root/.ssh/id_rsa"}
	for i := 0; i+1 < len(s.options); i += 2 {
		if o := s.options[i+1]; !strings.HasPrefix(o, "BatchMode") && !strings.HasPrefix(o, "Control") {
			args = append(args, "-o", o)
		}
	}
	var stderr bytes.Buffer
	err := s.h.Do(ctx, host.Command{Args: append(args, "root@"+s.peer), Stdin: s.h.Stdin, Stdout: io.Discard, Stderr: &stderr})
	if err != nil {
		return plan.Fail(plan.Trust, "ssh", "", "root's key can't be copied to %s: %v: %s", s.peer, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// Close ends the connection.
func (s *shell) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := os.Stat(s.dir + "/ssh"); err == nil {
		s.h.Output(ctx, "/usr/bin/ssh", "-o", "ControlPath="+s.dir+"/ssh", "-O", "exit", "root@"+s.peer)
	}
	return os.RemoveAll(s.dir)
}

// stock is a peer that runs the stock tool, over ssh.
type stock struct {
	*shell
	protocol int
}

func (p *stock) Facts(ctx context.Context) (*Facts, error) {
	out, err := p.output(ctx, "pvecm", "apiver")
	if plan.CodeOf(err) == plan.Trust {
		return nil, err
	}
	f := &Facts{Quorate: true}
	f.Protocol, _ = strconv.Atoi(strings.TrimSpace(string(out)))
	p.protocol = f.Protocol
	if out, err := p.output(ctx, "date", "+%s"); err == nil {
		if seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64); err == nil {
			f.Time = time.Unix(seconds, 0)
		}
	}
	if out, err := p.output(ctx, "corosync", "-v"); err == nil {
		f.Corosync = CorosyncVersion(string(out))
	}
	text, err := p.output(ctx, "cat", host.ClusterConf)
	if err != nil {
		return nil, plan.Fail(plan.Refused, "no-cluster", "make one there: pvecm create", "%s is in no cluster: %v", p.peer, err)
	}
	c, err := conf.Read(text)
	if err != nil {
		return nil, plan.Fail(plan.Refused, "config-unparsable", "mend it there first", "corosync.conf on %s: %v", p.peer, err)
	}
	f.Cluster, f.Digest, f.Device = c.Section("totem").Get("cluster_name"), c.Digest(), c.Section("quorum").Has("device")
	for _, n := range c.Nodes() {
		id, _ := strconv.ParseUint(n.Get("nodeid"), 10, 32)
		m := Member{Name: conf.NodeName(n), ID: uint32(id), Online: true, Addresses: map[int]string{}}
		for _, link := range conf.Links(n) {
			_, m.Addresses[link] = conf.LinkAddress(n, link)
		}
		f.Members = append(f.Members, m)
	}
	return f, nil
}

func (p *stock) Check(context.Context, Request) ([]plan.Problem, error) { return nil, nil }

// addNodeArgs is how the peer's tool is called.
func addNodeArgs(r Request, protocol int) []string {
	args := []string{"pvecm", "addnode", r.Name}
	if r.Force {
		args = append(args, "--force", "1")
	}
	if r.ID != 0 {
		args = append(args, "--nodeid", strconv.FormatUint(uint64(r.ID), 10))
	}
	if r.Votes != nil {
		args = append(args, "--votes", strconv.Itoa(*r.Votes))
	}
	for n := range 8 {
		if l, given := r.Links[n]; given {
			args = append(args, "--link"+strconv.Itoa(n), l.String())
		}
	}
	switch {
	case len(r.Links) == 0 && protocol >= 1:
		args = append(args, "--new_node_ip", r.Fallback)
	case len(r.Links) == 0:
		args = append(args, "--link0", r.Fallback)
	}
	if protocol >= 1 {
		args = append(args, "--apiversion", strconv.Itoa(apiVersion))
	}
	return args
}

func (p *stock) Enter(ctx context.Context, r Request) (*cluster.Answer, error) {
	if _, err := p.output(ctx, addNodeArgs(r, p.protocol)...); err != nil {
		if plan.CodeOf(err) == plan.Trust {
			return nil, err
		}
		return nil, plan.Fail(plan.Refused, "peer-refused", "", "%s refuses the node: %v", p.peer, err)
	}
	key, err := p.output(ctx, "base64", host.AuthKey)
	if err != nil {
		return nil, err
	}
	answer := &cluster.Answer{}
	if answer.AuthKey, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(key)), "")); err != nil {
		return nil, err
	}
	answer.Conf, err = p.output(ctx, "cat", host.ClusterConf)
	return answer, err
}

func (p *stock) Confirm(context.Context, Request) error { return nil }

func (p *stock) Remove(ctx context.Context, r Request) error {
	_, err := p.output(ctx, "pvecm", "delnode", r.Name)
	return err
}

// dialogue is a peer of this project, over ssh.
type dialogue struct {
	*shell
	lines *lines
	in    io.Closer
	done  chan error
	facts *Facts
	stop  context.CancelFunc

	mu    sync.Mutex    // around a question and its answer
	quiet chan struct{} // closed: no more signs of life
	once  sync.Once     // closes quiet
	pings sync.WaitGroup
}

// helloLimit is how long the peer's program may take to say hello.
const helloLimit = 30 * time.Second

// errStock means that the peer has no such dialogue.
var errStock = errors.New("the peer runs the stock tool")

// newDialogue begins the dialogue.
func newDialogue(ctx context.Context, s *shell) (*dialogue, error) {
	toPeer, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, fromPeer := io.Pipe()
	// The connection outlives an interrupt: what was entered has to be taken back.
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d := &dialogue{shell: s, lines: newLines(out, in), in: in, done: make(chan error, 1), stop: stop, quiet: make(chan struct{})}
	var stderr bytes.Buffer
	go func() {
		err := s.h.Do(run, host.Command{Args: s.args("pvecm", "join-serve", "--json"), Stdin: toPeer, Stdout: fromPeer, Stderr: &stderr})
		fromPeer.Close()
		toPeer.Close()
		d.done <- err
	}()
	var r response
	err = d.ask(ctx, helloLimit, question{Op: opHello, Version: dialogueVersion}, &r)
	if errors.Is(err, io.EOF) {
		ended := <-d.done
		d.done <- ended
		var failed *host.CommandError
		if errors.As(ended, &failed) && failed.Status == sshFailed {
			err = plan.Fail(plan.Trust, "ssh", "root's key gets there with --copy-id", "root on %s can't be reached over ssh: %s", s.peer, strings.TrimSpace(stderr.String()))
		} else {
			err = errStock
		}
	}
	if told := (*plan.Error)(nil); r.Error != "" && errors.As(err, &told) {
		for i := range told.Problems { // "this host" is the peer
			told.Problems[i].Text = s.peer + " says: " + told.Problems[i].Text
			told.Problems[i].Remedy = ""
		}
	}
	if err == nil && (r.Facts == nil || r.Version < 1) {
		err = errStock
	}
	if err != nil {
		d.end()
		return nil, err
	}
	d.facts = r.Facts
	d.facts.own = true
	return d, nil
}

// ask asks one question.
func (d *dialogue) ask(ctx context.Context, limit time.Duration, q question, r *response) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result := make(chan error, 1)
	go func() { // ends with the connection at the latest
		err := d.lines.write(q)
		if err == nil {
			err = d.lines.read(r)
		} else {
			err = io.EOF
		}
		result <- err
	}()
	select {
	case err := <-result:
		if err != nil {
			return err
		}
		return r.err()
	case <-ctx.Done():
		d.end() // the answer would be taken for that to the next question
		<-result
		return plan.Errorf(plan.Timeout, "%s doesn't answer (%w)", d.peer, ctx.Err())
	}
}

func (d *dialogue) Facts(context.Context) (*Facts, error) { return d.facts, nil }

func (d *dialogue) Check(ctx context.Context, r Request) ([]plan.Problem, error) {
	return d.check(ctx, question{Op: opCheck, Request: &r})
}

func (d *dialogue) check(ctx context.Context, q question) ([]plan.Problem, error) {
	var answer response
	err := d.ask(ctx, time.Minute, q, &answer)
	if len(answer.Problems) > 0 {
		return answer.Problems, nil
	}
	return nil, err
}

func (d *dialogue) Enter(ctx context.Context, r Request) (*cluster.Answer, error) {
	problems, err := d.check(ctx, question{Op: opCheck, Request: &r, Hold: true})
	if err == nil && len(problems) > 0 {
		err = &plan.Error{Code: plan.Refused, Problems: problems}
	}
	if err != nil {
		return nil, err
	}
	var answer response
	if err := d.ask(ctx, time.Minute, question{Op: opEnter, Request: &r}, &answer); err != nil {
		return nil, err
	}
	if answer.Answer == nil {
		return nil, errors.New("the peer's answer is empty")
	}
	d.pings.Go(d.ping)
	return answer.Answer, nil
}

func (d *dialogue) Confirm(ctx context.Context, r Request) error {
	var answer response
	return d.ask(ctx, time.Minute, question{Op: opConfirm, Request: &r}, &answer)
}

func (d *dialogue) Remove(ctx context.Context, r Request) error {
	var answer response
	return d.ask(ctx, time.Minute, question{Op: opAbort, Request: &r}, &answer)
}

// ping gives signs of life until the dialogue ends.
func (d *dialogue) ping() {
	for {
		select {
		case <-d.quiet:
			return
		case <-time.After(pingEvery):
		}
		var r response
		if d.ask(context.Background(), aliveLimit, question{Op: opPing}, &r) != nil {
			return
		}
	}
}

// end ends the dialogue, and waits until the program on the other side is through.
func (d *dialogue) end() {
	d.in.Close()
	select {
	case err := <-d.done:
		d.done <- err
	case <-time.After(5 * time.Second):
		d.stop()
		d.done <- <-d.done
	}
	d.stop()
}

func (d *dialogue) Close() error {
	d.once.Do(func() { close(d.quiet) })
	d.end()
	d.pings.Wait()
	return d.shell.Close()
}
