package dfsmtest

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// Scenario runs a script and returns it with what happened. A script is a
// sequence of blocks: commands, one a line, then a line "----", then what
// happened, then an empty line. What stands after "----" in the input is
// ignored, so the output of one run, once looked at, is the expectation for
// the next. A line that begins with "#" is a comment.
//
//	hosts N [entries=K] [version=V]   N hosts, up, in one ring
//	start H…  kill H…                 the daemon of a host
//	boot H…   crash H…                the host
//	rings 1,2 3                       cut and merge the network: these rings
//	submit H KEY VALUE [VERSION]      a write on a host
//	send H [N] [normal]               put N (all) messages into the order, normal ones first
//	dispatch H [N]                    dispatch N (all) events as one batch
//	rejoin H                          join again after a leave
//	settle                            until nothing moves
//	tick SECONDS                      move the clock, and tell all daemons
//	tamper H KEY VALUE                change an entry behind everyone's back
//	inject H TYPE [epoch=sync|C/T/N/P] [version=V] [count=C] [subtype=S] [payload=HEX]
//	inject H raw=HEX                  a member multicasts what it should not
//	quiet  trace                      do not, or do, show each action
//	show                              members and contents
func Scenario(script string) (string, error) {
	s := &scenario{}
	var out strings.Builder
	blocks := strings.Split(strings.ReplaceAll(script, "\r\n", "\n"), "\n\n")
	for i, block := range blocks {
		commands, _, _ := strings.Cut(strings.Trim(block, "\n"), "\n----")
		if strings.TrimSpace(commands) == "" {
			continue
		}
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(commands + "\n")
		lines := strings.Split(commands, "\n")
		if !slices.ContainsFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "#") }) {
			continue
		}
		s.b.Reset()
		for _, line := range lines {
			f := strings.Fields(line)
			if len(f) == 0 || strings.HasPrefix(f[0], "#") {
				continue
			}
			if err := s.command(f[0], f[1:]); err != nil {
				return out.String(), fmt.Errorf("dfsmtest: scenario: %q: %w", line, err)
			}
		}
		out.WriteString("----\n" + s.b.String())
	}
	return out.String(), nil
}

type scenario struct {
	c     *Cluster
	b     strings.Builder
	quiet bool
	disks []*Disk
}

// Write gets the cluster's trace.
func (s *scenario) Write(p []byte) (int, error) {
	if !s.quiet {
		s.b.Write(p)
	}
	return len(p), nil
}

func number(text string) (int, error) { return strconv.Atoi(text) }

// options splits KEY=VALUE arguments off.
func options(args []string) (plain []string, opts map[string]string) {
	opts = map[string]string{}
	for _, a := range args {
		if k, v, ok := strings.Cut(a, "="); ok {
			opts[k] = v
		} else {
			plain = append(plain, a)
		}
	}
	return plain, opts
}

func (s *scenario) host(text string) (*Host, error) {
	n, err := number(text)
	if err != nil || n < 1 || n > len(s.c.hosts) {
		return nil, fmt.Errorf("no host %q", text)
	}
	return s.c.hosts[n-1], nil
}

func (s *scenario) command(name string, args []string) error {
	plain, opts := options(args)
	if len(plain) == 0 && (name == "hosts" || name == "tick") {
		return fmt.Errorf("how many?")
	}
	if name == "hosts" {
		return s.hosts(plain, opts)
	}
	if s.c == nil {
		return fmt.Errorf("hosts comes first")
	}
	switch name {
	case "quiet", "trace":
		s.quiet = name == "quiet"
		return nil
	case "settle":
		if !s.c.Settle(10_000) {
			return fmt.Errorf("no end")
		}
		return nil
	case "tick":
		n, err := number(plain[0])
		s.c.Advance(uint32(n))
		for _, h := range s.c.hosts {
			if h.proc != nil {
				h.proc.Dispatch(0)
			}
		}
		return err
	case "show":
		s.show()
		return nil
	case "rings":
		return s.rings(plain)
	}
	if len(plain) == 0 {
		return fmt.Errorf("which host?")
	}
	h, err := s.host(plain[0])
	if err != nil {
		return err
	}
	switch name {
	case "boot", "crash", "start", "kill":
		for _, text := range plain {
			if h, err = s.host(text); err != nil {
				return err
			}
			switch name {
			case "boot":
				s.c.Boot(h)
			case "crash":
				s.c.Crash(h, CutSafe, nil)
			case "start":
				s.c.Start(h)
			case "kill":
				s.c.Kill(h)
			}
		}
		return nil
	}
	if name == "tamper" {
		if len(plain) != 3 {
			return fmt.Errorf("tamper H KEY VALUE")
		}
		key, err := number(plain[1])
		if err != nil || key < 0 || key >= len(s.disks[h.ID-1].Entries) {
			return fmt.Errorf("no entry %q", plain[1])
		}
		s.disks[h.ID-1].Entries[key].Value = []byte(plain[2])
		return nil
	}
	if h.proc == nil {
		return fmt.Errorf("host %d has no daemon", h.ID)
	}
	return s.process(name, h.proc, plain[1:], opts)
}

