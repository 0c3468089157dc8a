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
)

// sample is a request and what it is answered with, by access.
type sample struct {
	name string
	op   int32
	data []byte
	full syscall.Errno
	ro   syscall.Errno
	want string // with errno 0
}

func samples() []sample {
	long := func(n int) string { return strings.Repeat("x", n) }
	s := []sample{
		{"version", OpVersion, nil, 0, 0, `{"starttime":1}`},
		{"version with data", OpVersion, cat(0), einval, einval, ""},
		{"cluster info", OpClusterInfo, nil, 0, 0, `{"nodename":"one"}`},
		{"cluster info with data", OpClusterInfo, cat("x"), einval, einval, ""},
		{"guest list", OpGuestList, nil, 0, 0, `{"version":1}`},
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

		{"get log", OpGetLog, cat(u(3), u(0), u(0), u(0), 0), 0, 0, `{"max":3,"user":""}`},
		{"get log, default", OpGetLog, cat(u(0), u(0), u(0), u(0), "root@pam", 0), 0, 0, `{"max":50,"user":"root@pam"}`},
		{"get log, user without NUL", OpGetLog, cat(u(1), u(7), u(7), u(7), "root"), 0, 0, `{"max":1,"user":"root"}`},
		{"get log, most", OpGetLog, cat(u(1<<32-1), u(0), u(0), u(0), 0), 0, 0, `{"max":65536,"user":""}`},
		{"get log, no user", OpGetLog, cat(u(3), u(0), u(0), u(0)), einval, einval, ""},
		{"get log, nothing", OpGetLog, nil, einval, einval, ""},

		{"rrd dump", OpRRDDump, nil, 0, 0, "pve-node-9.0/one:1:2\n\x00"},
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

func sampleFakes() *fakes {
	f := newFakes()
	f.files["storage.cfg"] = []byte("dir: local")
	f.files["empty"] = nil
	f.files["ha/x"] = []byte("ha")
	f.files["priv/key"] = []byte("secret")
	f.files["nodes/one/priv/key"] = []byte("secret")
	f.files["priv/token.cfg"] = []byte("root@pam!a 1-2\n\nroot@pam!b 3-4")
	f.files[".version"] = []byte("hidden by the special file")
	f.files["local/config"] = []byte("hidden by the link")
	f.guests[100] = []byte("#note: x\nname: db\nmemory: 512\nname: web\n[snap]\nname: old\n")
	f.guests[101] = []byte("name:   db \t\r\nLOCK: y\nempty:\nwhite: \t\nname:\n")
	f.guests[102] = nil
	f.values[[2]string{"", "here"}] = []byte("mine")
	f.values[[2]string{"two", "here"}] = []byte("two's")
	f.values[[2]string{"", strings.Repeat("x", 255)}] = []byte("of 255")
	return f
}

func TestEveryOpAndItsErrors(t *testing.T) {
	for _, s := range samples() {
		for _, access := range []Access{Full, ReadOnly} {
			errno := s.full
			if access == ReadOnly {
				errno = s.ro
			}
			out, got := sampleFakes().direct(t, access).Serve(s.op, s.data)
			switch {
			case got != errno:
				t.Errorf("%s, access %d: got %v, want %v", s.name, access, got, errno)
			case errno == 0 && string(out) != s.want:
				t.Errorf("%s, access %d: got %q, want %q", s.name, access, out, s.want)
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
	f := newFakes()
	c := f.direct(t, Full)
	if _, errno := c.Serve(OpSetStatus, cat(name256("k"), "v\x00v")); errno != 0 {
		t.Fatal(errno)
	}
	if got := f.values[[2]string{"", "k"}]; string(got) != "v\x00v" {
		t.Fatalf("got %q", got)
	}
	if _, errno := c.Serve(OpSetStatus, name256("k")); errno != 0 || len(f.values) != 0 {
		t.Fatalf("not deleted: %v, %v", errno, f.values)
	}
}

func TestSourcesErrorsBecomeErrnos(t *testing.T) {
	for err, want := range map[error]syscall.Errno{
		fmt.Errorf("wrapped: %w", syscall.EFBIG): syscall.EFBIG,
		errors.New("no errno"):                   syscall.EIO,
		fmt.Errorf("%w", syscall.Errno(0)):       syscall.EIO,
	} {
		f := newFakes()
		f.setErr, f.addErr = err, err
		c := f.direct(t, Full)
		if _, errno := c.Serve(OpSetStatus, cat(name256("k"), "v")); errno != want {
			t.Errorf("set: %v became %v", err, errno)
		}
		if _, errno := c.Serve(OpLog, cat(1, 1, 1, 0, 0, 0)); errno != want {
			t.Errorf("log: %v became %v", err, errno)
		}
	}
}

func TestLogEntryIsWhatTheRequestSays(t *testing.T) {
	f := newFakes()
	c := f.direct(t, Full)
	if _, errno := c.Serve(OpLog, cat(6, 5, 4, "root", 0, "tag", 0, "m\n\xff", 0)); errno != 0 {
		t.Fatal(errno)
	}
	want := LogEntry{Priority: 6, PID: 4321, Ident: "root", Tag: "tag", Message: "m\n\xff"}
	if got := f.lastLogged(t); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if _, errno := c.Serve(OpLog, cat(8, 1, 1, 0, 0, 0)); errno != 0 || len(f.logged) != 1 {
		t.Fatalf("priority 8: %v, %d entries", errno, len(f.logged))
	}
}

func TestRRDDumpEndsInANULAlways(t *testing.T) {
	f := newFakes()
	for _, have := range []string{"", "a:1\n", "a:1\n\x00", "\x00"} {
		f.rrd = []byte(have)
		got, _ := f.direct(t, Full).Serve(OpRRDDump, nil)
		if want := strings.TrimSuffix(have, "\x00") + "\x00"; string(got) != want {
			t.Errorf("%q became %q", have, got)
		}
	}
}

func TestVerifyTokenWithoutAFile(t *testing.T) {
	if _, errno := newFakes().direct(t, Full).Serve(OpVerifyToken, cat("a", 0)); errno != enoent {
		t.Fatalf("got %v", errno)
	}
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
	f := newFakes()
	c := f.direct(t, Full)
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
		t.Fatal("started without sources")
	}
}
