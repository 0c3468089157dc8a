package logging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/internal/event"
	"pmxcfs/internal/testutil"
)

// decodeNative takes an entry of the journal's native protocol apart.
func decodeNative(t testing.TB, b []byte) map[string][]string {
	t.Helper()
	fields := map[string][]string{}
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte{'\n'})
		if !ok {
			t.Fatalf("a line without end: %q", b)
		}
		name, value, ok := bytes.Cut(line, []byte{'='})
		b = rest
		if !ok {
			if len(b) < 8 {
				t.Fatalf("%s: no length", name)
			}
			n := binary.LittleEndian.Uint64(b)
			if uint64(len(b)) < 8+n+1 || b[8+n] != '\n' {
				t.Fatalf("%s: length %d of %d bytes", name, n, len(b))
			}
			value, b = b[8:8+n], b[8+n+1:]
		}
		if strings.Trim(string(name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || name[0] == '_' {
			t.Fatalf("%q is no field's name", name)
		}
		fields[string(name)] = append(fields[string(name)], string(value))
	}
	return fields
}

// recorder collects what a logger writes.
type recorder struct {
	list []*record
}

func (e *recorder) logger() *slog.Logger {
	return slog.New(newHandler(slog.LevelDebug, func(r *record) { e.list = append(e.list, r) }))
}

func TestEventsAndFieldsGoToTheJournalAndNotIntoTheText(t *testing.T) {
	var e recorder
	log := e.logger().With(domainKey, "dcdb").With(event.Fields("group", "g1"))
	err := fmt.Errorf("storing: %w", &os.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC})
	log.Error("it failed", "changes", 3, "error", err, event.DiskFull.Attr("took", 1500*time.Millisecond, "since", time.UnixMicro(42)))
	if len(e.list) != 1 {
		t.Fatalf("%d entries", len(e.list))
	}
	if want := "it failed changes=3: " + err.Error(); e.list[0].text != want {
		t.Errorf("the text is %q, want %q", e.list[0].text, want)
	}
	got := decodeNative(t, appendNative(nil, e.list[0]))
	for name, want := range map[string]string{
		"MESSAGE": "[dcdb] " + e.list[0].text, "MESSAGE_ID": messageID(event.DiskFull), "PMXCFS_EVENT": "disk-full",
		"PRIORITY": "3", "SYSLOG_IDENTIFIER": "pmxcfs", "SYSLOG_FACILITY": "3", "SYSLOG_PID": strconv.Itoa(os.Getpid()),
		"PMXCFS_DOMAIN": "dcdb", "PMXCFS_GROUP": "g1", "PMXCFS_CHANGES": "3", "PMXCFS_ERROR": err.Error(),
		"ERRNO": strconv.Itoa(int(syscall.ENOSPC)), "PMXCFS_TOOK_USEC": "1500000", "PMXCFS_SINCE_USEC": "42",
	} {
		if !slices.Equal(got[name], []string{want}) {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("beside that: %q", got)
	}
}

func TestLineWithoutEventHasNoMessageID(t *testing.T) {
	var e recorder
	e.logger().Info("members: 1/2", event.Fields("members", "1/2"))
	got := decodeNative(t, appendNative(nil, e.list[0]))
	if got["MESSAGE"][0] != "[] members: 1/2" || got["PMXCFS_MEMBERS"][0] != "1/2" || got["MESSAGE_ID"] != nil {
		t.Errorf("%q", got)
	}
}

func TestLevelsAreSyslogs(t *testing.T) {
	for level, want := range map[slog.Level]int{
		event.LevelCritical: 2, slog.LevelError: 3, slog.LevelWarn: 4, event.LevelNotice: 5, slog.LevelInfo: 6, slog.LevelDebug: 7,
		slog.LevelError + 100: 2, slog.LevelDebug - 100: 7,
	} {
		if got := priority(level); got != want {
			t.Errorf("%v is %d, want %d", level, got, want)
		}
		textWriter{io.Discard}.write(&record{level: level}) // has a word for it
	}
}

func FuzzNative(f *testing.F) {
	f.Add("a text", "key", "value")
	f.Add("two\nlines\n", "", "\n")
	f.Add("\x00=\n", "Ünicode =x", "a=b\nc")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		r := &record{text: text, domain: "d", attrs: []slog.Attr{slog.String(key, value)}}
		got := decodeNative(t, appendNative(nil, r))
		if !slices.Contains(got["MESSAGE"], "[d] "+text) || !slices.Contains(got[fieldName(key)], value) {
			t.Errorf("%q", got)
		}
	})
}