func (s *scenario) hosts(plain []string, opts map[string]string) error {
	n, err := number(plain[0])
	if err != nil {
		return err
	}
	entries := 8
	if v, ok := opts["entries"]; ok {
		if entries, err = number(v); err != nil {
			return err
		}
	}
	version := 1
	if v, ok := opts["version"]; ok {
		if version, err = number(v); err != nil {
			return err
		}
	}
	s.disks = nil
	s.c = NewCluster(Config{
		Hosts: n, Version: uint32(version), Checksums: version > 0, Trace: s,
		NewApp: func(p *Process) App { return NewModel(s.disks[p.host.ID-1]) },
	})
	for range n {
		s.disks = append(s.disks, NewDisk(entries))
	}
	for _, h := range s.c.hosts {
		h.Up = true
	}
	s.c.Rearrange([][]*Host{s.c.hosts}, CutSafe, nil)
	return nil
}

func (s *scenario) rings(plain []string) error {
	var parts [][]*Host
	for _, text := range plain {
		var part []*Host
		for _, id := range strings.Split(text, ",") {
			h, err := s.host(id)
			if err != nil {
				return err
			}
			part = append(part, h)
		}
		parts = append(parts, part)
	}
	s.c.Rearrange(parts, CutSafe, nil)
	return nil
}

func (s *scenario) process(name string, p *Process, args []string, opts map[string]string) error {
	n := -1
	if len(args) > 0 && (name == "send" || name == "dispatch") {
		var err error
		if n, err = number(args[0]); err != nil {
			return err
		}
	}
	switch name {
	case "submit":
		if len(args) < 2 {
			return fmt.Errorf("submit H KEY VALUE [VERSION]")
		}
		key, err := number(args[0])
		if err != nil {
			return err
		}
		op := Op{Key: uint32(key), Version: Any, Value: []byte(args[1])}
		if len(args) > 2 {
			v, err := number(args[2])
			if err != nil {
				return err
			}
			op.Version = uint64(v)
		}
		p.Submit(1, op.Encode())
	case "send":
		for ; n != 0 && p.Unsent(); n-- {
			p.Multicast(slices.Contains(args, "normal"))
		}
	case "dispatch":
		if n < 0 {
			n = p.Pending()
		}
		p.Dispatch(n)
	case "rejoin":
		if !p.away {
			return fmt.Errorf("it has not left")
		}
		p.Join()
	case "inject":
		return s.inject(p, args, opts)
	default:
		return fmt.Errorf("no such command")
	}
	return nil
}

func (s *scenario) inject(p *Process, args []string, opts map[string]string) error {
	if v, ok := opts["raw"]; ok {
		raw, err := hex.DecodeString(v)
		s.c.Inject(p.host, raw)
		return err
	}
	msg := wire.Message{Header: wire.Header{Version: p.c.cfg.Version, Time: s.c.now}, Epoch: p.Machine.SyncEpoch()}
	if len(args) != 1 {
		return fmt.Errorf("inject H TYPE")
	}
	for t := wire.Normal; ; t++ {
		if t > wire.Verify+1 {
			return fmt.Errorf("no type %q", args[0])
		}
		if t.String() == args[0] {
			msg.Type = t
			break
		}
	}
	for k, v := range opts {
		var err error
		var n uint64
		switch k {
		case "epoch":
			if v != "sync" {
				_, err = fmt.Sscanf(v, "%d/%d/%d/%d", &msg.Epoch.Counter, &msg.Epoch.Time, &msg.Epoch.NodeID, &msg.Epoch.PID)
			}
		case "payload":
			msg.Payload, err = hex.DecodeString(v)
		case "version":
			n, err = strconv.ParseUint(v, 10, 32)
			msg.Version = uint32(n)
		case "count":
			msg.Count, err = strconv.ParseUint(v, 10, 64)
		case "subtype":
			n, err = strconv.ParseUint(v, 10, 16)
			msg.Subtype = uint16(n)
		default:
			err = fmt.Errorf("no option %q", k)
		}
		if err != nil {
			return err
		}
	}
	s.c.Inject(p.host, msg.Encode())
	return nil
}

func (s *scenario) show() {
	for i, h := range s.c.hosts {
		fmt.Fprintf(&s.b, "host %d:", h.ID)
		switch {
		case !h.Up:
			s.b.WriteString(" down")
		case h.proc == nil:
			s.b.WriteString(" no daemon")
		default:
			m := h.proc.Machine
			members, synced := m.Members()
			queued, _ := m.Queued()
			fmt.Fprintf(&s.b, " %v, members %s, %d synced, %d queued, %d waiting", m.Mode(), dfsm.FormatMembers(members), synced, queued, m.Waiting())
		}
		fmt.Fprintf(&s.b, "; version %d", len(s.disks[i].History))
		for k, e := range s.disks[i].Entries {
			if e.Version != 0 {
				fmt.Fprintf(&s.b, " %d=%s", k, e.Value)
			}
		}
		s.b.WriteString("\n")
	}
}
