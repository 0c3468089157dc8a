package dcdb

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
	"pmxcfs/dfsm/dfsmtest"
	"pmxcfs/dfsm/wire"
	"pmxcfs/memdb"
)

var (
	seedFlag  = flag.Uint64("dcdb.seed", 0, "run the random history of this seed only")
	traceFlag = flag.String("dcdb.trace", "", "write what happens in the history of -dcdb.seed to this file")
	runsFlag  = flag.Uint64("dcdb.runs", 0, "how many random histories to run; 0: as many as take a few seconds")
)

// history is one random history of a few nodes with the real tree.
type history struct {
	*dfsmtest.Cluster
	rnd    *rand.Rand
	seed   maphash.Seed
	hosts  []*dfsmtest.Host
	files  []*memFile // of each host; outlives its daemon
	kind   kind
	cut    dfsmtest.Cut
	names  int
	acked  []string          // files that were reported as made, and that nobody deletes
	synced map[string]string // the index that a sync ended with, by its epoch

	// The tree at each version, as a hash of its index: as it was first made
	// anywhere, as each host's file came by it, and likewise for each state
	// that was sent.
	main    lineage
	of      []lineage
	late    bool // what nobody waits for stays out of the files until somebody waits for another
	byState map[string]lineage
	out     outcome
	err     error
}

type lineage []uint64

// kind says what goes wrong in a history. Only of the first two kinds can it be
// said who must have seen what.
type kind uint64

const (
	calm    kind = iota // the network is cut and merged
	faulty              // daemons and hosts are killed as well
	agreed              // a ring that ends gives its members what it likes, as corosync does
	hostile             // a member sends what none should
	kinds
)

func (k kind) lineal() bool { return k == calm || k == faulty }

type outcome struct{ acked, refused, unknown, syncs, commits, forks int }

// simApp is the application of a simulated daemon.
type simApp struct {
	*app
	h    *history
	p    *dfsmtest.Process
	made map[uint64]string // by submission
}

func (s *simApp) Quorum(quorate bool) { s.quorate.Store(quorate) }

func (s *simApp) State() ([]byte, error) {
	index, err := s.app.State()
	s.h.byState[string(index)] = slices.Clone(s.h.of[s.host()])
	return index, err
}

func (s *simApp) Commit() error {
	s.h.out.commits++
	s.h.of[s.host()] = slices.Clone(s.h.byState[string(s.sync.leader)])
	return s.app.Commit()
}

func (s *simApp) host() int { return int(s.p.Host().ID) - 1 }

// Applied checks a change against what was made at this version first. Another
// one is right only if none of the members has that: quorum counts hosts, and a
// majority of them may go on without the daemons that had seen everything, which
// were killed, cut off, or have left.
func (s *simApp) Applied(*memdb.Op, []memdb.Change, bool) {
	h, version := s.h, int(s.tree.Root().Version)
	if !h.kind.lineal() {
		return
	}
	made := maphash.Bytes(h.seed, s.tree.Index())
	own := &h.of[s.host()]
	if *own = append(*own, made); len(*own) != version+1 {
		h.failf("%v makes version %d after %d changes", s.p.Self(), version, len(*own))
		return
	}
	switch {
	case len(h.main) == version:
		h.main = append(h.main, made)
	case len(h.main) < version:
		h.failf("%v makes version %d, but there were only %d", s.p.Self(), version, len(h.main)-1)
	case h.main[version] == made || h.out.forks > 0:
	case s.holder(version):
		h.failf("%v makes another version %d than others", s.p.Self(), version)
	default:
		h.out.forks = 1
	}
}

// holder reports whether a member that takes part in the same sync has what was
// first made at a version.
func (s *simApp) holder(version int) bool {
	members, _ := s.p.Machine.Members()
	for _, m := range members {
		o := s.h.Host(m.Node).Process()
		if o == nil || o.Self() != m || o.Machine.SyncEpoch() != s.p.Machine.SyncEpoch() {
			continue
		}
		if l := s.h.of[m.Node-1]; len(l) > version && l[version] == s.h.main[version] {
			return true
		}
	}
	return false
}

func (s *simApp) Reset([]memdb.Change) {}

