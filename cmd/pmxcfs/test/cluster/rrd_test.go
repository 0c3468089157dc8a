package cluster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/internal/testutil"
)

// The places of a node's RRD files.
const (
	rrdParent = "/var/lib/rrdcached"
	rrdDir    = rrdParent + "/db"
	rrdSocket = "/run/rrdcached.sock"
)

// TestRRDFilesOnEveryNode has three nodes measure: node 1 without rrdcached, node 2
// with it, node 3 first without a directory and later with a full disk; then node 2 has a full disk,
// and no directory, too.
func TestRRDFilesOnEveryNode(t *testing.T) {
	t.Parallel()
	lab.Require(t, "rrdtool", "rrdcached")
	c := labtest.Hosts(t, lab.New(t, 3))
	// Each sample is a minute after the one before, and none may be of the future, nor of
	// the day before: there it is about noon.
	now := time.Now()
	r := &rrdTest{c: c, at: now.Truncate(time.Minute).Add(-2 * time.Hour).Unix()}
	for _, n := range c.Nodes {
		n.Must(os.WriteFile(n.Host.Path("/run/zone"), zoneInfo(12-now.UTC().Hour()), 0o644))
		n.Env = append(n.Env, "TZ=/run/zone")
	}
	for _, n := range c.Nodes[:2] {
		n.Must(os.Mkdir(n.Host.Path(rrdDir), 0o755))
	}
	cached := startRRDCached(c.Node(2))
	c.Start()
	for _, s := range []struct {
		name string
		run  func(c *cluster)
	}{
		{"MissingDirectoryIsSaidOnceAndUsedWhenItAppears", r.directory},
		{"FilesAreAsSpecified", r.info},
		{"SamplesAreInTheArchives", r.fetch},
		{"RRDCachedDiesAndComesBack", func(c *cluster) { cached = r.rrdcachedDies(c, cached) }},
		{"HangingRRDCachedHoldsUpNobody", func(c *cluster) { r.restart(c, cached) }},
		{"FullDiskHoldsUpNobody", func(c *cluster) {
			n := c.Node(3)
			r.fullDisk(n, func() { r.wantFiles(n) })
		}},
		{"FullDiskBesideRRDCached", func(c *cluster) {
			n := c.Node(2)
			r.fullDisk(n, func() { r.wantPending(n) })
		}},
		{"MissingDirectoryBesideRRDCached", r.directoryGoes},
	} {
		if !t.Run(s.name, func(t *testing.T) { r.c = c.In(t); s.run(r.c) }) {
			c.In(t)
			t.Fatal("the nodes are not as the next test needs them")
		}
		c.In(t)
	}
	c.WantSameDatabases()
}

// zoneInfo is a tzfile(5) of a zone that is so many hours ahead of UTC.
func zoneInfo(hours int) []byte {
	const abbreviation = "LAB\x00"
	b := append([]byte("TZif"), make([]byte, 16)...)
	for _, n := range []int{0, 0, 0, 0, 1, len(abbreviation), hours * 3600} { // one type, from ever on
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, 0, 0), abbreviation...)
}

// rrdTest sends samples.
type rrdTest struct {
	c  *cluster
	at int64 // time of the last samples, seconds: a minute later each time
}

// rrdFiles are the files that all samples of all nodes go into.
func rrdFiles(c *cluster) (list []string) {
	for _, n := range c.Nodes {
		list = append(list, "pve-node-9.0/"+n.String(), "pve-vm-9.0/"+fmt.Sprint(100+n.Host.ID()), "pve-storage-9.0/"+n.String()+"/local")
	}
	slices.Sort(list)
	return list
}

// columns are n columns of a sample, "1.5:2.5:…".
func columns(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint(float64(i)+1.5))
	}
	return strings.Join(list, ":")
}

// send has each node tell of itself, a guest and a storage, the third in the old
// format, and waits until all nodes know.
func (r *rrdTest) send() {
	r.c.T.Helper()
	r.at += 60
	var keys []string
	for _, n := range r.c.Nodes {
		node, vm, storage := "pve-node-9.0/"+n.String(), fmt.Sprintf("pve-vm-9.0/%d", 100+n.Host.ID()), "pve-storage-9.0/"+n.String()+"/local"
		nodeColumns, vmColumns := 19, 17
		if n.Host.ID() == 3 {
			node, vm, storage = "pve2-node/"+n.String(), fmt.Sprintf("pve2.3-vm/%d", 100+n.Host.ID()), "pve2-storage/"+n.String()+"/local"
			nodeColumns, vmColumns = 12, 10
		}
		do(n,
			setValue("rrd/"+node, fmt.Sprintf("1000:sub:%d:%s\x00", r.at, columns(nodeColumns))),
			setValue("rrd/"+vm, fmt.Sprintf("1000:name:running:0:%d:%s\x00", r.at, columns(vmColumns))),
			setValue("rrd/"+storage, fmt.Sprintf("%d:%s\x00", r.at, columns(2))))
		keys = append(keys, node, vm, storage)
	}
	for _, n := range r.c.Nodes {
		n.Eventually("everybody's samples are in .rrd", func() error {
			b, err := os.ReadFile(n.Path(".rrd"))
			for _, key := range keys {
				if _, rest, ok := strings.Cut(string(b), key+":"); err == nil && (!ok || !strings.Contains(rest[:strings.Index(rest, "\n")], fmt.Sprint(r.at))) {
					err = fmt.Errorf("%s is not in %s", key, b)
				}
			}
			return err
		})
	}
}

