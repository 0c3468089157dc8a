package ipc

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/status"
	"pmxcfs/status/clusterlog"
)

// sample is a request and what it is answered with, by access.
type sample struct {
	name string
	op   int32
	data []byte
	full syscall.Errno
	ro   syscall.Errno
	want any // with errno 0: a string, or what the store renders
}

// answer returns what the request is answered with.
func (c sample) answer(s *site) string {
	if render, ok := c.want.(func(*status.Store) []byte); ok {
		return string(render(s.store))
	}
	return c.want.(string)
}

func samples() []sample {
	long := func(n int) string { return strings.Repeat("x", n) }
	log := func(max int, user string) func(*status.Store) []byte {
		return func(s *status.Store) []byte { return s.ClusterLog(max, user) }
	}
	s := []sample{
		{"version", OpVersion, nil, 0, 0, (*status.Store).Version},
		{"version with data", OpVersion, cat(0), einval, einval, ""},
		{"cluster info", OpClusterInfo, nil, 0, 0, (*status.Store).Members},
		{"cluster info with data", OpClusterInfo, cat("x"), einval, einval, ""},
		{"guest list", OpGuestList, nil, 0, 0, (*status.Store).VMList},
		{"guest list with data", OpGuestList, cat("x"), einval, einval, ""},

		{"set status", OpSetStatus, cat(name256("k"), "value"), 0, eperm, ""},
		{"set status, empty value", OpSetStatus, name256("k"), 0, eperm, ""},
		{"set status, nothing", OpSetStatus, nil, einval, eperm, ""},
		{"set status, short name", OpSetStatus, name256("k")[:255], einval, eperm, ""},
		{"set status, name of 255", OpSetStatus, name256(long(255)), 0, eperm, ""},
		{"set status, name without NUL", OpSetStatus, cat(long(256), "v"), 0, eperm, ""},
		{"set status, empty name", OpSetStatus, cat(name256(""), "v"), 0, eperm, ""},
		{"set status, largest value", OpSetStatus, cat(name256("k"), long(32768)), 0, eperm, ""},
		{"set status, value too large", OpSetStatus, cat(name256("k"), long(32769)), syscall.EFBIG, eperm, ""},
		{"set nodeip", OpSetStatus, cat(name256("nodeip"), "10.0.0.1", 0), 0, eperm, ""},
		{"set nodeip without NUL", OpSetStatus, cat(name256("nodeip"), "10.0.0.1"), syscall.ENOMEM, eperm, ""},
		{"set nodeip, nothing", OpSetStatus, name256("nodeip"), syscall.ENOMEM, eperm, ""},
		{"set nodeip, empty", OpSetStatus, cat(name256("nodeip"), 0), syscall.ENOMEM, eperm, ""},
		{"set nodeip, longest", OpSetStatus, cat(name256("nodeip"), long(254), 0), 0, eperm, ""},
		{"set nodeip, too long", OpSetStatus, cat(name256("nodeip"), long(255), 0), syscall.ENOMEM, eperm, ""},
		{"set rrd", OpSetStatus, cat(name256("rrd/pve-node-9.0/one"), "1:2", 0), 0, eperm, ""},
		{"set rrd without NUL", OpSetStatus, cat(name256("rrd/x"), "1:2"), syscall.ENOMEM, eperm, ""},
		{"set rrd, longest", OpSetStatus, cat(name256("rrd/x"), long(4094), 0), 0, eperm, ""},
		{"set rrd, too long", OpSetStatus, cat(name256("rrd/x"), long(4095), 0), syscall.ENOMEM, eperm, ""},
		{"set rrd, NUL inside", OpSetStatus, cat(name256("rrd/x"), "1", 0, "2", 0), 0, eperm, ""},
		{"set rrd, NUL first", OpSetStatus, cat(name256("rrd/x"), 0, "2", 0), syscall.ENOMEM, eperm, ""},
		{"set rrd, NUL inside and none at the end", OpSetStatus, cat(name256("rrd/x"), "1", 0, "2"), syscall.ENOMEM, eperm, ""},

		{"get status", OpGetStatus, cat(name256("here"), name256("")), 0, 0, "mine"},
		{"get status of a node", OpGetStatus, cat(name256("here"), name256("two")), 0, 0, "two's"},
		{"get status, absent", OpGetStatus, cat(name256("nowhere"), name256("")), enoent, enoent, ""},
		{"get status, no such node", OpGetStatus, cat(name256("here"), name256("three")), enoent, enoent, ""},
		{"get status of nodeip", OpGetStatus, cat(name256("nodeip"), name256("")), enoent, enoent, ""},
		{"get status of rrd", OpGetStatus, cat(name256("rrd/x"), name256("")), enoent, enoent, ""},
		{"get status, nothing", OpGetStatus, nil, einval, einval, ""},
		{"get status, short", OpGetStatus, cat(name256("here"), name256(""))[:511], einval, einval, ""},
		{"get status, key without NUL", OpGetStatus, cat(long(256), name256("")), 0, 0, "of 255"},
		{"get status, node without NUL", OpGetStatus, cat(name256("here"), long(256)), enoent, enoent, ""},

		{"get config", OpGetConfig, cat("storage.cfg", 0), 0, 0, "dir: local"},
		{"get config without NUL", OpGetConfig, cat("storage.cfg"), 0, 0, "dir: local"},
		{"get config, leading slash", OpGetConfig, cat("/storage.cfg", 0), 0, 0, "dir: local"},
		{"get config, many slashes", OpGetConfig, cat("//ha///.//x", 0), 0, 0, "ha"},
		{"get config, padded", OpGetConfig, cat("storage.cfg", 0, "x", 0), 0, 0, "dir: local"},
		{"get config, empty file", OpGetConfig, cat("empty", 0), 0, 0, ""},
		{"get config, nothing", OpGetConfig, nil, einval, einval, ""},
		{"get config, only NUL", OpGetConfig, cat(0), enoent, enoent, ""},
		{"get config, the root", OpGetConfig, cat("/", 0), enoent, enoent, ""},
		{"get config, absent", OpGetConfig, cat("nothing", 0), enoent, enoent, ""},
		{"get config, dots", OpGetConfig, cat("ha/../storage.cfg", 0), enoent, enoent, ""},
		{"get config, dots into priv", OpGetConfig, cat("ha/../priv/key", 0), enoent, enoent, ""},
		{"get config, special file", OpGetConfig, cat(".version", 0), enoent, enoent, ""},
		{"get config through a link", OpGetConfig, cat("local/config", 0), enoent, enoent, ""},
		{"get config, private", OpGetConfig, cat("priv/key", 0), 0, eperm, "secret"},
		{"get config, private and absent", OpGetConfig, cat("priv/nothing", 0), enoent, eperm, ""},
		{"get config, private directory", OpGetConfig, cat("priv", 0), enoent, eperm, ""},
		{"get config, private by slashes", OpGetConfig, cat("//priv//key", 0), 0, eperm, "secret"},
		{"get config, node's private", OpGetConfig, cat("nodes/one/priv/key", 0), 0, eperm, "secret"},
		{"get config, node's private by slashes", OpGetConfig, cat("nodes//one/./priv/key", 0), 0, eperm, "secret"},

		{"log", OpLog, cat(6, 5, 4, "root", 0, "tag", 0, "message", 0), 0, eperm, ""},
		{"log, all empty", OpLog, cat(0, 1, 1, 0, 0, 0), 0, eperm, ""},
		{"log, priority 7", OpLog, cat(7, 2, 2, "r", 0, "t", 0, "m", 0), 0, eperm, ""},
		{"log, priority 8", OpLog, cat(8, 2, 2, "r", 0, "t", 0, "m", 0), 0, eperm, ""},
		{"log, priority 255", OpLog, cat(255, 2, 2, "r", 0, "t", 0, "m", 0), 0, eperm, ""},
		{"log, nothing", OpLog, nil, einval, eperm, ""},
		{"log, only the head", OpLog, cat(6, 2, 2), einval, eperm, ""},
		{"log, no message", OpLog, cat(6, 2, 2, "r", 0, "t", 0), einval, eperm, ""},
		{"log, message without NUL", OpLog, cat(6, 2, 2, "r", 0, "t", 0, "m"), einval, eperm, ""},
		{"log, NUL in the message", OpLog, cat(6, 2, 2, "r", 0, "t", 0, "m", 0, "m", 0), einval, eperm, ""},
		{"log, ident without NUL", OpLog, cat(6, 1, 2, "r", "t", 0, "m", 0), einval, eperm, ""},
		{"log, ident length 0", OpLog, cat(6, 0, 2, "t", 0, "m", 0), einval, eperm, ""},
		{"log, tag length 0", OpLog, cat(6, 2, 0, "r", 0, "m", 0), einval, eperm, ""},
		{"log, lengths too long", OpLog, cat(6, 255, 255, "r", 0, "t", 0, "m", 0), einval, eperm, ""},
		{"log, longest names", OpLog, cat(6, 255, 255, long(254), 0, long(254), 0, "m", 0), 0, eperm, ""},

		{"get log", OpGetLog, cat(u(3), u(0), u(0), u(0), 0), 0, 0, log(3, "")},
		{"get log, default", OpGetLog, cat(u(0), u(0), u(0), u(0), "root@pam", 0), 0, 0, log(50, "root@pam")},
		{"get log, user without NUL", OpGetLog, cat(u(1), u(7), u(7), u(7), "root"), 0, 0, log(1, "root")},
		{"get log, most", OpGetLog, cat(u(1<<32-1), u(0), u(0), u(0), 0), 0, 0, log(65536, "")},
		{"get log, no user", OpGetLog, cat(u(3), u(0), u(0), u(0)), einval, einval, ""},
		{"get log, nothing", OpGetLog, nil, einval, einval, ""},

		{"rrd dump", OpRRDDump, nil, 0, 0, (*status.Store).RRDWithNUL},
		{"rrd dump with data", OpRRDDump, cat(0), einval, einval, ""},

		{"property of one", OpGuestProperty, cat(u(100), "name", 0), 0, 0, "{\n\"100\": {\"name\":\"web\"}\n}\n"},
		{"property without NUL", OpGuestProperty, cat(u(100), "name"), 0, 0, "{\n\"100\": {\"name\":\"web\"}\n}\n"},
		{"property of all", OpGuestProperty, cat(u(0), "name", 0), 0, 0, "{\n\"100\": {\"name\":\"web\"},\n\"101\": {\"name\":\"db\"}\n}\n"},
		{"property that nobody has", OpGuestProperty, cat(u(0), "other", 0), 0, 0, "{\n}\n"},
		{"property of an empty configuration", OpGuestProperty, cat(u(102), "name", 0), 0, 0, "{\n}\n"},
		{"property, no such guest", OpGuestProperty, cat(u(103), "name", 0), enoent, enoent, ""},
		{"property, VMID 1", OpGuestProperty, cat(u(1), "name", 0), einval, einval, ""},
		{"property, VMID 99", OpGuestProperty, cat(u(99), "name", 0), einval, einval, ""},
		{"property, largest VMID", OpGuestProperty, cat(u(1<<32-1), "name", 0), enoent, enoent, ""},
		{"property, none", OpGuestProperty, cat(u(100)), einval, einval, ""},
		{"property, empty", OpGuestProperty, cat(u(100), 0), einval, einval, ""},
		{"property, short", OpGuestProperty, cat("abc"), einval, einval, ""},
		{"property of a comment", OpGuestProperty, cat(u(0), "#note", 0), 0, 0, "{\n\"100\": {\"#note\":\"x\"}\n}\n"},
		{"property with a capital", OpGuestProperty, cat(u(0), "LOCK", 0), 0, 0, "{\n\"101\": {\"LOCK\":\"y\"}\n}\n"},
		{"property without a value", OpGuestProperty, cat(u(101), "empty", 0), 0, 0, "{\n}\n"},
		{"property of white space", OpGuestProperty, cat(u(101), "white", 0), 0, 0, "{\n}\n"},
		{"properties, some without a value", OpGuestProperties, cat(u(0), 3, "empty", 0, "name", 0, "white", 0), 0, 0,
			"{\n\"100\": {\"name\":\"web\"},\n\"101\": {\"name\":\"db\"}\n}\n"},

		{"verify token", OpVerifyToken, cat("root@pam!a 1-2", 0), 0, 0, ""},
		{"verify the last token", OpVerifyToken, cat("root@pam!b 3-4", 0), 0, 0, ""},
		{"verify token, absent", OpVerifyToken, cat("root@pam!a 1-3", 0), enoent, enoent, ""},
		{"verify token, part of one", OpVerifyToken, cat("root@pam!a 1-", 0), enoent, enoent, ""},
		{"verify token, nothing", OpVerifyToken, nil, einval, einval, ""},
		{"verify token, empty", OpVerifyToken, cat(0), einval, einval, ""},
		{"verify token without NUL", OpVerifyToken, cat("root@pam!a 1-2"), einval, einval, ""},
		{"verify token, two lines", OpVerifyToken, cat("root@pam!a 1-2\nroot@pam!b 3-4", 0), einval, einval, ""},
		{"verify token, NUL inside", OpVerifyToken, cat("root@pam!a 1-2", 0, 0), einval, einval, ""},

		{"properties", OpGuestProperties, cat(u(0), 2, "name", 0, "memory", 0), 0, 0,
			"{\n\"100\": {\"name\":\"web\",\"memory\":\"512\"},\n\"101\": {\"name\":\"db\"}\n}\n"},
		{"properties of one", OpGuestProperties, cat(u(100), 1, "memory", 0), 0, 0, "{\n\"100\": {\"memory\":\"512\"}\n}\n"},
		{"properties, one twice", OpGuestProperties, cat(u(100), 2, "name", 0, "name", 0), 0, 0, "{\n\"100\": {\"name\":\"web\"}\n}\n"},
		{"properties, 255 of them", OpGuestProperties, cat(u(100), 255, strings.Repeat("a\x00", 254), "name", 0), 0, 0, "{\n\"100\": {\"name\":\"web\"}\n}\n"},
		{"properties, no such guest", OpGuestProperties, cat(u(4711), 1, "name", 0), enoent, enoent, ""},
		{"properties, VMID 50", OpGuestProperties, cat(u(50), 1, "name", 0), einval, einval, ""},
		{"properties, count 0", OpGuestProperties, cat(u(0), 0), einval, einval, ""},
		{"properties, no count", OpGuestProperties, cat(u(0)), einval, einval, ""},
		{"properties, short", OpGuestProperties, cat("a"), einval, einval, ""},
		{"properties, count too large", OpGuestProperties, cat(u(0), 2, "name", 0), einval, einval, ""},
		{"properties, bytes left over", OpGuestProperties, cat(u(0), 1, "name", 0, 0), einval, einval, ""},
		{"properties, no NUL", OpGuestProperties, cat(u(0), 1, "name"), einval, einval, ""},
		{"properties, an empty one", OpGuestProperties, cat(u(0), 2, "name", 0, 0), einval, einval, ""},
		{"properties, capital", OpGuestProperties, cat(u(0), 1, "Name", 0), einval, einval, ""},
	}
	for _, op := range []int32{0, 9, 14, 100, -1, -2, 1<<31 - 1, -1 << 31} {
		s = append(s, sample{fmt.Sprintf("op %d", op), op, cat("data"), syscall.ECHRNG, syscall.ECHRNG, ""})
	}
	return s
}