// ModeChanged checks that all who end the same sync have the same tree then.
func (s *simApp) ModeChanged(mode dfsm.Mode) {
	s.app.ModeChanged(mode)
	if mode.Final() && s.h.kind != hostile {
		s.h.failf("%v is in mode %v", s.p.Self(), mode)
	}
	if members, _ := s.p.Machine.Members(); mode != dfsm.ModeSynced || len(members) < 2 {
		return
	}
	epoch, index := s.p.Machine.SyncEpoch().String(), string(s.tree.Index())
	if first, ok := s.h.synced[epoch]; !ok {
		s.h.synced[epoch] = index
		s.h.out.syncs++
	} else if first != index && s.h.kind != hostile {
		s.h.failf("%v ends sync %s with another tree than others", s.p.Self(), epoch)
	}
}

func (h *history) failf(format string, args ...any) {
	if h.err == nil {
		h.err = fmt.Errorf(format, args...)
	}
}

func (h *history) newApp(p *dfsmtest.Process) dfsmtest.App {
	file := h.files[p.Host().ID-1]
	var entries []*memdb.Entry
	for _, e := range file.rows {
		entries = append(entries, e)
	}
	tree, _, err := memdb.Build(entries)
	if err != nil {
		h.failf("%v finds a database that is no tree: %v", p.Self(), err)
		tree = memdb.New()
	}
	s := &simApp{app: newTestApp(tree, file), h: h, p: p, made: make(map[uint64]string)}
	if h.late {
		s.saver.delay = -1
	}
	if own := &h.of[s.host()]; h.late && h.kind.lineal() {
		*own = (*own)[:tree.Root().Version+1] // the daemon before has taken with it what it had not stored
	}
	s.clock = func() time.Time { return time.Unix(int64(h.Now()), 0) }
	s.self = p.Self
	s.post = p.Post
	s.calls = newCalls(s)
	p.OnReply = func(id uint64, r dfsm.Result) {
		name := s.made[id]
		delete(s.made, id)
		ok, _ := r.Value.(*success)
		switch {
		case ok != nil:
			h.out.acked++
			if name != "" {
				h.acked = append(h.acked, name)
				if _, there := file.rows[ok.change.Inode]; !there && h.kind != hostile {
					h.failf("%v: %s reported as done, but not in the file", p.Self(), name)
				}
			}
		case errors.Is(r.Err, dfsm.ErrDisconnected):
			h.out.unknown++
		default:
			h.out.refused++
		}
	}
	return s
}

// submit makes a random change on a host, if its daemon may.
func (h *history) submit(p *dfsmtest.Process) {
	s := p.App.(*simApp)
	if mode := p.Machine.Mode(); mode == dfsm.ModeStart || mode.Failed() || !s.quorate.Load() {
		return
	}
	pick := func(list ...string) string { return list[h.rnd.IntN(len(list))] }
	some := func() string {
		return pick("a", "b", "d", "d/x", "d/y", "d/e", "d/e/f", "priv", "priv/lock", "priv/lock/l", "corosync.conf",
			"nodes", "nodes/n1", "nodes/n1/lxc", "nodes/n1/qemu-server", "nodes/n1/lxc/100.conf", "nodes/n1/qemu-server/100.conf")
	}
	op := &memdb.Op{Path: some()}
	name := ""
	switch n := h.rnd.IntN(20); {
	case n < 4:
		h.names++
		name = fmt.Sprintf("made%d", h.names)
		op.Kind, op.Path = memdb.OpCreate, name
	case n < 7:
		op.Kind = memdb.OpMkdir
	case n < 10:
		op.Kind = memdb.OpCreate
	case n < 14:
		op.Kind, op.Data, op.Offset = memdb.OpWrite, make([]byte, h.rnd.IntN(200)), uint32(h.rnd.IntN(100))
		op.Data = append(op.Data, byte(h.names))
		op.Truncate = h.rnd.IntN(2) == 0
	case n < 16:
		op.Kind = memdb.OpDelete
	case n < 18:
		op.Kind, op.To = memdb.OpRename, some()
	default:
		op.Kind, op.MTime = memdb.OpMTime, h.Now()
		if lock, ok := s.tree.ObserveLock(op.Path, s.clock()); ok {
			p.Post(msgUnlockRequest, encodeUnlock(op.Path, lock.Digest))
			op.MTime = 0
		}
	}
	s.made[p.Submit(uint16(op.Kind), encodeOp(op))] = name
}