// journalAt is a connection to a journal that listens on a socket of the test's.
func journalAt(t *testing.T) (*journal, *net.UnixConn) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "socket")
	srv := testutil.ListenUnixgram(t, name)
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &journal{conn: conn, native: true, dial: func() *journal { return nil }}, srv
}

// A journal that was restarted has another socket; until it is there, or if only a
// syslog is, records are lost and counted.
func TestRecordsThatNobodyTakesAreCounted(t *testing.T) {
	j, srv := journalAt(t)
	srv.Close()
	dialled := 0
	var other *net.UnixConn
	j.dial = func() *journal {
		if dialled++; dialled == 1 {
			return nil
		}
		syslog, _ := journalAt(t)
		syslog.native, other = false, syslog.conn
		return syslog
	}
	for range 2 {
		j.write(&record{text: "lost"})
	}
	if dialled != 2 || j.lost != 2 {
		t.Errorf("dialled %d times, %d records are counted as lost", dialled, j.lost)
	}
	if err := other.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection to the syslog stays open: %v", err)
	}
	again, srv := journalAt(t)
	j.dial = func() *journal { return again }
	j.write(&record{text: "taken"})
	for _, want := range []string{"2 messages could not be logged", "taken"} {
		if got := decodeNative(t, []byte(testutil.Receive(t, srv))); !strings.Contains(got["MESSAGE"][0], want) {
			t.Errorf("the entry is %q, want %q", got["MESSAGE"], want)
		}
	}
	if j.lost != 0 {
		t.Errorf("%d are still counted as lost", j.lost)
	}
}

func TestEveryEntryHasTheNode(t *testing.T) {
	j, srv := journalAt(t)
	name := "node1"
	j.node.Store(&name)
	j.write(&record{text: "text"})
	if got := decodeNative(t, []byte(testutil.Receive(t, srv))); got["PMXCFS_NODE"][0] != name {
		t.Errorf("%q", got)
	}
	j.write(&record{text: "text", attrs: []slog.Attr{slog.String("node", "node2")}})
	if got := decodeNative(t, []byte(testutil.Receive(t, srv))); !slices.Equal(got["PMXCFS_NODE"], []string{"node2"}) {
		t.Errorf("%q", got)
	}
}

func TestEntryThatIsTooLargeForADatagramGoesBySealedMemory(t *testing.T) {
	j, srv := journalAt(t)
	text := strings.Repeat("rows and rows\n", 1<<16)
	j.write(&record{text: text})
	oob := make([]byte, unix.CmsgSpace(4))
	if err := srv.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, n, _, _, err := srv.ReadMsgUnix(make([]byte, 16), oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer f.Close()
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL; err != nil || seals != want {
		t.Errorf("its seals are %#x, %v", seals, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if got := decodeNative(t, b); got["MESSAGE"][0] != "[] "+text {
		t.Error("it is another text")
	}
}

func TestJournalThatDoesNotReadHoldsNobodyUpAndHearsHowMuchWasLost(t *testing.T) {
	j, srv := journalAt(t)
	begin := time.Now()
	const all = 20_000
	for i := range all {
		j.write(&record{text: strconv.Itoa(i)})
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if j.lost == 0 {
		t.Fatal("nothing was lost: the kernel queues too much for this test")
	}
	read := all - j.lost
	for i := range read {
		if got := decodeNative(t, []byte(testutil.Receive(t, srv))); got["MESSAGE"][0] != "[] "+strconv.Itoa(i) {
			t.Fatalf("entry %d says %q", i, got["MESSAGE"])
		}
	}
	j.quiet = time.Time{} // the pause is over
	lost := j.lost
	j.write(&record{text: "last"})
	if got := decodeNative(t, []byte(testutil.Receive(t, srv))); !strings.Contains(got["MESSAGE"][0], fmt.Sprintf("%d messages could not be logged", lost)) {
		t.Errorf("then it says %q", got["MESSAGE"])
	}
	if got := decodeNative(t, []byte(testutil.Receive(t, srv))); got["MESSAGE"][0] != "[] last" {
		t.Errorf("then it says %q", got["MESSAGE"])
	}
	if errors.Is(j.conn.Close(), net.ErrClosed) {
		t.Error("the connection was given up")
	}
}
