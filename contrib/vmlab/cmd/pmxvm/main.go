// Command pmxvm boots Debian hosts for work by hand, and takes orders on standard
// input until that ends.
//
//	pmxvm N|RELEASE,... [PACKAGE.deb...]
//
// N hosts of Debian 13, or one of each release: "pmxvm trixie,trixie,bookworm". The
// packages are installed on every host. Each order is one line; "help" lists
// them. A shell on a host from another terminal: the nsenter line that "hosts"
// prints.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"pmxcfs/contrib/vmlab"
)

const help = `hosts                  each host's address, state, and how to enter it
exec I CMD...          run a command on host I, through sh
install I FILE...      install package files, with what they depend on
apt I ARG...           any other apt-get command
logs I [ARG...]        journalctl; without arguments of pve-cluster and corosync
reboot I               in good order; also: shutdown I, crash I, boot I
cluster [I...]         make hosts with pve-cluster one cluster; default: all
cut I                  unplug host I
heal                   plug all in again
quit                   (or end of input) take all down
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pmxvm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	usage := errors.New("usage: pmxvm N|RELEASE,... [PACKAGE.deb...]")
	if len(args) == 0 {
		return usage
	}
	suites := strings.Split(args[0], ",")
	if n, err := strconv.Atoi(args[0]); err == nil {
		suites = slices.Repeat([]string{vmlab.Trixie}, n)
	}
	l, err := vmlab.Up(ctx, vmlab.Options{Suites: suites, Log: out})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	if err := l.Boot(ctx); err != nil {
		return err
	}
	if len(args) > 1 {
		for _, h := range l.Hosts() {
			text, err := h.Install(ctx, args[1:])
			if err != nil {
				return fmt.Errorf("%w\n%s", err, text)
			}
		}
	}

	lines := make(chan string)
	go func() { // ends with the process: a read can't be called off
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	fmt.Fprintf(out, "%d hosts are up; \"help\" lists the orders\n", len(suites))
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
			text, err := order(ctx, l, f)
			fmt.Fprint(out, text)
			if err != nil {
				fmt.Fprintln(out, "error:", err)
			}
		}
	}
}

// order carries out one order and returns what there is to show.
func order(ctx context.Context, l *vmlab.Lab, f []string) (string, error) {
	switch f[0] {
	case "help":
		return help, nil
	case "hosts":
		return list(ctx, l), nil
	case "heal":
		return "", l.Heal()
	case "cluster":
		hosts, err := pick(l, f[1:])
		if err == nil && len(hosts) == 0 {
			hosts = l.Hosts()
		}
		if err == nil {
			err = l.Cluster(ctx, hosts...)
		}
		return "", err
	}
	// The others are about one host.
	if len(f) < 2 {
		return "", fmt.Errorf("%s: not understood; see help", f[0])
	}
	hosts, err := pick(l, f[1:2])
	if err != nil {
		return "", err
	}
	h, rest := hosts[0], f[2:]
	var text []byte
	switch f[0] {
	case "exec":
		text, err = h.Exec(ctx, "sh", "-c", strings.Join(rest, " "))
	case "install":
		text, err = h.Install(ctx, rest)
	case "apt":
		text, err = h.Apt(ctx, rest...)
	case "logs":
		if len(rest) == 0 {
			rest = []string{"-u", "pve-cluster", "-u", "corosync"}
		}
		text, err = h.Exec(ctx, append([]string{"journalctl", "--no-pager"}, rest...)...)
	case "reboot":
		err = h.Reboot(ctx)
	case "shutdown":
		err = h.Shutdown(ctx)
	case "crash":
		err = h.Crash(ctx)
	case "boot":
		err = h.Boot(ctx)
	case "cut":
		err = l.Cut(h.ID())
	default:
		err = fmt.Errorf("%s: not understood; see help", f[0])
	}
	return string(text), err
}

// pick gives the hosts with these numbers.
func pick(l *vmlab.Lab, numbers []string) ([]*vmlab.Host, error) {
	var hosts []*vmlab.Host
	for _, s := range numbers {
		i, err := strconv.Atoi(s)
		if err != nil || i < 1 || i > len(l.Hosts()) {
			return nil, fmt.Errorf("no host %q", s)
		}
		hosts = append(hosts, l.Host(i))
	}
	return hosts, nil
}

func list(ctx context.Context, l *vmlab.Lab) string {
	var b strings.Builder
	for _, h := range l.Hosts() {
		enter, err := h.Command(ctx, "bash", "-l")
		if err != nil {
			fmt.Fprintf(&b, "%s  %s  off\n", h.Name(), h.Address())
			continue
		}
		state := "all units well"
		if units, err := h.FailedUnits(ctx); err != nil {
			state = err.Error()
		} else if len(units) > 0 {
			state = "failed units: " + strings.Join(units, " ")
		}
		fmt.Fprintf(&b, "%s  %s  %s\n       %s\n", h.Name(), h.Address(), state, strings.Join(enter.Args, " "))
	}
	return b.String()
}
