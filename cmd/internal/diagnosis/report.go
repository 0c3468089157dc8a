package diagnosis

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/memdb"
	"pmxcfs/memdb/sqlite"
	"pmxcfs/status/inspect"
)

const (
	// commandTime is how long another program may take that a report runs.
	commandTime = 20 * time.Second
	// journalLines is how much of the journal a report has.
	journalLines = 5000
	// maxTreeLines is how many entries of the tree a report lists.
	maxTreeLines = 20000
	// maxTreeBytes is how long that list is, at most.
	maxTreeBytes = 2 << 20
	// maxPart bounds each part of a report, in bytes.
	maxPart = 8 << 20
)

const reportIntro = `This is a report about one node's pmxcfs, for a bug report. It was made by "pmxcfs report%s".

What may be secret is left out: everything below priv (of the tree and of each node), keys,
tokens, passwords, and the content of all files but a few, of which only settings are shown
that are known to be none. Host names, addresses, names of files, storages and guests are
in it. Look through it before you give it away.

%s

status, doctor, compare   what the commands of these names say (text and JSON)
log.json                  the cluster log
journal.txt               the daemon's, corosync's and systemd's last lines in the journal
metrics.txt               the daemon's metrics
versions.txt              of the software
tree.txt                  the tree's entries, without what is private
config/                   some configuration files, cut down
`

const (
	introKnown = `Of logs it has what is known to hold no secret: this daemon's events with their fields, and
messages of known programs that have a known form. Everything else is left out or counted:
"pmxcfs report --with-logs" takes it in.`
	introLogs = `It has the texts of logs (--with-logs), of which nobody knows what is in them: programs and
people write passwords into logs. What looks like a secret is left out, but that finds only
what is written as expected.`
)

// Report writes the archive of a report, a compressed tar file. It returns soon after ctx
// is done, and must not be asked for again then.
func Report(ctx context.Context, h *Host, out io.Writer) error {
	return Abandonable(ctx, func() error { return writeReport(ctx, h, out) })
}

func writeReport(ctx context.Context, h *Host, out io.Writer) error {
	discreet := *h
	discreet.Discreet = true
	r := &report{h: &discreet, ctx: ctx}
	z := gzip.NewWriter(out)
	r.tar = tar.NewWriter(z)
	option, logs := "", introKnown
	if h.WithLogs {
		option, logs = " --with-logs", introLogs
	}
	r.add("README.txt", fmt.Appendf(nil, reportIntro, option, logs))
	o := Look(ctx, r.h)
	r.known = h.known(o.Status)
	r.add("status.txt", text(func(p *Painter) { p.Overview(o) }))
	r.document("status.json", o)
	x := Examine(ctx, r.h)
	r.add("doctor.txt", text(func(p *Painter) { p.Examination(x) }))
	r.document("doctor.json", x)
	if o.cluster() {
		r.comparison()
	}
	r.log()
	r.add("journal.txt", r.journal())
	r.metrics()
	r.add("versions.txt", r.versions(o))
	r.tree()
	return errors.Join(r.err, ctx.Err(), r.tar.Close(), z.Close())
}

// report is one under way. The first error of writing stays; what can't be found out
// is said in its part.
type report struct {
	h     *Host
	ctx   context.Context
	tar   *tar.Writer
	known *known
	err   error
}

// text is what is written for people, without colour.
func text(write func(*Painter)) []byte {
	var b bytes.Buffer
	write(&Painter{Out: &b})
	return b.Bytes()
}

// add adds a part; whatever it is, it is looked through once more.
func (r *report) add(name string, content []byte) {
	if r.err = cmp.Or(r.err, r.ctx.Err()); r.err != nil {
		return
	}
	cut := ""
	if len(content) > maxPart {
		content = content[:bytes.LastIndexByte(content[:maxPart], '\n')+1]
		cut = "(cut)\n"
	}
	r.addRaw(name, []byte(redact(string(content))+cut))
}

// document adds a document as JSON. Strings are looked through one by one, so that it
// stays JSON.
func (r *report) document(name string, document any) {
	d, err := redactDocument(document)
	if err != nil {
		r.add(name+".error", []byte(err.Error()))
		return
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		r.add(name+".error", []byte(err.Error()))
		return
	}
	r.addRaw(name, append(b, '\n'))
}

func (r *report) addRaw(name string, b []byte) {
	if r.err = cmp.Or(r.err, r.ctx.Err()); r.err != nil {
		return
	}
	r.err = r.tar.WriteHeader(&tar.Header{Name: "pmxcfs-report/" + name, Mode: 0o600, Size: int64(len(b)), ModTime: r.h.now(), Typeflag: tar.TypeReg})
	if r.err == nil {
		_, r.err = r.tar.Write(b)
	}
}

func (r *report) comparison() {
	c, err := r.h.Compare(r.ctx)
	if err != nil {
		r.add("compare.txt", []byte(err.Error()+"\n"))
		return
	}
	redactComparison(c)
	r.add("compare.txt", text(func(p *Painter) { p.Comparison(c) }))
	r.document("compare.json", c)
}

func (r *report) log() {
	log, err := ask(r.ctx, r.h, func(c *inspect.Client, ctx context.Context) (*inspect.Log, error) { return c.Log(ctx, 0, "") })
	if err != nil {
		r.add("log.json.error", []byte(err.Error()+"\n"))
		return
	}
	if !r.h.WithLogs {
		for i := range log.Entries {
			r.known.logEntry(&log.Entries[i])
		}
	}
	r.document("log.json", log)
}

func (r *report) metrics() {
	b, err := ask(r.ctx, r.h, func(c *inspect.Client, ctx context.Context) (*[]byte, error) {
		b, err := c.Raw(ctx, "/metrics")
		return &b, err
	})
	if err != nil {
		r.add("metrics.txt", []byte(err.Error()+"\n"))
		return
	}
	r.add("metrics.txt", *b)
}