func u(n uint32) uint32 { return n }

func sampleSite(t testing.TB) *site {
	s := newSite(t)
	s.write(t, "storage.cfg", "dir: local")
	s.write(t, "empty", "")
	s.write(t, "ha/x", "ha")
	s.write(t, "priv/key", "secret")
	s.write(t, "nodes/one/priv/key", "secret")
	s.write(t, "priv/token.cfg", "root@pam!a 1-2\n\nroot@pam!b 3-4")
	s.write(t, ".version", "hidden by the special file")
	s.write(t, "local/config", "hidden by the link")
	s.write(t, confOf(100), "#note: x\nname: db\nmemory: 512\nname: web\n[snap]\nname: old\n")
	s.write(t, confOf(101), "name:   db \t\r\nLOCK: y\nempty:\nwhite: \t\nname:\n")
	s.write(t, confOf(102), "")
	s.setSampleValues(t)
	s.set(t, "rrd/pve-node-9.0/one", "1:2\x00")
	s.deliver(t, postedValue, cat(name256("here"), "two's"))
	for i := range 2 * defaultLogEntries {
		s.store.Log(clusterlog.Message{Ident: []string{"root@pam", "root"}[i%2], Tag: "x", Text: fmt.Sprint(i)})
	}
	s.group.posted = nil
	return s
}