// rrdtool runs rrdtool(1) on the node.
func rrdtool(n *node, args ...string) (string, error) {
	out, err := n.Host.Exec(n.T.Context(), append([]string{"env", "LC_ALL=C", "TZ=UTC", "rrdtool"}, args...)...)
	return string(out), err
}

// newest gives the times of the last samples that the files hold; 0: no file, or
// nothing in it.
func newest(n *node, files []string) (map[string]int64, error) {
	args := []string{"bash", "-c", `cd "$0"; for f; do echo "lastupdate $f"; done | rrdtool - 2>&1 | grep -E '^(ERROR|[0-9]+:)'`, rrdDir}
	out, err := n.Host.Exec(n.T.Context(), append(args, files...)...)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != len(files) {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	times := map[string]int64{}
	for i, file := range files {
		when, _, _ := strings.Cut(lines[i], ":")
		times[file], _ = strconv.ParseInt(when, 10, 64)
	}
	return times, nil
}

// wantFiles waits until all files are on these nodes and have the last samples.
func (r *rrdTest) wantFiles(nodes ...*node) {
	r.c.T.Helper()
	files := rrdFiles(r.c)
	for _, n := range nodes {
		n.Eventually(fmt.Sprintf("all files have the sample of %d", r.at), func() error {
			got, err := newest(n, files)
			for _, file := range files {
				if err == nil && got[file] != r.at {
					err = fmt.Errorf("the last of %s is of %d", file, got[file])
				}
			}
			return err
		})
	}
}

// startRRDCached starts rrdcached, which keeps samples for an hour unless told
// otherwise.
func startRRDCached(n *node) *lab.Process {
	n.T.Helper()
	p, err := n.Host.Start(lab.Spec{Args: []string{"rrdcached", "-g", "-B", "-b", rrdDir, "-l", "unix:" + rrdSocket, "-p", "/run/rrdcached.pid", "-w", "3600", "-f", "7200"}})
	n.Must(err)
	n.Eventually("rrdcached answers", func() error { _, err := askRRDCached(n, "STATS"); return err })
	return p
}

// askRRDCached makes a request of the node's rrdcached and gives the lines of the
// answer. rrdcached(1), PROTOCOL.
func askRRDCached(n *node, request string) (lines []string, err error) {
	conn, err := net.DialTimeout("unix", n.Host.Path(rrdSocket), time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(testutil.Patience)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(conn, request); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	for more := 1; more > 0; more-- {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if lines == nil {
			status, text, _ := strings.Cut(line, " ")
			if more, err = strconv.Atoi(status); err != nil || more < 0 {
				return nil, fmt.Errorf("rrdcached: %s: %s", request, text)
			}
			more++
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines[1:], nil
}

// wantPending waits until rrdcached, and not yet the file, has the last sample of
// each file; then it has it write them.
func (r *rrdTest) wantPending(n *node) {
	n.T.Helper()
	files := rrdFiles(r.c)
	for _, file := range files {
		n.Eventually("rrdcached has the last sample of "+file, func() error {
			lines, err := askRRDCached(n, "PENDING "+filepath.Join(rrdDir, file))
			if err == nil && !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, fmt.Sprint(r.at, ":")) }) {
				err = fmt.Errorf("it has %q", lines)
			}
			return err
		})
	}
	got, err := newest(n, files)
	n.Must(err)
	for _, file := range files {
		if got[file] == r.at {
			n.T.Errorf("%s: %s was written past rrdcached", n, file)
		}
		_, err := askRRDCached(n, "FLUSH "+filepath.Join(rrdDir, file))
		n.Must(err)
	}
	r.wantFiles(n)
}

func (r *rrdTest) directory(c *cluster) {
	lacks := c.Node(3)
	for range 2 {
		r.send()
		r.wantFiles(c.Node(1))
		r.wantPending(c.Node(2))
	}
	wantSaid(lacks, 0, "RRD: nothing can be written", 1)
	if _, err := os.Stat(lacks.Host.Path(rrdDir)); err == nil {
		c.T.Error("the directory was made")
	}
	lacks.Must(os.Mkdir(lacks.Host.Path(rrdDir), 0o755))
	r.send()
	r.wantFiles(c.Node(1), lacks)
	r.wantPending(c.Node(2))
	wantSaid(lacks, 0, "RRD: the directory is there", 1)
	wantSaid(lacks, 0, "RRD: nothing can be written", 1)
	for _, n := range c.Nodes {
		for _, dir := range []string{"pve-node-9.0", "pve-vm-9.0", "pve-storage-9.0", "pve-storage-9.0/node1"} {
			if st, err := os.Stat(n.Host.Path(filepath.Join(rrdDir, dir))); err != nil || st.Mode().Perm() != 0o750 {
				c.T.Errorf("%s: %s: %v, %v", n, dir, st, err)
			}
		}
	}
}

// wantSaid waits until the daemon has logged a text so many times, not counting
// what was logged before, and checks that it is not more.
func wantSaid(n *node, before int, text string, times int) {
	n.T.Helper()
	n.Eventually(fmt.Sprintf("it says %q", text), func() error {
		if got := strings.Count(n.Log()[before:], text); got < times {
			return fmt.Errorf("%d times, want %d", got, times)
		}
		return nil
	})
	if got := strings.Count(n.Log()[before:], text); got != times {
		n.T.Errorf("%s: it says %d times %q, want %d", n, got, text, times)
	}
}

// info checks the files' sources and archives.
func (r *rrdTest) info(c *cluster) {
	sources := map[string]string{
		"pve-node-9.0": "loadavg maxcpu cpu iowait memtotal memused swaptotal swapused roottotal rootused netin/D netout/D " +
			"memavailable arcsize pressurecpusome pressureiosome pressureiofull pressurememorysome pressurememoryfull",
		"pve-vm-9.0": "maxcpu cpu maxmem mem maxdisk disk netin/D netout/D diskread/D diskwrite/D " +
			"memhost pressurecpusome pressurecpufull pressureiosome pressureiofull pressurememorysome pressurememoryfull",
		"pve-storage-9.0": "total used",
	}
	for _, n := range c.Nodes {
		for _, file := range rrdFiles(c) {
			out, err := rrdtool(n, "info", filepath.Join(rrdDir, file))
			n.Must(err)
			got := map[string]bool{}
			for line := range strings.Lines(out) {
				got[strings.TrimSpace(line)] = true
			}
			family, _, _ := strings.Cut(file, "/")
			want := []string{"step = 60"}
			names := strings.Fields(sources[family])
			for i, name := range names {
				name, derived := strings.CutSuffix(name, "/D")
				kind := "GAUGE"
				if derived {
					kind = "DERIVE"
				}
				want = append(want, fmt.Sprintf("ds[%s].index = %d", name, i), fmt.Sprintf("ds[%s].type = %q", name, kind),
					fmt.Sprintf("ds[%s].minimal_heartbeat = 120", name), fmt.Sprintf("ds[%s].max = NaN", name))
			}
			for i, rows := range []int{1440, 1440, 1440, 570, 1440, 1440, 1440, 570} {
				cf := []string{"AVERAGE", "MAX"}[i/4]
				want = append(want, fmt.Sprintf("rra[%d].cf = %q", i, cf), fmt.Sprintf("rra[%d].rows = %d", i, rows),
					fmt.Sprintf("rra[%d].pdp_per_row = %d", i, []int{1, 30, 360, 10080}[i%4]))
			}
			for _, line := range want {
				if !got[line] {
					c.T.Errorf("%s: %s: no %q in\n%s", n, file, line, out)
					break
				}
			}
			if sources, archives := strings.Count(out, ".index = "), strings.Count(out, ".pdp_per_row = "); sources != len(names) || archives != 8 {
				c.T.Errorf("%s: %s: %d sources, %d archives", n, file, sources, archives)
			}
		}
	}
}

// fetch checks that a minute between two samples is in the archives on all nodes.
func (r *rrdTest) fetch(c *cluster) {
	r.send()
	r.wantFiles(c.Node(1), c.Node(3))
	r.wantPending(c.Node(2))
	for _, n := range c.Nodes {
		for _, file := range rrdFiles(c) {
			for _, cf := range []string{"AVERAGE", "MAX"} {
				out, err := rrdtool(n, "fetch", filepath.Join(rrdDir, file), cf, "-s", fmt.Sprint(r.at-60), "-e", fmt.Sprint(r.at-1))
				n.Must(err)
				var row []string
				for line := range strings.Lines(out) {
					if f := strings.Fields(line); len(f) > 0 && f[0] == fmt.Sprint(r.at, ":") {
						row = f[1:]
					}
				}
				if len(row) < 2 {
					c.T.Errorf("%s: %s: no row of %d in\n%s", n, file, r.at, out)
					continue
				}
				for i, want := range []float64{1.5, 2.5} {
					if got, err := strconv.ParseFloat(row[i], 64); err != nil || got != want {
						c.T.Errorf("%s: %s: %s of source %d is %s, want %v", n, file, cf, i, row[i], want)
					}
				}
				// An old format lacks the newest sources: unknown.
				if known := !strings.HasSuffix(file, "/node3") && !strings.HasSuffix(file, "/103"); !strings.HasPrefix(file, "pve-storage") && !strings.HasSuffix(row[len(row)-1], "nan") != known {
					c.T.Errorf("%s: %s: the last source is %s", n, file, row[len(row)-1])
				}
			}
		}
	}
}

func (r *rrdTest) rrdcachedDies(c *cluster, cached *lab.Process) *lab.Process {
	n := c.Node(2)
	for _, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		before := len(n.Log())
		n.Must(cached.Signal(end))
		<-cached.Done()
		for range 2 {
			r.send()
			r.wantFiles(c.Nodes...)
		}
		wantSaid(n, before, "RRD: rrdcached does not answer", 1)
		cached = startRRDCached(n)
		n.Eventually("samples go through rrdcached again", func() error {
			r.send()
			if !strings.Contains(n.Log()[before:], "rrdcached answers again") {
				return errors.New("it doesn't say so")
			}
			return nil
		})
		r.send()
		r.wantPending(n)
		r.wantFiles(c.Nodes...)
		wantSaid(n, before, "RRD: rrdcached does not answer", 1)
	}
	return cached
}