func (h *history) work(host *dfsmtest.Host) {
	p := host.Process()
	if p == nil {
		return
	}
	if h.rnd.IntN(2) == 0 {
		for range 1 + h.rnd.IntN(4) {
			p.Multicast(h.rnd.IntN(2) == 0)
		}
	} else {
		p.Dispatch(1 + h.rnd.IntN(8))
	}
}

func (h *history) step() {
	host := h.hosts[h.rnd.IntN(len(h.hosts))]
	switch n := h.rnd.IntN(100); {
	case n < 50:
		for range 1 + h.rnd.IntN(12) {
			h.work(h.hosts[h.rnd.IntN(len(h.hosts))])
		}
	case n < 80:
		if p := host.Process(); p != nil {
			for range 1 + h.rnd.IntN(4) {
				h.submit(p)
			}
		}
	case n < 88:
		h.Advance(uint32(h.rnd.IntN(50)))
	case n < 92: // cut the network, or reorder it
		parts := make([][]*dfsmtest.Host, 1+h.rnd.IntN(3))
		for _, o := range h.up() {
			i := h.rnd.IntN(len(parts))
			parts[i] = append(parts[i], o)
		}
		h.rearrange(parts...)
	case n < 96:
		h.rearrange(h.up())
	case h.kind == hostile:
		h.misbehave(host)
	case h.kind == calm:
	case n < 97:
		if host.Process() != nil {
			h.Kill(host)
		}
	case n < 98:
		if host.Up && h.rnd.IntN(2) == 0 {
			h.Crash(host, h.cut, h.rnd.IntN)
		}
	default:
		h.revive(host)
	}
}

// misbehave has a host's member send what none should.
func (h *history) misbehave(host *dfsmtest.Host) {
	p := host.Process()
	if p == nil {
		return
	}
	op := memdb.Op{Kind: memdb.OpWrite, Path: "a", Data: []byte("evil"), Offset: h.rnd.Uint32N(1 << 21)}
	m := wire.Message{
		Header:  wire.Header{Type: wire.Type(h.rnd.IntN(7)), Subtype: uint16(h.rnd.IntN(10)), Version: ProtocolVersion, Time: h.rnd.Uint32()},
		Count:   h.rnd.Uint64N(50),
		Epoch:   p.Machine.SyncEpoch(),
		Payload: encodeOp(&op),
	}
	switch h.rnd.IntN(4) {
	case 0:
		m.Payload = encodeUnlock("priv/lock/l", memdb.Digest{})
	case 1:
		m.Payload = p.App.(*simApp).tree.Index()
	case 2:
		m.Payload = appendUpdate(nil, memdb.NewEntry(h.rnd.Uint64N(20), h.rnd.Uint64N(5), 9, 1, 1, memdb.TypeFile, "evil", []byte("x")))
	}
	raw := m.Encode()
	if h.rnd.IntN(2) == 0 {
		raw[h.rnd.IntN(len(raw))] ^= 1 << h.rnd.IntN(8)
	}
	h.Inject(host, raw)
}

func (h *history) revive(host *dfsmtest.Host) {
	if !host.Up {
		h.Boot(host)
		h.rearrange(h.up())
	}
	if p := host.Process(); p != nil && p.Machine.Mode().Final() {
		h.Kill(host)
	}
	if host.Process() == nil {
		h.Start(host)
	}
}

func (h *history) up() (list []*dfsmtest.Host) {
	for _, o := range h.hosts {
		if o.Up {
			list = append(list, o)
		}
	}
	return list
}

func (h *history) rearrange(parts ...[]*dfsmtest.Host) {
	var full [][]*dfsmtest.Host
	for _, p := range parts {
		if len(p) > 0 {
			full = append(full, p)
		}
	}
	if len(full) > 0 {
		h.Rearrange(full, h.cut, h.rnd.IntN)
	}
}

