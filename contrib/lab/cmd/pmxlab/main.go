// Command pmxlab brings up a lab of corosync hosts for work by hand, and takes
// orders on standard input until that ends.
//
//	pmxlab [-token 1s] [-no-corosync] [-fair] [-idle N] N
//
// Each order is one line; "help" lists them. A shell on a host from another
// terminal: the nsenter line that "hosts" prints.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmxcfs/contrib/lab"
)

const help = `hosts                      each host's directory, state, and how to enter it
exec I CMD...              run a command on host I, through sh
start I CMD...             the same in the background, with a log file
corosync I start|stop|kill
crash I                    kill everything on host I
cut I                      unplug host I
split 1,2 3                divide the network into sides
heal                       plug all in again
wait                       until all hosts are quorate (60 s)
quit                       (or end of input) take the lab down
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pmxlab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	fs := flag.NewFlagSet("pmxlab", flag.ContinueOnError)
	fs.SetOutput(out)
	var opts lab.Options
	fs.DurationVar(&opts.Token, "token", time.Second, "totem token timeout")
	fs.BoolVar(&opts.NoCorosync, "no-corosync", false, "do not start corosync")
	fs.BoolVar(&opts.Fair, "fair", false, "run corosync without real-time priority")
	fs.IntVar(&opts.Idle, "idle", 0, "token rotations without a message before the token is held (0: corosync's own 30)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if opts.Hosts, err = strconv.Atoi(fs.Arg(0)); err != nil || fs.NArg() != 1 {
		return errors.New("usage: pmxlab [-token 1s] [-no-corosync] [-fair] [-idle N] N")
	}
	l, err := lab.Up(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()

	lines := make(chan string)
	go func() { // ends with the process: a read can't be called off
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	fmt.Fprintf(out, "%d hosts below %s; \"help\" lists the orders\n", opts.Hosts, l.Dir())
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			f := strings.Fields(line)
			switch {
			case !ok || len(f) == 1 && f[0] == "quit":
				return nil
			case len(f) == 0:
				continue
			}
			if err := order(ctx, l, f, out); err != nil {
				fmt.Fprintln(out, "error:", err)
			}
		}
	}
}

func order(ctx context.Context, l *lab.Lab, f []string, out io.Writer) error {
	switch f[0] {
	case "help":
		_, err := io.WriteString(out, help)
		return err
	case "hosts":
		for _, h := range l.Hosts() {
			state := "no corosync"
			if q, err := h.Quorum(ctx); err == nil {
				state = fmt.Sprintf("quorate: %v, members %v", q.Quorate, q.Members)
			}
			fmt.Fprintf(out, "%s  %s  %s\n       nsenter -t %d -m -n -u -p bash\n", h.Name(), h.Dir(), state, h.Pid())
		}
		return nil
	case "heal":
		return l.Heal()
	case "wait":
		ctx, cancel := context.WithTimeout(ctx, lab.QuorumTimeout)
		defer cancel()
		return l.WaitQuorum(ctx)
	case "split":
		var sides [][]int
		for _, list := range f[1:] {
			var side []int
			for _, s := range strings.Split(list, ",") {
				n, err := strconv.Atoi(s)
				if err != nil {
					return err
				}
				side = append(side, n)
			}
			sides = append(sides, side)
		}
		return l.Split(sides...)
	}
	// The others are about one host.
	if len(f) < 2 {
		return fmt.Errorf("%s: not understood; see help", f[0])
	}
	i, err := strconv.Atoi(f[1])
	if err != nil || i < 1 || i > len(l.Hosts()) {
		return fmt.Errorf("no host %q", f[1])
	}
	h, rest := l.Host(i), strings.Join(f[2:], " ")
	switch f[0] + " " + rest {
	case "cut ":
		return l.Cut(i)
	case "crash ":
		return h.Crash()
	case "corosync start":
		return h.StartCorosync()
	case "corosync stop":
		return h.StopCorosync()
	case "corosync kill":
		return h.KillCorosync()
	}
	switch {
	case f[0] == "exec" && rest != "":
		text, err := h.Exec(ctx, "sh", "-c", rest)
		if _, werr := out.Write(text); err == nil {
			err = werr
		}
		return err
	case f[0] == "start" && rest != "":
		p, err := h.Start(lab.Spec{Args: []string{"sh", "-c", "exec " + rest}})
		if err == nil {
			fmt.Fprintf(out, "pid %d, on the host %d, log %s\n", p.Pid(), p.HostPid(), p.LogFile())
		}
		return err
	}
	return fmt.Errorf("%s: not understood; see help", strings.Join(f, " "))
}
