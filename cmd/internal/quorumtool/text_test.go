package quorumtool

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"net/netip"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cfg"
	"pmxcfs/corosync/votequorum"
)

const (
	quorate    = votequorum.FlagQuorate
	registered = votequorum.FlagQDeviceRegistered
	alive      = votequorum.FlagQDeviceAlive
	cast       = votequorum.FlagQDeviceCastVote
)

// cluster returns a snapshot on node 1 of some members with a vote each.
func cluster(seq uint64, expected int, flags votequorum.Flags, members ...corosync.NodeID) *Snapshot {
	s := &Snapshot{Ring: votequorum.Ring{Node: 1, Seq: seq}}
	for _, id := range members {
		s.Members = append(s.Members, Node{
			ID: id, Name: "node" + string('0'+rune(id)), Votes: 1, Local: id == 1, Device: flags &^ quorate,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 99, 0, byte(id)}), netip.AddrFrom4([4]byte{10, 98, 0, byte(id)})},
		})
	}
	total := len(members)
	if flags&cast != 0 {
		total++
	}
	s.Self = votequorum.Info{
		Node: 1, Votes: 1, ExpectedVotes: expected, HighestExpected: expected,
		TotalVotes: total, Quorum: expected/2 + 1, Flags: flags,
	}
	if flags&registered != 0 {
		s.Self.QDeviceVotes, s.Self.QDeviceName = 1, "Qdevice"
	}
	return s
}

// situations are those of which the stock tool was recorded.
func situations() map[string]*Snapshot {
	one := cluster(0x11, 3, quorate|registered|alive|cast, 1, 2)
	one.Members[1].Device = 0
	return map[string]*Snapshot{
		"one-node":                      cluster(0x5, 1, quorate, 1),
		"two-nodes":                     cluster(0, 2, quorate, 1, 2),
		"three-nodes":                   cluster(0, 3, quorate, 1, 2, 3),
		"three-nodes-one-down":          cluster(0, 3, quorate, 1, 2),
		"after-delnode":                 cluster(0x11, 2, quorate, 1, 2),
		"two-nodes-one-down":            cluster(0x15, 2, 0, 1),
		"two-nodes-one-down-expected-1": cluster(0x15, 1, quorate, 1),
		"qdevice-alive":                 cluster(0x11, 3, quorate|registered|alive|cast, 1, 2),
		"qdevice-not-registered-on-2":   one,
		"qnetd-down":                    cluster(0x11, 3, quorate|registered|alive, 1, 2),
	}
}

func recorded(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	dateLine = regexp.MustCompile(`(?m)^Date: .*$`)
	ringLine = regexp.MustCompile(`(?m)^Ring ID: .*$`)
	confLine = regexp.MustCompile(`(?m)^Config Version: *(\d+)$`)
)

func TestTextIsTheRecordedOne(t *testing.T) {
	for name, s := range situations() {
		t.Run(name, func(t *testing.T) {
			want := recorded(t, name+".status")
			s.Time, _ = time.Parse("Date:             "+time.ANSIC, dateLine.FindString(want))
			if s.Time.IsZero() {
				t.Fatalf("no date in %q", want)
			}
			var b bytes.Buffer
			Configuration{Name: "lab", Version: confLine.FindStringSubmatch(want)[1], SecAuth: "on"}.Write(&b)
			s.WriteStatus(&b)
			got := b.String()
			if s.Ring.Seq == 0 { // which is by chance
				got, want = ringLine.ReplaceAllString(got, ""), ringLine.ReplaceAllString(want, "")
			}
			if got != want {
				t.Errorf("status:\n%s\nwant\n%s", got, want)
			}
			b.Reset()
			s.WriteNodes(&b)
			if want := recorded(t, name+".nodes"); b.String() != want {
				t.Errorf("nodes:\n%s\nwant\n%s", b.String(), want)
			}
		})
	}
}