func (s *site) setSampleValues(t testing.TB) {
	s.set(t, "here", "mine")
	s.set(t, strings.Repeat("x", 255), "of 255")
}

func TestEveryOpAndItsErrors(t *testing.T) {
	for _, s := range samples() {
		for _, access := range []Access{Full, ReadOnly} {
			errno := s.full
			if access == ReadOnly {
				errno = s.ro
			}
			site := sampleSite(t)
			out, got := site.direct(t, access).Serve(s.op, s.data)
			switch {
			case got != errno:
				t.Errorf("%s, access %d: got %v, want %v", s.name, access, got, errno)
			case errno == 0 && string(out) != s.answer(site):
				t.Errorf("%s, access %d: got %q, want %q", s.name, access, out, s.answer(site))
			}
		}
	}
}

func TestAuthorize(t *testing.T) {
	for _, c := range []struct {
		uid, gid uint32
		want     Access
	}{
		{0, 0, Full}, {0, 33, ReadOnly}, {33, 33, ReadOnly}, {1000, 33, ReadOnly},
		{33, 0, Refused}, {1000, 0, Refused}, {0, 1000, Refused}, {1000, 1000, Refused}, {0, 1<<32 - 1, Refused},
	} {
		if got := Authorize(c.uid, c.gid, 33); got != c.want {
			t.Errorf("uid %d, gid %d: %d, want %d", c.uid, c.gid, got, c.want)
		}
	}
}

