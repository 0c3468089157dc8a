package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmxcfs/contrib/bench/floor"
	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

// The parts that this program plays when it starts itself again.
const (
	partInside = "inside-namespaces" // the benchmark proper
	partFS     = "floor-fs"
	partSQLite = "floor-sqlite"
	partClient = "client"

	partMember   = "floor-member"
	partMessages = "floor-messages"
	partEcho     = "floor-echo"
	partSeen     = "visible"
	partReader   = "reader"
	partRequests = "requests"
)

// The parts that -parts names.
const (
	partLocal   = "local"
	partRows    = "sqlite"
	partMemory  = "memory"
	partCluster = "cluster"
	partVisible = "visible"
	partJoin    = "join"
	partIPC     = "ipc"
	partCost    = "metrics"
)

var allParts = []string{partLocal, partRows, partMemory, partCluster, partVisible, partJoin, partIPC, partCost}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	part := ""
	if len(args) > 0 {
		part = args[0]
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch part {
	case partFS:
		if len(args) != 3 {
			return errors.New("usage: floor-fs DIR VERSION")
		}
		return floor.ServeFS(ctx, args[1], []byte(args[2]))
	case partSQLite:
		return floor.RunSQLite(stdin, stdout)
	case partClient:
		return load.Serve(stdin, stdout)
	case partMember:
		return floor.ServeCPG(ctx)
	case partMessages:
		return floor.RunCPG(stdin, stdout)
	case partEcho:
		if len(args) != 2 {
			return errors.New("usage: floor-echo NAME")
		}
		return floor.ServeEcho(args[1])
	case partSeen:
		return load.ServeVisible(stdin, stdout)
	case partReader:
		return load.ServeReader(stdin, stdout)
	case partRequests:
		return load.ServeRequests(stdin, stdout)
	case partInside:
		if len(args) < 2 {
			return errors.New("usage: inside-namespaces DIR FLAGS")
		}
		c, err := parse(args[2:], stderr)
		if err != nil {
			return err
		}
		c.dir, c.progress = args[1], stderr
		if err := enterNamespaces(); err != nil {
			return err
		}
		return c.benchmark(ctx, stdout)
	}
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	return isolate(ctx, c, args, stdout, stderr)
}

// config is what the command line says.
type config struct {
	daemon   string // its program
	self     string // this program
	parts    []string
	ops      []string
	clients  []int
	rounds   int
	time     time.Duration // of each measurement
	warm     time.Duration
	shared   bool
	quick    bool
	against  string // options of a second daemon in the floor's place; empty means none
	rival    string // another program that is measured beside the daemon; empty means none
	writes   time.Duration
	idle     time.Duration
	trees    string // part of the names of those to look at; empty means all
	json     string // file to write; empty means none
	tempDir  string
	dir      string // below tempDir, this run's own
	progress io.Writer
}