func TestEveryRecordedSituationIsTried(t *testing.T) {
	b, err := os.ReadFile("testdata/exit.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]struct{ Status, Nodes struct{ Exit int } }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	tried := situations()
	for name, exit := range all {
		s := tried[name]
		if s == nil {
			if name != "corosync-stopped" || exit.Status.Exit != 1 || exit.Nodes.Exit != 1 {
				t.Errorf("%s is not tried", name)
			}
			continue
		}
		if got := s.ExitStatus(); got != exit.Status.Exit {
			t.Errorf("%s: status ends with %d, want %d", name, got, exit.Status.Exit)
		}
	}
}

func TestWithoutCorosyncStatusIsTheConfigurationAlone(t *testing.T) {
	var b bytes.Buffer
	Configuration{Name: "lab", Version: "55", Transport: "knet", SecAuth: "on"}.Write(&b)
	if want := recorded(t, "corosync-stopped.status"); b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestAbsentValuesOfTheConfiguration(t *testing.T) {
	var b bytes.Buffer
	Configuration{}.Write(&b)
	for _, want := range []string{"Name:             UNKNOWN\n", "Config Version:   -1\n", "Transport:        knet\n", "Secure auth:      off\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q lacks %q", b.String(), want)
		}
	}
}

func TestCausesNameWhatIsWrong(t *testing.T) {
	down := cluster(0x15, 3, 0, 1)
	down.Absent = []Node{
		{ID: 2, Name: "node2", Votes: 1, Links: []cfg.LinkStatus{{Number: 0}, {Number: 1}}},
		{ID: 3, Name: "node3", Votes: 1, Links: []cfg.LinkStatus{{Number: 0, Connected: true}}},
	}
	link := cluster(0x15, 2, quorate, 1, 2)
	link.Members[1].Links = []cfg.LinkStatus{{Number: 0}, {Number: 1, Connected: true}}
	differ := cluster(0x15, 2, quorate, 1, 2)
	differ.Self.HighestExpected = 3
	for name, test := range map[string]struct {
		s    *Snapshot
		want []string
	}{
		"well":         {cluster(1, 2, quorate, 1, 2), nil},
		"nodes absent": {down, []string{"no quorum: 1 vote present, 2 needed", "node2 (id 2, 1 vote) is not a member: no link", "node3 (id 3, 1 vote) is not a member: its links 0 are connected"}},
		"a link down":  {link, []string{"link 0 to node node2 is down; link 1 carries"}},
		"votes differ": {differ, []string{"this node expects 2 votes, another one 3"}},
		"no qnetd":     {situations()["qnetd-down"], []string{"the external vote is not cast"}},
		"a node lacks": {situations()["qdevice-not-registered-on-2"], []string{"node node2 has no external vote"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := test.s.Causes()
			if len(got) != len(test.want) {
				t.Fatalf("%q, want %q", got, test.want)
			}
			for i := range got {
				if !strings.Contains(got[i], test.want[i]) {
					t.Errorf("%q, want %q", got[i], test.want[i])
				}
			}
		})
	}
}

func TestDocumentHoldsEverything(t *testing.T) {
	s := situations()["qdevice-not-registered-on-2"]
	s.Absent = []Node{{ID: 7, Name: "node7", Votes: 2}}
	b, err := json.Marshal(s.Document(&Configuration{Name: "lab", Version: "3", Transport: "knet", SecAuth: "on"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"cluster":{"name":"lab","config_version":"3","transport":"knet","secauth":"on"}`,
		`"quorate":true,"ring_id":"1.11","expected":3,"highest":3,"total":3,"needed":2,"flags":["Quorate","Qdevice"]`,
		`{"id":1,"name":"node1","votes":1,"online":true,"local":true,"addresses":["10.99.0.1","10.98.0.1"],"links":[],"qdevice":"A,V,NMW"}`,
		`{"id":7,"name":"node7","votes":2,"online":false,"local":false,"addresses":[],"links":[],"qdevice":null}`,
		`"qdevice":{"name":"Qdevice","votes":1,"alive":true,"cast":true}`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
	b, err = json.Marshal((*Snapshot)(nil).Document(nil))
	if err != nil || string(b) != `{"cluster":null,"quorum":null,"nodes":[],"qdevice":null}` {
		t.Errorf("without a cluster: %s, %v", b, err)
	}
}
