package cluster

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/keys"
	"pmxcfs/corosync/conf"
)

func TestJoinInformationAsTheWebInterfaceShowsIt(t *testing.T) {
	text, err := os.ReadFile("testdata/join-information.txt")
	if err != nil {
		t.Fatal(err)
	}
	info, err := ParseInfo(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if info.Address != "10.99.0.1" || !slices.Equal(info.Links(), []int{0, 1}) || conf.ValidFingerprint(info.Fingerprint) != nil {
		t.Errorf("%+v", info)
	}
	written, err := info.Text()
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := os.ReadFile("testdata/join-information.json")
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if json.Unmarshal(written, &got) != nil || json.Unmarshal(recorded, &want) != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("written again\n%s\nwant\n%s", written, recorded)
	}
	for _, bad := range []string{"", "x", "e30=", "eyJpcEFkZHJlc3MiOiJ4X3kifQ=="} {
		if _, err := ParseInfo(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestJoinInformationOfANode(t *testing.T) {
	h := &host.Host{Root: t.TempDir(), Name: "node1", Stderr: os.Stderr}
	if err := h.Mkdir("/etc/pve/nodes/node1", 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := conf.Create(conf.NewCluster{Name: "lab", Node: "node1", ID: 1, Votes: 1, TokenCoefficient: 125,
		Links: map[int]conf.Link{0: {Address: "10.99.0.1", Priority: "15"}, 1: {Address: "10.98.0.1", Priority: "20"}}})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := keys.NewKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := keys.NewCA(ca, "x", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{
		host.ClusterConf:                   f.Text(),
		"/etc/pve/.members":                []byte(`{"nodename":"node1","nodelist":{"node1":{"id":1,"online":1,"ip":"10.99.0.1"}}}`),
		"/etc/pve/nodes/node1/pve-ssl.pem": certificate,
	} {
		if err := h.WriteTree(path, text); err != nil {
			t.Fatal(err)
		}
	}
	info, err := JoinInfo(h)
	if err != nil {
		t.Fatal(err)
	}
	fingerprint, err := keys.Fingerprint(certificate)
	if err != nil {
		t.Fatal(err)
	}
	want := &Info{Address: "10.99.0.1", Fingerprint: fingerprint, PeerLinks: map[string]string{"0": "10.99.0.1", "1": "10.98.0.1"},
		Addresses: []string{"10.99.0.1", "10.98.0.1"}}
	totem := info.Totem
	info.Totem = nil
	if !reflect.DeepEqual(info, want) {
		t.Errorf("%+v, want %+v", info, want)
	}
	if totem["cluster_name"] != "lab" || len(totem["interface"].(map[string]any)) != 2 {
		t.Errorf("totem: %v", totem)
	}
}

func FuzzJoinInformation(f *testing.F) {
	text, err := os.ReadFile("testdata/join-information.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("e30=")
	f.Fuzz(func(t *testing.T, text string) {
		info, err := ParseInfo(text)
		if err != nil {
			return
		}
		info.Links()
		if _, err := info.Text(); err != nil {
			t.Fatal(err)
		}
	})
}