func parse(args []string, stderr io.Writer) (*config, error) {
	c := &config{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.daemon, "pmxcfs", "bin/pmxcfs", "the daemon's `program`")
	names := flags.String("ops", strings.Join(load.Ops(), ","), "operations to measure, by comma")
	clients := flags.String("clients", "1,8", "numbers of clients, by comma")
	flags.IntVar(&c.rounds, "rounds", 3, "rounds of each measurement; the median counts")
	flags.DurationVar(&c.time, "time", time.Second, "time of each measurement")
	flags.BoolVar(&c.shared, "shared", false, "let all clients work in one directory, where the kernel serialises them; otherwise each has its own")
	flags.BoolVar(&c.quick, "quick", false, "a short run that shows that everything works; its figures mean nothing. It sets the rounds and times that are not given")
	flags.StringVar(&c.against, "against", "", "measure the parts local and cluster beside another pmxcfs `program`; or, if this begins with a dash, the part local beside a second daemon with these options, as --no-metrics; goals are not judged then")
	parts := flags.String("parts", "", "what to measure, by comma; with -against local,cluster, otherwise "+strings.Join(allParts, ","))
	flags.DurationVar(&c.writes, "writes", 20*time.Second, "how long to write without pause, for the memory afterwards")
	flags.DurationVar(&c.idle, "idle", 6*time.Second, "how long to wait before idle memory is read")
	flags.StringVar(&c.trees, "trees", "", "look only at trees whose name contains this, for memory and start-up time")
	flags.StringVar(&c.json, "json", "", "write everything to this `file`, too")
	flags.StringVar(&c.tempDir, "dir", os.TempDir(), "where to put the databases and mount points; must not be a tmpfs")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if c.quick {
		c.shorten(flags)
	}
	c.warm = c.time / 5
	if *parts == "" {
		if *parts = strings.Join(allParts, ","); c.against != "" {
			*parts = partLocal + "," + partCluster
		}
	}
	c.parts, c.ops = strings.Split(*parts, ","), strings.Split(*names, ",")
	for _, name := range c.parts {
		if !slices.Contains(allParts, name) {
			return nil, fmt.Errorf("there is no part %q; there are %s", name, strings.Join(allParts, ", "))
		}
	}
	for _, name := range c.ops {
		if !slices.Contains(load.Ops(), name) {
			return nil, fmt.Errorf("there is no operation %q; there are %s", name, strings.Join(load.Ops(), ", "))
		}
	}
	for s := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 256 {
			return nil, fmt.Errorf("%q is not a number of clients", s)
		}
		c.clients = append(c.clients, n)
	}
	if c.against != "" && !strings.HasPrefix(c.against, "-") {
		c.rival, c.against = c.against, ""
	}
	if c.against != "" && !slices.Equal(c.parts, []string{partLocal}) {
		return nil, errors.New("-against with options is for -parts local")
	}
	if c.rival != "" && slices.ContainsFunc(c.parts, func(p string) bool { return p != partLocal && p != partCluster }) {
		return nil, errors.New("-against is for -parts local,cluster")
	}
	if c.rounds < 1 || c.time <= 0 {
		return nil, errors.New("-rounds and -time must be positive")
	}
	// Hosts have another working directory.
	var err error
	if c.daemon, err = filepath.Abs(c.daemon); err != nil {
		return nil, err
	}
	if c.rival != "" {
		if c.rival, err = filepath.Abs(c.rival); err != nil {
			return nil, err
		}
	}
	if c.self, err = selfPath(); err != nil {
		return nil, err
	}
	return c, nil
}

// shorten makes a quick run of it, but for what the command line says.
func (c *config) shorten(flags *flag.FlagSet) {
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["rounds"] {
		c.rounds = 1
	}
	for name, d := range map[string]struct {
		to    *time.Duration
		value time.Duration
	}{
		"time":   {&c.time, 30 * time.Millisecond},
		"writes": {&c.writes, 200 * time.Millisecond},
		"idle":   {&c.idle, 10 * time.Millisecond},
	} {
		if !given[name] {
			*d.to = d.value
		}
	}
}

func (c *config) has(part string) bool { return slices.Contains(c.parts, part) }

// benchmark runs everything and reports.
func (c *config) benchmark(ctx context.Context, stdout io.Writer) error {
	r := &report.Report{Machine: report.ThisMachine()}
	cpu := startCPUMeter()
	type step struct {
		parts []string
		run   func(context.Context, *report.Report) error
	}
	steps := []step{
		{[]string{partLocal}, c.operations},
		{[]string{partRows}, c.transactions},
		{[]string{partCluster, partVisible, partJoin}, c.inCluster},
		{[]string{partIPC}, c.requestRates},
		{[]string{partCost}, c.metricsCost},
		{[]string{partMemory}, c.memoryOfTrees},
	}
	if c.rival != "" {
		steps = []step{{[]string{partLocal}, c.besideRival}, {[]string{partCluster}, c.besideRivalInCluster}}
	}
	for _, step := range steps {
		if !slices.ContainsFunc(step.parts, c.has) {
			continue
		}
		if err := step.run(ctx, r); err != nil {
			return err
		}
	}
	r.Machine.Took, r.Machine.Others = cpu.stop()
	r.Machine.Rounds = c.rounds
	if !c.quick && c.against == "" && c.rival == "" {
		r.Judge()
	}
	if c.json != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.json, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	return r.WriteTables(stdout)
}

func (c *config) say(format string, args ...any) { fmt.Fprintf(c.progress, format+"\n", args...) }
