package ipc

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"

	"pmxcfs/memdb"
	"pmxcfs/status"
)

// fakes are sources in memory.
type fakes struct {
	mu       sync.Mutex
	files    map[string][]byte
	guests   map[uint32][]byte
	changes  uint64
	listed   int                  // how often the guests were read
	values   map[[2]string][]byte // node, key
	version  []byte
	members  []byte
	vmlist   []byte
	rrd      []byte
	logged   []LogEntry
	setErr   error
	store    *status.Store // judges values
	addErr   error
	holdSets chan struct{} // if not nil, Set waits for it
	inSet    int
}

func newFakes() *fakes {
	store, err := status.New(status.Config{Tree: memdb.New(), NodeName: "one"})
	if err != nil {
		panic(err)
	}
	return &fakes{
		store:   store,
		files:   map[string][]byte{},
		guests:  map[uint32][]byte{},
		values:  map[[2]string][]byte{},
		version: []byte(`{"starttime":1}`),
		members: []byte(`{"nodename":"one"}`),
		vmlist:  []byte(`{"version":1}`),
		rrd:     []byte("pve-node-9.0/one:1:2\n\x00"),
	}
}

func (f *fakes) ReadFile(path string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.files[path]
	return b, ok
}

func (f *fakes) Changes() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes
}

// setGuest is to be called for every change of guests once somebody reads them.
func (f *fakes) setGuest(vmid uint32, conf []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	if conf == nil {
		delete(f.guests, vmid)
	} else {
		f.guests[vmid] = conf
	}
}

func (f *fakes) AppendGuests(list []Guest) []Guest {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed++
	for _, id := range slices.Sorted(maps.Keys(f.guests)) {
		list = append(list, Guest{VMID: id, Conf: f.guests[id]})
	}
	return list
}

func (f *fakes) Guest(vmid uint32) (Guest, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	conf, ok := f.guests[vmid]
	return Guest{VMID: vmid, Conf: conf}, ok
}

func (f *fakes) Version() []byte     { return f.version }
func (f *fakes) ClusterInfo() []byte { return f.members }
func (f *fakes) GuestList() []byte   { return f.vmlist }

func (f *fakes) Set(key string, value []byte) error {
	f.mu.Lock()
	hold := f.holdSets
	f.inSet++
	f.mu.Unlock()
	if hold != nil {
		<-hold
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inSet--
	if f.setErr != nil {
		return f.setErr
	}
	if err := f.store.Set(key, value); err != nil {
		return err
	}
	if len(value) == 0 {
		delete(f.values, [2]string{"", key})
	} else {
		f.values[[2]string{"", key}] = slices.Clone(value)
	}
	return nil
}

func (f *fakes) setsRunning() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inSet
}

func (f *fakes) Get(node, key string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.values[[2]string{node, key}]
	return v, ok
}

func (f *fakes) Add(e LogEntry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logged = append(f.logged, e)
	return f.addErr
}

func (f *fakes) lastLogged(t *testing.T) LogEntry {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.logged) == 0 {
		t.Fatal("nothing was logged")
	}
	return f.logged[len(f.logged)-1]
}

// count returns how many entries were logged and how many values there are.
func (f *fakes) count() (logged, values int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.logged), len(f.values)
}

// fakeLog and fakeRRD give fakes' two Dump methods their types.
type fakeLog struct{ *fakes }

func (f fakeLog) Dump(max int, user string) []byte {
	return fmt.Appendf(nil, `{"max":%d,"user":%q}`, max, user)
}

type fakeRRD struct{ *fakes }

func (f fakeRRD) Dump() []byte { return f.rrd }

const testGID = 33

func (f *fakes) config() Config {
	return Config{
		GID:     testGID,
		Configs: f,
		Status:  f,
		Log:     fakeLog{f},
		RRD:     fakeRRD{f},
		Logger:  slog.New(slog.DiscardHandler),
	}
}

// direct returns a client without libqb between.
func (f *fakes) direct(t testing.TB, access Access) *client {
	t.Helper()
	s, err := newService(f.config())
	if err != nil {
		t.Fatal(err)
	}
	c := &client{service: s, access: access}
	c.peer.PID = 4321
	return c
}

// name256 is a name in its field.
func name256(s string) []byte { return append([]byte(s), make([]byte, nameLen-len(s))...) }

func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		case int:
			b = append(b, byte(p))
		case uint32:
			b = append(b, byte(p), byte(p>>8), byte(p>>16), byte(p>>24))
		default:
			panic(fmt.Sprintf("%T", p))
		}
	}
	return b
}

const (
	ok0    = syscall.Errno(0)
	einval = syscall.EINVAL
	enoent = syscall.ENOENT
	eperm  = syscall.EPERM
)