// restart has rrdcached hang, as on a hung disk, and restarts all daemons.
func (r *rrdTest) restart(c *cluster, cached *lab.Process) {
	n := c.Node(2)
	n.Must(cached.Signal(syscall.SIGSTOP))
	for range 2 {
		r.send()
		r.wantFiles(c.Nodes...)
	}
	n.Stop() // in time, nevertheless
	n.Must(cached.Signal(syscall.SIGCONT))
	n.Start()
	c.Node(1).Kill()
	c.Node(1).Start()
	c.WantTogether(c.Nodes...)
	r.send()
	r.wantPending(n)
	r.wantFiles(c.Nodes...)
}

// wantOthers waits until the nodes but n have the last samples.
func (r *rrdTest) wantOthers(n *node) {
	r.c.T.Helper()
	for _, o := range r.c.Nodes {
		switch o.Host.ID() {
		case n.Host.ID():
		case 2:
			r.wantPending(o)
		default:
			r.wantFiles(o)
		}
	}
}

// fullDisk has a node's files on a small disk that something else fills. want waits until that
// node has the last samples.
func (r *rrdTest) fullDisk(n *node, want func()) {
	_, err := n.Host.Exec(n.T.Context(), "mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", rrdDir)
	n.Must(err)
	junk := n.Host.Path(rrdDir + "/junk")
	fill := func() {
		n.T.Helper()
		f, err := os.Create(junk)
		n.Must(err)
		block := make([]byte, 64<<10)
		for err == nil {
			_, err = f.Write(block)
		}
		n.Must(f.Close())
	}
	fill()
	before := len(n.Log())
	for range 3 {
		r.send()
		r.wantOthers(n)
	}
	n.Eventually("it says that there is no room", func() error {
		if !strings.Contains(n.Log()[before:], "no space left") {
			return fmt.Errorf("log: %s", n.Log()[before:])
		}
		return nil
	})
	if said := strings.Count(n.Log()[before:], "no space left"); said > 3 { // once for each family
		n.T.Errorf("it says %d times that there is no room", said)
	}
	for _, file := range rrdFiles(r.c) {
		if st, err := os.Stat(n.Host.Path(filepath.Join(rrdDir, file))); err == nil {
			n.T.Errorf("a half file is left: %s, %d bytes", file, st.Size())
		}
	}
	n.Must(os.Remove(junk))
	r.send()
	r.wantOthers(n)
	want()
	// What is there goes on, full or not.
	fill()
	r.send()
	want()
	n.Must(os.Remove(junk))
	r.send()
	want()
}

// directoryGoes has node 2's directory go while rrdcached runs, and come back.
func (r *rrdTest) directoryGoes(c *cluster) {
	n := c.Node(2)
	_, err := n.Host.Exec(n.T.Context(), "umount", "-l", rrdDir)
	n.Must(err)
	dir := n.Host.Path(rrdDir)
	n.Must(os.Rename(dir, dir+".away"))
	before := len(n.Log())
	for range 3 {
		r.send()
		r.wantOthers(n)
	}
	wantSaid(n, before, "RRD: nothing can be written", 1)
	n.Must(os.Rename(dir+".away", dir))
	r.send()
	r.wantPending(n)
	wantSaid(n, before, "RRD: the directory is there", 1)
}