// runHistory makes the history of a seed, and checks that the trees that end a
// sync are alike, that in the end all are, and their files too, and that nothing
// acknowledged is lost.
func runHistory(seed uint64, trace io.Writer) (outcome, error) {
	h := &history{rnd: rand.New(rand.NewPCG(seed, 0x64636462)), seed: maphash.MakeSeed(), kind: kind(seed) % kinds,
		synced: make(map[string]string), byState: make(map[string]lineage)}
	if h.kind == agreed {
		h.cut = dfsmtest.CutAgreed
	}
	h.late = seed/uint64(kinds)%2 == 1
	h.main = lineage{0, 0} // an empty tree is at version 1
	n := 2 + h.rnd.IntN(4)
	h.Cluster = dfsmtest.NewCluster(dfsmtest.Config{Hosts: n, Version: ProtocolVersion, Checksums: true, NewApp: h.newApp, Trace: trace})
	var all []*dfsmtest.Host
	for i := range n {
		host := h.Host(corosync.NodeID(i + 1))
		host.Up = true
		all = append(all, host)
		h.files = append(h.files, newMemFile(memdb.New()))
		h.of = append(h.of, slices.Clone(h.main))
	}
	h.hosts = all
	h.rearrange(all)
	for _, host := range all {
		h.Start(host)
	}
	for range 60 + h.rnd.IntN(120) {
		if h.err != nil {
			return h.out, h.err
		}
		h.step()
	}
	for range 2 { // only the first time does all arrive that a misbehaving member has sent
		for _, host := range h.hosts {
			h.revive(host)
		}
		h.rearrange(h.up())
		if !h.Settle(2000) {
			h.failf("no end after the faults have ended")
		}
	}
	h.verify()
	h.checkEnd()
	return h.out, h.err
}

// verify has the checksums compared: nobody may leave because of them.
func (h *history) verify() {
	if h.err != nil {
		return
	}
	before, _ := h.Traffic()
	h.Advance(3601)
	for _, host := range h.hosts {
		host.Process().Dispatch(0)
	}
	if !h.Settle(2000) {
		h.failf("no end of the verification")
	}
	if after, _ := h.Traffic(); after != before+2 { // the request and the checksum
		h.failf("%d messages for a verification", after-before)
	}
}

func (h *history) checkEnd() {
	if h.err != nil {
		return
	}
	var first []byte
	for i, host := range h.hosts {
		p := host.Process()
		s := p.App.(*simApp)
		if err := s.saver.flush(nil); err != nil {
			h.failf("%v ends with a file that can't be written: %v", p.Self(), err)
		}
		index := s.tree.Index()
		if first == nil {
			first = index
		}
		if mode := p.Machine.Mode(); mode != dfsm.ModeSynced {
			h.failf("%v ends in mode %v", p.Self(), mode)
		}
		if !bytes.Equal(index, first) {
			h.failf("%v ends with another tree than host 1", p.Self())
		}
		if p.Machine.Waiting() != 0 {
			h.failf("%v ends with %d waiting", p.Self(), p.Machine.Waiting())
		}
		var rows []*memdb.Entry
		for _, e := range h.files[i].rows {
			rows = append(rows, e)
		}
		stored, _, err := memdb.Build(rows)
		if err != nil || stored.Checksum() != s.tree.Checksum() {
			h.failf("%v ends with a file that is not its tree: %v", p.Self(), err)
		}
		if h.out.forks > 0 || !h.kind.lineal() {
			continue
		}
		for _, name := range h.acked {
			if _, ok := s.tree.Lookup(name); !ok {
				h.failf("%v: %s was acknowledged, and is lost", p.Self(), name)
			}
		}
	}
}

func TestRandomHistoriesKeepNodesAlike(t *testing.T) {
	if *seedFlag != 0 {
		var trace io.Writer
		if *traceFlag != "" {
			f, err := os.Create(*traceFlag)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			trace = f
		}
		out, err := runHistory(*seedFlag, trace)
		t.Logf("seed %d: %+v", *seedFlag, out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	runs := *runsFlag
	switch {
	case runs > 0:
	case testing.Short() || raceEnabled:
		runs = 400
	default:
		runs = 6000
	}
	first := uint64(time.Now().UnixNano())
	t.Logf("seeds %d to %d", first, first+runs-1)
	var next atomic.Uint64
	var mu sync.Mutex
	var sum outcome
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < runs && !t.Failed(); i = next.Add(1) - 1 {
				out, err := runHistory(first+i, nil)
				if err != nil {
					t.Errorf("-dcdb.seed=%d: %v", first+i, err)
				}
				mu.Lock()
				sum.acked += out.acked
				sum.refused += out.refused
				sum.unknown += out.unknown
				sum.syncs += out.syncs
				sum.commits += out.commits
				sum.forks += out.forks
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d histories: %+v", runs, sum)
	if sum.acked == 0 || sum.refused == 0 || sum.commits == 0 || sum.forks > int(runs)/4 {
		t.Errorf("histories without substance: %+v", sum)
	}
}