func TestSetStatusPassesKeyAndValue(t *testing.T) {
	s := newSite(t)
	c := s.direct(t, Full)
	if _, errno := c.Serve(OpSetStatus, cat(name256("k"), "v\x00v")); errno != 0 {
		t.Fatal(errno)
	}
	if got, ok := s.store.Get("k", ""); !ok || string(got) != "v\x00v" {
		t.Fatalf("got %q, %v", got, ok)
	}
	if _, errno := c.Serve(OpSetStatus, name256("k")); errno != 0 {
		t.Fatal(errno)
	}
	if got, ok := s.store.Get("k", ""); ok {
		t.Fatalf("not deleted: %q", got)
	}
}

func TestTheStoresErrorsBecomeErrnos(t *testing.T) {
	for err, want := range map[error]syscall.Errno{
		nil:                                0,
		status.ErrFull:                     syscall.ENOSPC,
		errors.New("no errno"):             syscall.EIO,
		fmt.Errorf("%w", syscall.Errno(0)): syscall.EIO,
	} {
		if got := errnoOf(err); got != want {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestLogEntryIsWhatTheRequestSays(t *testing.T) {
	s := newSite(t)
	c := s.direct(t, Full)
	if _, errno := c.Serve(OpLog, cat(6, 5, 4, "root", 0, "tag", 0, "m\n\xff", 0)); errno != 0 {
		t.Fatal(errno)
	}
	want := entry{Pri: 6, PID: 4321, Node: "one", User: "root", Tag: "tag", Msg: "m#010?"}
	if got := s.log(t)[0]; got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if _, errno := c.Serve(OpLog, cat(8, 1, 1, 0, 0, 0)); errno != 0 || s.log(t)[0] != want {
		t.Fatalf("priority 8: %v, %+v", errno, s.log(t)[0])
	}
}

// want asks and compares.
func (c *client) want(t *testing.T, op int32, data []byte, answer string, errno syscall.Errno) {
	t.Helper()
	if got, e := c.Serve(op, data); string(got) != answer || e != errno {
		t.Errorf("op %d, %.40q: %.80q, %v, want %.80q, %v", op, data, got, e, answer, errno)
	}
}

func TestTokensFollowTheirFile(t *testing.T) {
	s := newSite(t)
	c := s.direct(t, ReadOnly)
	token := cat("user@pve!two 2222", 0)
	c.want(t, OpVerifyToken, token, "", enoent)
	s.write(t, tokenFile, "root@pam!one 1111\nuser@pve!two 2222\n")
	c.want(t, OpVerifyToken, token, "", 0)
	s.write(t, tokenFile, "root@pam!one 1111\nuser@pve!two 2223\n")
	c.want(t, OpVerifyToken, token, "", enoent)
	s.remove(t, tokenFile)
	c.want(t, OpVerifyToken, token, "", enoent)
}

func TestValuesOfBothNodes(t *testing.T) {
	s := newSite(t)
	c := s.direct(t, Full)
	get := func(key, node string) []byte { return cat(name256(key), name256(node)) }
	c.want(t, OpSetStatus, cat(name256("k"), "value"), "", 0)
	c.want(t, OpGetStatus, get("k", ""), "value", 0)
	c.want(t, OpGetStatus, get("k", "one"), "value", 0)
	c.want(t, OpGetStatus, get("k", "two"), "", enoent)
	s.deliver(t, postedValue, cat(name256("k"), "theirs"))
	c.want(t, OpGetStatus, get("k", "two"), "theirs", 0)

	c.want(t, OpSetStatus, cat(name256("nodeip"), "10.0.0.1", 0), "", 0)
	c.want(t, OpSetStatus, cat(name256("nodeip"), "10.0.0.2"), "", syscall.ENOMEM)
	if members, _ := c.Serve(OpClusterInfo, nil); !strings.Contains(string(members), `"ip": "10.0.0.1"`) {
		t.Errorf("members are %s", members)
	}
	c.want(t, OpRRDDump, nil, "\x00", 0)
	s = newSite(t)
	c = s.direct(t, Full)
	c.want(t, OpSetStatus, cat(name256("rrd/k"), "1:2", 0), "", 0)
	c.want(t, OpSetStatus, cat(name256("rrd/k"), "1\n2", 0), "", syscall.ENOMEM)
	c.want(t, OpSetStatus, cat(name256("rrd/"), "1", 0), "", einval)
	c.want(t, OpRRDDump, nil, "k:1:2\n\x00", 0)
	for i := range 5000 {
		if _, errno := c.Serve(OpSetStatus, cat(name256(fmt.Sprint(i)), "v")); errno != 0 {
			if errno != syscall.ENOSPC || i < 4000 {
				t.Errorf("key %d: %v", i, errno)
			}
			return
		}
	}
	t.Error("there is no end of keys")
}

func TestTheLogOfBothNodes(t *testing.T) {
	s := newSite(t)
	c := s.direct(t, Full)
	c.want(t, OpLog, cat(3, 9, 5, "root@pam", 0, "test", 0, `a "text"`, 0), "", 0)
	other, err := clusterlog.New(clusterlog.Config{Node: "two", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	s.deliver(t, postedLog, other.Add(clusterlog.Message{Ident: "root", Tag: "x", Text: "theirs"}))
	if all := s.log(t); len(all) != 3 || all[0].Msg != "theirs" || all[0].Node != "two" {
		t.Errorf("the log is %+v", all)
	}
	c.want(t, OpGetLog, cat(u(2), u(0), u(0), u(0), 0), string(s.store.ClusterLog(2, "")), 0)
}

// observer is an Observer that keeps all.
type observer struct {
	t      *testing.T
	timed  []int32
	failed map[int32]syscall.Errno
}

func (o *observer) Took(op int32, took time.Duration) {
	if took < 0 || took > time.Minute {
		o.t.Errorf("op %d took %v", op, took)
	}
	o.timed = append(o.timed, op)
}

func (o *observer) Failed(op int32, errno syscall.Errno) { o.failed[op] = errno }

func TestRequestsAreCountedAndObserved(t *testing.T) {
	s := newSite(t)
	c := s.direct(t, Full)
	o := &observer{t: t, failed: map[int32]syscall.Errno{}}
	c.service.cfg.Observer = o
	c.Serve(OpVersion, nil)
	c.Serve(OpGetConfig, cat("x", 0))
	c.Serve(4711, nil)
	c.Serve(OpRRDDump, nil)
	if want := []int32{OpVersion, OpGetConfig, 0, OpRRDDump}; !slices.Equal(o.timed, want) {
		t.Errorf("timed are %v, want %v", o.timed, want)
	}
	if want := map[int32]syscall.Errno{OpGetConfig: enoent, 0: syscall.ECHRNG}; !maps.Equal(o.failed, want) {
		t.Errorf("failed are %v, want %v", o.failed, want)
	}
	for range 4*timeEvery - 1 {
		c.Serve(OpVersion, nil)
		c.Serve(OpRRDDump, nil)
	}
	timed := map[int32]int{}
	for _, op := range o.timed {
		timed[op]++
	}
	if timed[OpVersion] != 4 || timed[OpRRDDump] != 4*timeEvery {
		t.Errorf("timed are %v", timed)
	}
	want := Stats{0: 1, OpVersion: 4 * timeEvery, OpGetConfig: 1, OpRRDDump: 4 * timeEvery}
	if got := c.service.Requests(); got != want {
		t.Errorf("counted are %v, want %v", got, want)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := Start(Config{}); err == nil {
		t.Fatal("started without a tree and a store")
	}
}
