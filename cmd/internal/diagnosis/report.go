package diagnosis

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
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
	// maxPart bounds each part of a report, in bytes.
	maxPart = 16 << 20
)

const reportIntro = `This is a report about one node's pmxcfs, for a bug report. It was made by "pmxcfs report".

What may be secret is left out: everything below priv (of the tree and of each node), keys,
tokens, passwords, and the content of all files but a few, of which only settings are shown
that are known to be none. Host names, addresses, names of storages, users and guests are
in it. Look through it before you give it away.

status, doctor, compare   what the commands of these names say (text and JSON)
log.json                  the cluster log
journal.txt               the last lines of the daemon's and corosync's journal
metrics.txt               the daemon's metrics
versions.txt              of the software
tree.txt                  the tree's entries, without what is private
config/                   some configuration files, cut down
`

// Report writes the archive of a report, a compressed tar file.
func Report(ctx context.Context, h *Host, out io.Writer) error {
	discreet := *h
	discreet.Discreet = true
	r := &report{h: &discreet, ctx: ctx}
	z := gzip.NewWriter(out)
	r.tar = tar.NewWriter(z)
	r.add("README.txt", []byte(reportIntro))
	o := Look(ctx, r.h)
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
	h   *Host
	ctx context.Context
	tar *tar.Writer
	err error
}

// text is what is written for people, without colour.
func text(write func(*Painter)) []byte {
	var b bytes.Buffer
	write(&Painter{Out: &b})
	return b.Bytes()
}

// add adds a part; whatever it is, it is looked through once more.
func (r *report) add(name string, content []byte) {
	if r.err != nil {
		return
	}
	b := []byte(redact(string(content)))
	if len(b) > maxPart {
		b = append(b[:maxPart], "\n(cut)\n"...)
	}
	r.err = r.tar.WriteHeader(&tar.Header{Name: "pmxcfs-report/" + name, Mode: 0o600, Size: int64(len(b)), ModTime: r.h.now(), Typeflag: tar.TypeReg})
	if r.err == nil {
		_, r.err = r.tar.Write(b)
	}
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
	if r.err != nil {
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
	ctx, cancel := context.WithTimeout(r.ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = fmt.Appendf(out, "(%s: %v)\n", args[0], err)
	}
	return out
}

func (r *report) journal() []byte {
	return r.run("journalctl", "--no-pager", "-q", "-o", "short-iso", "-n", fmt.Sprint(journalLines),
		"_SYSTEMD_UNIT=pve-cluster.service", "+", "SYSLOG_IDENTIFIER=pmxcfs", "+", "_SYSTEMD_UNIT=corosync.service", "+", "UNIT=pve-cluster.service")
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
	byInode := make(map[uint64]*memdb.Entry, len(contents.Entries))
	for _, e := range contents.Entries {
		byInode[e.Inode] = e
	}
	var list bytes.Buffer
	hidden, hiddenBytes, lines := 0, 0, 0
	for _, e := range contents.Entries {
		path := pathOf(byInode, e)
		if memdb.IsPrivate(path) {
			hidden++
			hiddenBytes += e.Size()
			continue
		}
		if lines++; lines <= maxTreeLines {
			fmt.Fprintf(&list, "%-9s inode %d version %d writer %d %s %7d /%s\n", e.Type, e.Inode, e.Version, e.Writer, when(time.Unix(int64(e.MTime), 0)), e.Size(), clean(path))
		}
	}
	fmt.Fprintf(&list, "%d entries, and %d private ones of %d bytes that are not listed\n", lines, hidden, hiddenBytes)
	for _, p := range contents.Problems {
		fmt.Fprintf(&list, "problem: inode %d: %s\n", p.Inode, redact(p.What))
	}
	r.add("tree.txt", list.Bytes())
	for _, e := range contents.Entries {
		path := pathOf(byInode, e)
		for _, shown := range shownFiles {
			if path == shown && !e.IsDir() {
				r.add("config/"+path, redactConfig(path, e.Data()))
			}
		}
	}
	if text, err := os.ReadFile(r.h.CorosyncConf); err == nil {
		r.add("config/host-corosync.conf", redactConfig("corosync.conf", text))
	}
}

// pathOf is an entry's path; of one that hangs loose, what there is of it, below
// priv: nobody knows where it was.
func pathOf(byInode map[uint64]*memdb.Entry, e *memdb.Entry) string {
	path := ""
	for n := 0; e.Inode != memdb.RootInode; n++ {
		path = memdb.Join(e.Name, path)
		if e = byInode[e.Parent]; e == nil || n > 1000 {
			return "priv/" + path
		}
	}
	return strings.TrimSuffix(path, "/")
}
