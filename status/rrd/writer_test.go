package rrd

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines gives the lines so far, and forgets them.
func (l *logBuffer) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := strings.TrimSpace(l.b.String())
	l.b.Reset()
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// testWriter is a Writer on a temporary directory, with its clock and log.
type testWriter struct {
	*Writer
	t     *testing.T
	dir   string
	clock *fakeClock
	log   *logBuffer
}

func newTestWriter(t *testing.T, cfg Config, lib library) *testWriter {
	t.Helper()
	w := &testWriter{t: t, clock: newFakeClock(), log: &logBuffer{}}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	w.dir = cfg.Dir
	w.clock.now = w.clock.now.In(time.FixedZone("test", 5*3600+1800))
	cfg.Now, cfg.Logger = w.clock.Now, w.log.logger()
	var err error
	if w.Writer, err = newWriter(cfg, lib); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return w
}

// write submits samples of key and value, alternating, and waits for them.
func (w *testWriter) write(keyValues ...string) {
	w.t.Helper()
	for i := 0; i < len(keyValues); i += 2 {
		if !w.Submit(keyValues[i], keyValues[i+1]) {
			w.t.Fatalf("%s dropped", keyValues[i])
		}
	}
	w.flush()
}

func (w *testWriter) flush() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := w.Flush(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// wantLog compares the log lines since the last call: each must match its
// regular expression.
func (w *testWriter) wantLog(patterns ...string) {
	w.t.Helper()
	lines := w.log.lines()
	ok := len(lines) == len(patterns)
	for i := 0; ok && i < len(lines); i++ {
		ok = regexp.MustCompile(patterns[i]).MatchString(lines[i])
	}
	if !ok {
		w.t.Errorf("logged\n\t%s\nwant\n\t%s", strings.Join(lines, "\n\t"), strings.Join(patterns, "\n\t"))
	}
}

// wantLogInAnyOrder is wantLog for lines of samples that may have been written in one batch or
// in several.
func (w *testWriter) wantLogInAnyOrder(patterns ...string) {
	w.t.Helper()
	lines := w.log.lines()
	left := slices.Clone(patterns)
	for _, line := range lines {
		i := slices.IndexFunc(left, func(p string) bool { return regexp.MustCompile(p).MatchString(line) })
		if i < 0 {
			left = append(left, "and not "+line)
			break
		}
		left = slices.Delete(left, i, i+1)
	}
	if len(left) > 0 {
		w.t.Errorf("logged\n\t%s\nwant, in any order,\n\t%s", strings.Join(lines, "\n\t"), strings.Join(patterns, "\n\t"))
	}
}

// rrdtool runs rrdtool(1).
func rrdtool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("rrdtool", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("rrdtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// lastUpdate is the newest sample of a file: "time: value value ...".
func lastUpdate(t *testing.T, file string) string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(rrdtool(t, "lastupdate", file)), "\n")
	return lines[len(lines)-1]
}

// tree lists the files below dir.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

const (
	vmValue      = "10:name:running:0:1795251030:1:0.5:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17"
	storageValue = "1795251031:1000:500"
)

func TestFilesHaveTheSpecifiedSourcesAndArchives(t *testing.T) {
	w := newTestWriter(t, Config{}, librrd{})
	w.write(recordedKey, recordedValue, "pve-vm-9.0/100", vmValue, "pve-storage-9.0/node1/local", storageValue)
	w.wantLog()
	if got, want := tree(t, w.dir), []string{"pve-node-9.0/node2", "pve-storage-9.0/node1/local", "pve-vm-9.0/100"}; !slices.Equal(got, want) {
		t.Fatalf("files %v, want %v", got, want)
	}
	// The specification's lists, apart from the code's own table.
	sources := map[string]string{
		"pve-node-9.0/node2": "loadavg maxcpu cpu iowait memtotal memused swaptotal swapused roottotal rootused netin/D netout/D " +
			"memavailable arcsize pressurecpusome pressureiosome pressureiofull pressurememorysome pressurememoryfull",
		"pve-vm-9.0/100": "maxcpu cpu maxmem mem maxdisk disk netin/D netout/D diskread/D diskwrite/D " +
			"memhost pressurecpusome pressurecpufull pressureiosome pressureiofull pressurememorysome pressurememoryfull",
		"pve-storage-9.0/node1/local": "total used",
	}
	for file, names := range sources {
		t.Run(file, func(t *testing.T) {
			var want []string
			for i, name := range strings.Fields(names) {
				name, derived := strings.CutSuffix(name, "/D")
				typ := "GAUGE"
				if derived {
					typ = "DERIVE"
				}
				want = append(want,
					fmt.Sprintf("ds[%s].index = %d", name, i),
					fmt.Sprintf("ds[%s].type = %q", name, typ),
					fmt.Sprintf("ds[%s].minimal_heartbeat = 120", name),
					fmt.Sprintf("ds[%s].min = 0.0000000000e+00", name),
					fmt.Sprintf("ds[%s].max = NaN", name))
			}
			i := 0
			for _, cf := range []string{"AVERAGE", "MAX"} {
				for _, a := range [][2]int{{1, 1440}, {30, 1440}, {360, 1440}, {10080, 570}} {
					want = append(want,
						fmt.Sprintf("rra[%d].cf = %q", i, cf),
						fmt.Sprintf("rra[%d].rows = %d", i, a[1]),
						fmt.Sprintf("rra[%d].pdp_per_row = %d", i, a[0]),
						fmt.Sprintf("rra[%d].xff = 5.0000000000e-01", i))
					i++
				}
			}
			want = append(want, "step = 60")
			var got []string
			kept := regexp.MustCompile(`^(step =|ds\[\w+\]\.(index|type|minimal_heartbeat|min|max) =|rra\[\d+\]\.(cf|rows|pdp_per_row|xff) =)`)
			for line := range strings.Lines(rrdtool(t, "info", filepath.Join(w.dir, file))) {
				if kept.MatchString(line) {
					got = append(got, strings.TrimSpace(line))
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("rrdtool info:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestFilesBeginAtTheLocalMidnight(t *testing.T) {
	w := newTestWriter(t, Config{}, librrd{})
	// 00:10 in the clock's zone, so UTC is still in the day before.
	midnight := time.Date(2026, 11, 21, 0, 0, 0, 0, w.clock.now.Location())
	w.clock.mu.Lock()
	w.clock.now = midnight.Add(10 * time.Minute)
	w.clock.mu.Unlock()
	// Refused by the new file as too old: its beginning stays to be seen.
	w.write("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:2", midnight.Unix()))
	w.wantLog(`cannot write a sample.*illegal attempt`)
	want := fmt.Sprintf("last_update = %d\n", midnight.Unix())
	if info := rrdtool(t, "info", filepath.Join(w.dir, "pve-storage-9.0/n/s")); !strings.Contains(info, want) {
		t.Errorf("%s, want %s", info, want)
	}
	w.write("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:2", midnight.Unix()+1))
	w.wantLog(`works again`)
}

func TestDirectoriesAreForTheGroupOnly(t *testing.T) {
	w := newTestWriter(t, Config{}, librrd{})
	w.write("pve-storage-9.0/node1/local", storageValue)
	for _, dir := range []string{"pve-storage-9.0", "pve-storage-9.0/node1"} {
		info, err := os.Stat(filepath.Join(w.dir, dir))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != fs.ModeDir|0o750 {
			t.Errorf("%s has mode %v", dir, info.Mode())
		}
	}
}

func TestSamplesOfAllFormatsAreWritten(t *testing.T) {
	w := newTestWriter(t, Config{}, librrd{})
	w.write(
		recordedKey, recordedValue,
		"pve2-node/old", "1:2:1795251040:1:2:3:4:5:6:7:8:9:10:11:12",
		"pve-node-10.2/new", "1:2:1795251050:1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20:21",
		"pve2.3-vm/101", "10:name:running:0:1795251060:1:2:3:4:5:6:7:8:9:10",
		"pve2-storage/n/s", "1795251070:5:3",
	)
	w.wantLog()
	for file, want := range map[string]string{
		"pve-node-9.0/node2":  "1795251028: 0.5 4 0.1 0.01 8000 4000 1000 10 50000 20000 100 200 3000 0 0.1 0.2 0.3 0.4 0.5",
		"pve-node-9.0/old":    "1795251040: 1 2 3 4 5 6 7 8 9 10 11 12 U U U U U U U",
		"pve-node-9.0/new":    "1795251050: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19",
		"pve-vm-9.0/101":      "1795251060: 1 2 3 4 5 6 7 8 9 10 U U U U U U U",
		"pve-storage-9.0/n/s": "1795251070: 5 3",
	} {
		if got := lastUpdate(t, filepath.Join(w.dir, file)); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	if s := w.Stats(); s.Direct != 5 || s.Created != 5 || s.Cached+s.Failed+s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

func TestSamplesAreFoundInTheArchive(t *testing.T) {
	w := newTestWriter(t, Config{}, librrd{})
	const start = 1795251000 // a multiple of 60
	for i := 1; i <= 20; i++ {
		w.write("pve-storage-9.0/n/s", fmt.Sprintf("%d:1000:%d", start+10*i, 10*i))
	}
	out := rrdtool(t, "fetch", filepath.Join(w.dir, "pve-storage-9.0/n/s"), "AVERAGE", "-s", fmt.Sprint(start+60), "-e", fmt.Sprint(start+120))
	// From 60 to 120 s the values 70, 80 … 120, each for 10 s.
	if want := fmt.Sprintf("%d: 1.0000000000e+03 9.5000000000e+01", start+120); !strings.Contains(out, want) {
		t.Errorf("%s\nwant %s", out, want)
	}
}

func TestHostileKeysTouchNothing(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "db")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := newTestWriter(t, Config{Dir: dir}, librrd{})
	keys := []string{
		"pve-node-9.0/../../escaped", "../escaped", "/escaped", "pve-storage-9.0/../escaped", "pve-storage-9.0/../../escaped",
		"pve-node-9.0/a\nFORGET b", "pve-vm-9.0/..", "pve-node-9.0", "unknown/x",
	}
	for range 2 {
		for _, key := range keys {
			w.write(key, recordedValue)
		}
	}
	w.wantLog(slices.Repeat([]string{"not a key of an RRD file"}, len(keys))...) // once each
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if files := tree(t, parent); len(files) != 0 {
		t.Errorf("made %v", files)
	}
	if s := w.Stats(); s.Failed != uint64(2*len(keys)) {
		t.Errorf("%+v", s)
	}
}

func TestTroubleOfAKeyIsLoggedOnceAndAgainWhenItChanges(t *testing.T) {
	w := newTestWriter(t, Config{}, librrd{})
	const key = "pve-storage-9.0/n/s"
	w.write(key, "1795251031:1:2")
	w.wantLog()
	w.write(key, "1795251031:1:2", key, "1795251030:1:2", key, "1795251029:1:2")
	w.wantLog(`key=pve-storage-9.0/n/s.*illegal attempt`)
	w.write(key, "garbage")
	w.wantLog(`malformed value`)
	w.write(key, "garbage")
	w.wantLog()
	w.write(key, "1795251032:1:2")
	w.wantLog(`works again.*key=pve-storage-9.0/n/s`)
	w.write(key, "1795251032:1:2")
	w.wantLog(`illegal attempt`)
}

func TestTroublesOfManyKeysAreNotLoggedWithoutBound(t *testing.T) {
	w := newTestWriter(t, Config{}, librrd{})
	for i := range 3 * maxTroubles {
		w.Submit(fmt.Sprintf("bad%d", i), "1")
	}
	w.flush()
	if n := len(w.log.lines()); n != maxTroubles+1 {
		t.Errorf("%d lines", n)
	}
	// Those are forgotten when they do not occur any more.
	w.clock.advance(troubleKeptFor + time.Second)
	w.write("bad again", "1")
	w.wantLog(`bad again`)
}

func TestMissingDirectoryIsLoggedOnceAndUsedWhenItAppears(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	w := newTestWriter(t, Config{Dir: dir}, librrd{})
	for range 3 {
		w.write(recordedKey, recordedValue, "pve-vm-9.0/100", vmValue)
	}
	w.wantLog(`nothing can be written.*no directory`)
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made")
	}
	if s := w.Stats(); s.Failed != 6 {
		t.Errorf("%+v", s)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.write(recordedKey, recordedValue)
	w.wantLog(`the directory is there`)
	if got := tree(t, dir); !slices.Equal(got, []string{recordedKey}) {
		t.Errorf("%v", got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.write(recordedKey, recordedValue)
	w.wantLog(`nothing can be written.*is none`)
}

// spoil puts files in the place of those of guests 100 and up: what is damaged, what
// is of the future (with a last sample after their clock), and what is neither.
func (w *testWriter) spoil() {
	w.t.Helper()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	parent := filepath.Join(w.dir, "pve-vm-9.0")
	must(os.MkdirAll(parent, 0o755))
	for name, content := range map[string]string{"100": "", "101": "RRD\x000003\x00", "102": strings.Repeat("x", 1<<16)} {
		must(os.WriteFile(filepath.Join(parent, name), []byte(content), 0o644))
	}
	must(os.Mkdir(filepath.Join(parent, "103"), 0o755))
	var vm *family
	for _, f := range families() {
		if f.guest {
			vm = f
		}
	}
	future := filepath.Join(parent, "105")
	must(librrd{}.create(future, step, w.clock.Now().Add(24*time.Hour), vm.definitions()))
	foreign := filepath.Join(parent, "106")
	must(librrd{}.create(foreign, step, w.clock.Now().Add(-time.Hour), append(vm.definitions(), "DS:c:COMPUTE:maxcpu,2,*")))
}

func TestFilesThatTakeNoSampleAreSetAsideAndBegunAnew(t *testing.T) {
	for _, through := range []string{"directly", "through rrdcached"} {
		t.Run(through, func(t *testing.T) {
			settled := true
			cfg := Config{Dir: t.TempDir(), settled: func() bool { return settled }}
			if through != "directly" {
				cfg.Socket = filepath.Join(t.TempDir(), "socket")
				startDaemon(t, cfg.Socket, cfg.Dir)
			}
			w := newTestWriter(t, cfg, librrd{})
			w.spoil()
			parent := filepath.Join(w.dir, "pve-vm-9.0")
			aside := func(name string) int64 {
				info, err := os.Lstat(filepath.Join(parent, name+asideSuffix))
				if err != nil {
					return -1
				}
				return info.Size()
			}
			submit := func() {
				for _, name := range []string{"100", "101", "102", "104", "105"} {
					w.write("pve-vm-9.0/"+name, vmValue)
				}
			}
			// While the clock may be wrong, what it calls the future may be the past.
			settled = false
			w.write("pve-vm-9.0/105", vmValue)
			w.wantLog(`key=pve-vm-9.0/105`)
			if n := aside("105"); n != -1 {
				t.Errorf("set aside by a clock that is not settled: %d bytes", n)
			}
			settled = true
			submit()
			w.wantLog(`replaced by a new one.*/100`, `replaced by a new one.*/101`, `replaced by a new one.*/102`, `replaced by a new one.*/105`, `works again.*/105`)
			if s := w.Stats(); s.Direct+s.Cached != 5 || s.Failed != 1 || s.Renewed != 4 {
				t.Errorf("%+v", s)
			}
			if aside("100") != -1 || aside("101") != 9 || aside("102") != 1<<16 || aside("104") != -1 || aside("105") < 1<<16 {
				t.Errorf("set aside: %d, %d, %d, %d, %d bytes", aside("100"), aside("101"), aside("102"), aside("104"), aside("105"))
			}
			// They take samples from then on.
			w.clock.advance(time.Minute)
			later := strings.Replace(vmValue, "1795251030", fmt.Sprint(testNow.Unix()+60), 1)
			for _, name := range []string{"100", "101", "102", "104", "105"} {
				w.write("pve-vm-9.0/"+name, later)
			}
			w.wantLog()
			// What is no damaged file stays as it is.
			w.write("pve-vm-9.0/103", later, "pve-vm-9.0/106", later)
			if through == "directly" {
				w.wantLog(`/103`, `/106`)
			} else {
				w.wantLog(`/103`) // rrdcached knows how to write the other
			}
			if aside("103") != -1 || aside("106") != -1 {
				t.Error("set aside: 103 or 106")
			}
			// What was set aside is replaced by the next, so that it does not grow.
			if through == "directly" {
				if err := os.WriteFile(filepath.Join(parent, "101"), []byte("damaged again"), 0o644); err != nil {
					t.Fatal(err)
				}
				w.clock.advance(time.Minute)
				w.write("pve-vm-9.0/101", strings.Replace(later, fmt.Sprint(testNow.Unix()+60), fmt.Sprint(testNow.Unix()+120), 1))
				w.wantLog(`replaced by a new one.*/101`)
				if aside("101") != 13 {
					t.Errorf("%d bytes", aside("101"))
				}
			}
		})
	}
}

// TestFutureInRRDCachedsMemoryBlocksNoFile has rrdcached hold a sample of the future
// that is not in the file.
func TestFutureInRRDCachedsMemoryBlocksNoFile(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Socket: filepath.Join(t.TempDir(), "socket"), settled: func() bool { return true }}
	startDaemon(t, cfg.Socket, cfg.Dir)
	w := newTestWriter(t, cfg, librrd{})
	const key = "pve-storage-9.0/n/s"
	at := testNow.Unix()
	w.write(key, fmt.Sprintf("%d:1:2", at))
	w.clock.advance(365 * 24 * time.Hour) // a wrong clock
	w.write(key, fmt.Sprintf("%d:1:2", w.clock.Now().Unix()))
	w.clock.advance(-365*24*time.Hour + time.Minute)
	w.write(key, fmt.Sprintf("%d:1:2", at+60))
	w.clock.advance(time.Minute)
	w.write(key, fmt.Sprintf("%d:1:2", at+120))
	w.wantLog()
	if s := w.Stats(); s.Failed != 0 || s.Cached+s.Direct != 4 {
		t.Errorf("%+v", s)
	}
}

// stuckLibrary is a disk that hangs: updates wait until it is released, at the
// latest at the end of the test.
type stuckLibrary struct {
	librrd
	t       *testing.T
	entered chan struct{}
	stuck   chan struct{}
	release func()
}

func newStuckLibrary(t *testing.T) *stuckLibrary {
	l := &stuckLibrary{t: t, entered: make(chan struct{}, 1000), stuck: make(chan struct{})}
	l.release = sync.OnceFunc(func() { close(l.stuck) })
	return l
}

func (l *stuckLibrary) update(string, string) error {
	l.entered <- struct{}{}
	<-l.stuck
	return nil
}

// wait returns when an update hangs.
func (l *stuckLibrary) wait() {
	l.t.Helper()
	l.t.Cleanup(l.release)
	select {
	case <-l.entered:
	case <-time.After(time.Minute):
		l.t.Fatal("no update")
	}
}

func TestHangingDiskHoldsUpNobody(t *testing.T) {
	lib := newStuckLibrary(t)
	w := newTestWriter(t, Config{QueueLimit: 6}, lib)
	w.Submit("pve-storage-9.0/n/s", "1:1:1") // which is being written, and counts
	lib.wait()
	for i := range 5 {
		if !w.Submit("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:1", i+2)) {
			t.Fatalf("sample %d dropped", i)
		}
	}
	for range 3 {
		if w.Submit("pve-storage-9.0/n/s", "99:1:1") {
			t.Fatal("more is queued than the limit")
		}
	}
	w.wantLog("dropping some.*queued=6")
	if s := w.Stats(); s.Dropped != 3 || s.Queued != 6 {
		t.Errorf("%+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Flush(ctx); err != context.Canceled {
		t.Errorf("Flush: %v", err)
	}
	lib.release()
	w.flush()
	if s := w.Stats(); s.Direct != 6 || s.Queued != 0 {
		t.Errorf("after it came back: %+v", s)
	}
}

func TestTheLimitIsForWhatIsTakenToBeWrittenToo(t *testing.T) {
	lib := newStuckLibrary(t)
	const limit = 3 * batchSize
	w := newTestWriter(t, Config{QueueLimit: limit}, lib)
	taken := 0
	for i := range 3 * limit {
		if w.Submit("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:1", i+1)) {
			taken++
		}
		if i == limit/2 {
			lib.wait() // the goroutine has taken a part, or all so far
		}
	}
	if s := w.Stats(); taken != limit || s.Queued != limit {
		t.Errorf("%d are taken, %+v", taken, s)
	}
	lib.release()
	w.flush()
	if s := w.Stats(); s.Queued != 0 || s.Direct+s.Failed != limit {
		t.Errorf("afterwards: %+v", s)
	}
}

func TestCloseWritesWhatIsQueued(t *testing.T) {
	w := newTestWriter(t, Config{}, librrd{})
	w.clock.advance(time.Hour)
	for i := range 600 {
		w.Submit("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:%d", 1795251000+i, i))
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := lastUpdate(t, filepath.Join(w.dir, "pve-storage-9.0/n/s")); got != "1795251599: 1 599" {
		t.Errorf("%q", got)
	}
	if w.Submit("pve-storage-9.0/n/s", "1795252000:1:1") {
		t.Error("taken after Close")
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Errorf("Flush after Close: %v", err)
	}
}

func TestCloseDoesNotWaitForAHangingDiskForever(t *testing.T) {
	lib := newStuckLibrary(t)
	w := newTestWriter(t, Config{}, lib)
	for i := range 600 {
		w.Submit("pve-storage-9.0/n/s", fmt.Sprintf("%d:1:1", i+1))
	}
	lib.wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Close(ctx); err != context.Canceled {
		t.Errorf("Close: %v", err)
	}
	lib.release()
	<-w.done
	if s := w.Stats(); s.Dropped == 0 || s.Direct+s.Dropped != 600 {
		t.Errorf("%+v", s)
	}
}

func TestWriterIsConfiguredCompletely(t *testing.T) {
	good := Config{Dir: "/x", Now: time.Now, Logger: slog.Default()}
	for name, spoil := range map[string]func(*Config){
		"relative directory": func(c *Config) { c.Dir = "x" },
		"no directory":       func(c *Config) { c.Dir = "" },
		"line feed":          func(c *Config) { c.Dir = "/x\nFORGET" },
		"no clock":           func(c *Config) { c.Now = nil },
		"no logger":          func(c *Config) { c.Logger = nil },
	} {
		cfg := good
		spoil(&cfg)
		if w, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = w.Close(t.Context())
		}
	}
}
