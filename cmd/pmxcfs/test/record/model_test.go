package record

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pmxcfs/contrib/lab/labtest"
	"pmxcfs/memdb/history"
)

var (
	seedFlag  = flag.Uint64("record.seed", 0, "make the changes of this `seed`")
	stepsFlag = flag.Int("record.steps", 120, "how many changes to make")
)

// model knows every change, in order.
type model struct {
	t     *testing.T
	c     *labtest.Cluster
	rnd   *rand.Rand
	now   map[string]string   // files below m, by path; directories end in a slash
	paths map[string][]string // what was at each path, in order: contents; gone if it was not there
	trees []map[string]string // after each tenth change
	marks []string            // of each of them, a file's content that was written last, and nowhere else
	count int
}

const gone = "(gone)"

func (m *model) is(path, state string) {
	m.paths[path] = append(m.paths[path], state)
	if state == gone {
		delete(m.now, path)
	} else {
		m.now[path] = state
	}
}

// step makes a change on a node. It must succeed.
func (m *model) step(n *labtest.Node) {
	m.t.Helper()
	m.count++
	text := fmt.Sprintf("content %d\n%s", m.count, strings.Repeat(fmt.Sprintf("line %d\n", m.count), m.rnd.IntN(50)))
	var files []string
	for p := range m.now {
		files = append(files, p)
	}
	slices.Sort(files)
	pick := func() string { return files[m.rnd.IntN(len(files))] }
	name := fmt.Sprintf("m/f%d", m.rnd.IntN(10))
	kind := m.rnd.IntN(10)
	if len(files) == 0 || m.count%10 == 0 { // a mark
		kind = 0
	}
	switch {
	case kind < 6: // a write
		if m.count%10 == 0 {
			name = fmt.Sprintf("m/mark%d", m.count)
		}
		if _, ok := m.now[name]; !ok {
			m.is(name, "")
		}
		n.Must(os.WriteFile(n.Path(name), []byte(text), 0o640))
		m.is(name, text)
	case kind < 8:
		from := pick()
		to := fmt.Sprintf("m/f%d", m.rnd.IntN(10))
		if from == to || strings.Contains(from, "mark") {
			return
		}
		n.Must(os.Rename(n.Path(from), n.Path(to)))
		state := m.now[from]
		m.is(from, gone)
		m.is(to, state)
	default:
		path := pick()
		if strings.Contains(path, "mark") {
			return
		}
		n.Must(os.Remove(n.Path(path)))
		m.is(path, gone)
	}
	if m.count%10 == 0 {
		m.trees = append(m.trees, maps.Clone(m.now))
		m.marks = append(m.marks, name)
	}
}

// held is what a node's history has of a path: states in order, each with its version.
type held struct {
	state   string
	version uint64
}

// hole is a part of the order of which a node knows the result only.
type hole struct{ after, upTo uint64 }

func (m *model) read(n *labtest.Node) (paths map[string][]held, holes []hole, gaps int, marks map[string]uint64) {
	m.t.Helper()
	paths, marks = map[string][]held{}, map[string]uint64{}
	l := changes(n, "m")
	for _, g := range l.Gaps {
		holes = append(holes, hole{g.After, g.Version})
		gaps++
	}
	for _, c := range slices.Backward(l.Changes) {
		if c.CatchUp != nil {
			holes = append(holes, hole{c.CatchUp.From, c.CatchUp.To})
		}
		state := gone
		if c.State == history.File {
			state = c.Digest
		} else if c.State == history.Directory {
			continue
		}
		paths[c.Path] = append(paths[c.Path], held{state, c.Version})
		if c.Kind == history.Write && c.Size > 0 { // else it came with others, and the version is theirs
			marks[c.Path] = c.Tree
		}
	}
	return paths, holes, gaps, marks
}