// run runs a program and returns what it writes.
func (r *report) run(args ...string) []byte {
	out, err := r.output(args...)
	if err != nil {
		out = fmt.Appendf(out, "(%s: %v)\n", args[0], err)
	}
	return out
}

func (r *report) output(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(r.ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0")
	cmd.WaitDelay = time.Second
	return cmd.CombinedOutput()
}

func (r *report) journal() []byte {
	format := "json"
	if r.h.WithLogs {
		format = "short-iso"
	}
	out, err := r.output("journalctl", "--no-pager", "-q", "-o", format, "-n", fmt.Sprint(journalLines),
		"_SYSTEMD_UNIT=pve-cluster.service", "+", "SYSLOG_IDENTIFIER=pmxcfs", "+", "_SYSTEMD_UNIT=corosync.service", "+", "UNIT=pve-cluster.service")
	if !r.h.WithLogs {
		out = r.known.journal(out)
	}
	if err != nil {
		out = fmt.Appendf(out, "(journalctl: %v)\n", err)
	}
	return out
}

func (r *report) versions(o *Overview) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "pmxcfs %s, %s %s/%s\n", r.h.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if o.Status != nil {
		fmt.Fprintf(&b, "running daemon %s\n", o.Status.Daemon.Version)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		fmt.Fprintf(&b, "%s %s %s\n", unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]))
	}
	if text, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "PRETTY_NAME=") {
				b.WriteString(line)
			}
		}
	}
	b.Write(r.run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n",
		"pve-cluster", "corosync", "libcpg4", "libqb100", "libknet1", "libcorosync-common4", "fuse3", "rrdcached", "librrd8", "libsqlite3-0", "systemd"))
	return b.Bytes()
}

// tree adds a list of the tree's entries, and some files.
func (r *report) tree() {
	contents, err := within(commandTime, func() (*sqlite.Contents, error) { return sqlite.Read(r.h.Database) })
	if err != nil {
		r.add("tree.txt", []byte(err.Error()+"\n"))
		return
	}
	var list bytes.Buffer
	lines, private, privateBytes := 0, 0, 0
	walk(contents.Entries, func(e *memdb.Entry, path string, secret bool) bool {
		if secret {
			private++
			privateBytes += e.Size()
			return r.ctx.Err() == nil
		}
		if lines++; lines <= maxTreeLines && list.Len() < maxTreeBytes {
			fmt.Fprintf(&list, "%-9s inode %d version %d writer %d %s %7d /%s\n", e.Type, e.Inode, e.Version, e.Writer, when(time.Unix(int64(e.MTime), 0)), e.Size(), clean(path))
		}
		if slices.Contains(shownFiles, path) && !e.IsDir() {
			r.add("config/"+path, redactConfig(path, e.Data()))
		}
		return r.ctx.Err() == nil
	})
	fmt.Fprintf(&list, "%d entries, and %d private ones of %d bytes that are not listed\n", lines, private, privateBytes)
	for _, p := range contents.Problems {
		fmt.Fprintf(&list, "problem: inode %d: %s\n", p.Inode, redact(p.What))
	}
	r.add("tree.txt", list.Bytes())
	if text, err := os.ReadFile(r.h.CorosyncConf); err == nil {
		r.add("config/host-corosync.conf", redactConfig("corosync.conf", text))
	}
}

// maxShownPath is the longest path that is shown; the kernel takes none that is longer.
const maxShownPath = 4096

// walk goes through a tree's entries in the order of their paths, and tells of each
// whether it is private. Entries that don't hang below the root, and such as lie deeper
// than any path leads, come last, without a path, and as private ones: nobody knows where
// they were. It takes time and memory for each entry once, whatever their parents are,
// and ends when f returns false.
func walk(entries []*memdb.Entry, f func(e *memdb.Entry, path string, private bool) bool) {
	children := make(map[uint64][]*memdb.Entry)
	for _, e := range entries {
		if e.Inode != memdb.RootInode {
			children[e.Parent] = append(children[e.Parent], e)
		}
	}
	type place struct {
		e       *memdb.Entry
		parent  int // length of its directory's path
		depth   int
		private bool
	}
	var stack []place
	// push has the children of a directory come next, the first name first.
	push := func(inode uint64, length, depth int, private bool) {
		list := children[inode]
		delete(children, inode)
		slices.SortFunc(list, func(a, b *memdb.Entry) int { return strings.Compare(b.Name, a.Name) })
		for _, e := range list {
			stack = append(stack, place{e, length, depth, private})
		}
	}
	seen := make(map[*memdb.Entry]bool, len(entries))
	for _, e := range entries {
		if e.Inode == memdb.RootInode && !seen[e] {
			seen[e] = true
			if !f(e, "", false) {
				return
			}
		}
	}
	push(memdb.RootInode, 0, 1, false)
	var path []byte
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if at.parent+1+len(at.e.Name) > maxShownPath {
			continue
		}
		path = path[:at.parent]
		if at.parent > 0 {
			path = append(path, '/')
		}
		path = append(path, at.e.Name...)
		private, text := at.private, ""
		if !private {
			text = string(path)
			private = at.depth <= privateDepth && memdb.IsPrivate(text)
		}
		seen[at.e] = true
		if !f(at.e, text, private) {
			return
		}
		if at.e.IsDir() {
			push(at.e.Inode, len(path), at.depth+1, private)
		}
	}
	for _, e := range entries {
		if !seen[e] && !f(e, "", true) {
			return
		}
	}
}

// privateDepth is how deep the directory lies, at most, that makes all below it private:
// nodes/NAME/priv.
const privateDepth = 3
