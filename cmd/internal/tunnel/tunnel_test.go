package tunnel

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
)

// recording is a call of the stock tool.
type recording struct {
	Name      string
	Args      []string
	Quorate   bool
	Addresses []string
	Stdin     string
	Stdout    string
	Exit      any
	Error     string
	SocketIn  string `json:"socket_in"`
	SocketOut string `json:"socket_out"`
}

// options reads the arguments, which the command line's own tests are about.
func options(args []string) (o Options) {
	if i := slices.Index(args, "--"); i >= 0 {
		args, o.Command = args[:i], args[i+1:]
	}
	for i := 1; i < len(args); i++ {
		switch strings.TrimLeft(args[i], "-") {
		case "get_migration_ip":
			o.Address = true
		case "migration_network":
			i++
			o.Network = args[i]
		case "run-command":
			o.Run = true
		}
	}
	return o
}

func testHost(t *testing.T) *host.Host {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"etc/pve", "var/tmp", "var/lock"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &host.Host{Root: root, Name: "node1", Stderr: io.Discard, Writable: func() bool { return true }}
}

// interfaces reads lines as "10.99.0.1/24 on eth0" or "10.44.0.1 peer 10.44.0.2/32 on eth0".
func interfaces(lines []string) (list []host.Interface) {
	for _, l := range lines {
		f := strings.Fields(l)
		if !strings.Contains(f[0], "/") {
			f[0] += "/32"
		}
		list = append(list, host.Interface{Name: f[len(f)-1], Prefix: netip.MustParsePrefix(f[0]), Up: true})
	}
	return list
}

func TestCallsAreAnsweredAsRecorded(t *testing.T) {
	b, err := os.ReadFile("testdata/mtunnel.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []recording
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		t.Run(r.Name, func(t *testing.T) {
			h := testHost(t)
			h.Writable = func() bool { return r.Quorate }
			h.Interfaces = func() ([]host.Interface, error) { return interfaces(r.Addresses), nil }
			in := strings.NewReader(r.Stdin)
			h.Stdin = in
			out, tell := io.Pipe()
			h.Stdout = tell
			o := options(r.Args)
			o.accept = 300 * time.Millisecond
			if o.Run && len(o.Command) > 0 {
				// The recorded addresses are not this machine's: everything is on loopback.
				o.Network = "127.0.0.0/8"
				h.Interfaces = func() ([]host.Interface, error) {
					return interfaces([]string{"127.0.0.1/8 on lo"}), nil
				}
			}
			failed := make(chan error, 1)
			go func() {
				failed <- Serve(t.Context(), h, o)
				tell.Close()
			}()
			said, answer := listenTo(t, out, r.SocketIn, r.Error != "timeout")
			err := <-failed
			want := r.Stdout
			if o.Run && want != "" {
				want = strings.Replace(want, "10.99.0.1", "127.0.0.1", 1)
			}
			if r.Error == "internal" { // a defect of the stock tool
				want, r.Exit = "no ip\n", 0.0
			}
			if said != want {
				t.Errorf("said %q, want %q", said, want)
			}
			if (err == nil) != (r.Exit == 0.0) {
				t.Errorf("%v, recorded %v", err, r.Exit)
			}
			if answer != r.SocketOut {
				t.Errorf("answered %q, want %q", answer, r.SocketOut)
			}
			wantCode := map[string]plan.Code{"parameter": plan.Parameters, "usage": plan.Parameters, "timeout": plan.Timeout}[r.Error]
			if wantCode != 0 && plan.CodeOf(err) != wantCode {
				t.Errorf("status %d, want %d (%v)", plan.CodeOf(err), wantCode, err)
			}
			if r.Name == "tunnel, other lines are ignored, what follows quit is not read" && in.Len() > len(r.Stdin) {
				t.Error("nothing was read")
			}
		})
	}
	if len(all) < 20 {
		t.Errorf("only %d recordings", len(all))
	}
}

// listenTo reads what is said; told an address and a port, it connects, sends something and
// returns the answer.
func listenTo(t *testing.T, out io.Reader, send string, connect bool) (said, answer string) {
	t.Helper()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		said += line
		if err != nil {
			return said, answer
		}
		if f := strings.Fields(said); len(f) == 2 && strings.Count(said, "\n") == 2 && connect && !strings.Contains(said, "tunnel") && !strings.Contains(said, "no") {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(f[0], f[1]), 5*time.Second)
			if err != nil {
				t.Error(err)
				continue
			}
			fmt.Fprint(c, send)
			_ = c.(*net.TCPConn).CloseWrite()
			b, _ := io.ReadAll(c)
			c.Close()
			answer = string(b)
		}
	}
}

func TestPortsAreReservedForFiveSeconds(t *testing.T) {
	h := testHost(t)
	now := time.Unix(1000000, 0)
	h.Now = func() time.Time { return now }
	old := fmt.Sprintf("60000 %d\n60001 %d\n60002 %d\nx\n61000 %d\n70000 1\n", now.Unix()-6, now.Unix()-5, now.Unix()+100, now.Unix())
	if err := os.WriteFile(h.Path(portsFile), []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddr("127.0.0.7") // others use 127.0.0.1
	want := []int{60000, 60002, 60003}
	for _, port := range want {
		l, err := listen(t.Context(), h, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if got := l.Addr().(*net.TCPAddr).Port; got != port {
			t.Errorf("port %d, want %d", got, port)
		}
	}
	text, err := h.ReadFile(portsFile)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("60000 %[1]d\n60001 %[2]d\n60002 %[1]d\n60003 %[1]d\n61000 %[1]d\n", now.Unix(), now.Unix()-5); string(text) != want {
		t.Errorf("listed: %q, want %q", text, want)
	}
}

func TestWithoutANetworkDatacenterDecides(t *testing.T) {
	for conf, want := range map[string]string{
		"": "no ip\n", "migration: secure\n": "no ip\n", "migration: secure,network=10.98.0.9/16\n": "ip: '10.98.0.1'\n",
	} {
		h := testHost(t)
		if err := os.WriteFile(h.Path("/etc/pve/datacenter.cfg"), []byte(conf), 0o644); err != nil {
			t.Fatal(err)
		}
		h.Interfaces = func() ([]host.Interface, error) {
			return interfaces([]string{"10.99.0.1/24 on eth0", "10.98.0.1/24 on eth1"}), nil
		}
		var out strings.Builder
		h.Stdout = &out
		if err := Serve(t.Context(), h, Options{Address: true}); err != nil || out.String() != want {
			t.Errorf("%q: %q, %v; want %q", conf, out.String(), err, want)
		}
	}
}

func FuzzReservedPorts(f *testing.F) {
	f.Add([]byte("60000 1000000\nx y\n-1 1\n99999999999999999999 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for port := range freshPorts(b, time.Unix(1000000, 0)) {
			if port < 1 || port > 65535 {
				t.Errorf("port %d of %q", port, b)
			}
		}
	})
}