func TestModelEveryNodeKnowsWhatWasDone(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	c := labtest.New(t, 3)
	m := &model{t: t, c: c, rnd: rand.New(rand.NewPCG(seed, 0)), now: map[string]string{}, paths: map[string][]string{}}
	c.Node(1).Mkdir("m")
	for _, n := range c.Nodes {
		n.WantDir("m")
	}
	steps := func(count int, nodes ...*labtest.Node) {
		for range count {
			n := nodes[m.rnd.IntN(len(nodes))]
			n.Eventually("the last change is here", func() error { return m.same(n) })
			m.step(n)
		}
	}
	part := *stepsFlag / 6
	steps(part, c.Nodes...)
	killed := c.Node(1 + m.rnd.IntN(3))
	t.Logf("%s is killed after change %d", killed, m.count)
	killed.Kill()
	steps(part, c.Others(killed)...)
	killed.Start()
	c.WantTogether(c.Nodes...)
	steps(part, c.Nodes...)
	cut := c.Node(1 + m.rnd.IntN(3))
	t.Logf("%s is cut off after change %d", cut, m.count)
	cut.Must(c.Lab.Cut(cut.Host.ID()))
	c.WantTogether(c.Others(cut)...)
	steps(part, c.Others(cut)...)
	cut.Must(c.Lab.Heal())
	c.WantTogether(c.Nodes...)
	steps(part, c.Nodes...)
	stopped := c.Node(1 + m.rnd.IntN(3))
	t.Logf("%s is restarted after change %d", stopped, m.count)
	stopped.Stop()
	stopped.Start()
	c.WantTogether(c.Nodes...)
	steps(part, c.Nodes...)
	for _, n := range c.Nodes {
		n.Eventually("the last change is here", func() error { return m.same(n) })
	}

	// A version of each state, from whoever has it.
	type nodeLog struct {
		paths map[string][]held
		holes []hole
		gaps  int
		marks map[string]uint64
	}
	logs := map[*labtest.Node]nodeLog{}
	versions := map[string]map[string][]uint64{} // by path and state
	for _, n := range c.Nodes {
		var l nodeLog
		l.paths, l.holes, l.gaps, l.marks = m.read(n)
		logs[n] = l
		for path, list := range l.paths {
			if versions[path] == nil {
				versions[path] = map[string][]uint64{}
			}
			for _, h := range list {
				if !slices.Contains(versions[path][h.state], h.version) {
					versions[path][h.state] = append(versions[path][h.state], h.version)
				}
			}
		}
	}
	for _, n := range c.Nodes {
		l := logs[n]
		if n != killed && l.gaps > 0 {
			t.Errorf("%s was not killed, and has %d gaps", n, l.gaps)
		}
		away := n == killed || n == cut || n == stopped
		for path, states := range m.paths {
			want := make([]string, len(states))
			for i, s := range states {
				want[i] = digest(s)
			}
			got := l.paths[path]
			i := 0
			for _, h := range got {
				// What was missed must be within a hole.
				for i < len(want) && want[i] != h.state {
					if !away || !inHole(l.holes, versions[path][want[i]]) {
						t.Errorf("%s: %s: state %d (%.30q) is missing, and no gap or synchronisation says so", n, path, i, states[i])
					}
					i++
				}
				if i == len(want) {
					t.Errorf("%s: %s: version %d is not what was done, or not in its order", n, path, h.version)
					break
				}
				i++
			}
			for ; i < len(want); i++ {
				// An absence that was never known to the node needs no entry.
				if want[i] == gone && len(got) == 0 {
					continue
				}
				if !away || !inHole(l.holes, versions[path][want[i]]) {
					t.Errorf("%s: %s: state %d (%.30q) is missing at the end", n, path, i, states[i])
				}
			}
		}
	}
	exported := 0
	for i, want := range m.trees {
		for _, n := range c.Nodes {
			version := uint64(0)
			for _, l := range logs {
				version = max(version, l.marks[m.marks[i]])
			}
			if own := logs[n].marks[m.marks[i]]; own != version {
				continue // it was away then, and knows the result only
			}
			dir := fmt.Sprintf("/run/export-%d", i)
			must(n, "history", "export", "--at", itoa(version), dir)
			exported++
			got := map[string]string{}
			below := n.Host.Path(dir)
			n.Must(filepath.WalkDir(filepath.Join(below, "m"), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				b, err := os.ReadFile(path)
				name, _ := filepath.Rel(below, path)
				got[name] = string(b)
				return err
			}))
			if !maps.Equal(got, want) {
				t.Errorf("%s: version %d: exported\n%q\nnot\n%q", n, version, keys(got), keys(want))
			}
		}
	}
	if exported < len(m.trees) {
		t.Errorf("only %d of %d trees could be compared", exported, len(m.trees))
	}
}

// digest is the state of a file as a history tells it.
func digest(state string) string {
	if state == gone {
		return gone
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(state)))
}

func keys(m map[string]string) (list []string) {
	for k, v := range m {
		list = append(list, fmt.Sprintf("%s=%.12s", k, v))
	}
	slices.Sort(list)
	return list
}

// same reports whether a node has the model's tree.
func (m *model) same(n *labtest.Node) error {
	list, err := os.ReadDir(n.Path("m"))
	if err != nil {
		return err
	}
	if len(list) != len(m.now) {
		return fmt.Errorf("it has %v, not %q", list, keys(m.now))
	}
	for path, text := range m.now {
		if err := n.Holds(path, text); err != nil {
			return err
		}
	}
	return nil
}

// inHole reports whether a state is of one of the versions that a node knows the result of only;
// one that no node knows was lost with the only one that did.
func inHole(holes []hole, versions []uint64) bool {
	if len(versions) == 0 {
		return len(holes) > 0
	}
	return slices.ContainsFunc(versions, func(v uint64) bool {
		return slices.ContainsFunc(holes, func(h hole) bool { return h.after < v && v <= h.upTo })
	})
}
