package keys

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

func vectors(t *testing.T, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/ssh.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func bytesOf(s *string) []byte {
	if s == nil {
		return nil
	}
	return []byte(*s)
}

// better are the recorded merges in which the stock tool keeps equal keys, or adds an empty line.
var better = map[string]string{
	"first time": "ssh-rsa AAAAB3NzaCCC root@node3\n",
	"other key types are kept, and never counted as duplicates": "ssh-ed25519 AAAAC3NzaEEE user@laptop\nssh-rsa AAAAB3NzaCCC root@node3\n",
	"a comment of two words is not recognised as a key":         "ssh-rsa AAAAB3NzaAAA two words\nssh-rsa AAAAB3NzaCCC root@node3\n",
	"own key without a comment is added at each run":            "ssh-rsa AAAAB3NzaCCC\n",
}

func TestAuthorizedKeysAreMergedAsRecorded(t *testing.T) {
	var all struct {
		Merge []struct {
			Name, Result         string
			Cluster, Backup, Own *string
		} `json:"authorized_keys_merge"`
	}
	vectors(t, &all)
	differ := 0
	for _, v := range all.Merge {
		want := v.Result
		if b, ok := better[v.Name]; ok {
			differ++
			if b == want {
				t.Errorf("%s: the recording is as good", v.Name)
			}
			want = b
		}
		got := MergeAuthorizedKeys(bytesOf(v.Cluster), bytesOf(v.Backup), bytesOf(v.Own))
		if string(got) != want {
			t.Errorf("%s: %q, want %q", v.Name, got, want)
		}
		if again := MergeAuthorizedKeys(got, nil, bytesOf(v.Own)); string(again) != string(got) {
			t.Errorf("%s: a second run makes %q", v.Name, again)
		}
	}
	if differ != len(better) || len(all.Merge) < 10 {
		t.Errorf("%d recordings, %d of them better here", len(all.Merge), differ)
	}
}

func TestNodesKnownHostsAreAsRecorded(t *testing.T) {
	var all struct {
		Cases []struct {
			Name, Node, File string
			HostKey          *string `json:"host_key"`
			Error            bool
		} `json:"node_known_hosts"`
	}
	vectors(t, &all)
	for _, v := range all.Cases {
		got := NodeKnownHosts(v.Node, bytesOf(v.HostKey))
		switch {
		case v.Name == "another type": // no error here: any type will do
			v.File = "node3 ssh-ed25519 AAAAC3Nz"
		case v.Error && len(got) != 0:
			t.Errorf("%s: %q", v.Name, got)
		}
		if string(got) != v.File {
			t.Errorf("%s: %q, want %q", v.Name, got, v.File)
		}
	}
	got := NodeKnownHosts("n", []byte("ecdsa-sha2-nistp256 AAAAE x\n"), []byte("ssh-ed25519 AAAAC y\n"), []byte("ssh-rsa AAAAB z\n"), nil)
	if want := "n ssh-rsa AAAAB\nn ecdsa-sha2-nistp256 AAAAE\nn ssh-ed25519 AAAAC"; string(got) != want {
		t.Errorf("all types: %q, want %q", got, want)
	}
}

func TestClustersKnownHostsAreMergedAsRecorded(t *testing.T) {
	var all struct {
		Cases []struct {
			Name, Node, Address, Result string
			Cluster, System             *string
			HostKey                     string `json:"host_key"`
		} `json:"cluster_known_hosts"`
	}
	vectors(t, &all)
	for _, v := range all.Cases {
		got := MergeKnownHosts(bytesOf(v.Cluster), bytesOf(v.System), v.Node, v.Address, v.HostKey)
		if string(got) != v.Result {
			t.Errorf("%s: %q, want %q", v.Name, got, v.Result)
		}
		if again := MergeKnownHosts(got, nil, v.Node, v.Address, v.HostKey); string(again) != string(got) {
			t.Errorf("%s: a second run makes %q", v.Name, again)
		}
	}
	if len(all.Cases) < 8 {
		t.Errorf("%d recordings", len(all.Cases))
	}
}

func TestKeysOfANodeAreFoundAndRemoved(t *testing.T) {
	const file = "# x\nssh-rsa AAAA1 root@a\nfrom=\"10.0.0.0/8\" ssh-ed25519 AAAA2 root@b\nssh-rsa AAAA3 root@ab\nssh-rsa AAAA4\nssh-rsa AAAA5 root@b\n"
	of := KeysOf([]byte(file), "b")
	if want := "from=\"10.0.0.0/8\" ssh-ed25519 AAAA2 root@b\nssh-rsa AAAA5 root@b\n"; string(of) != want {
		t.Errorf("keys of b: %q, want %q", of, want)
	}
	if of := KeysOf([]byte(file), "c"); of != nil {
		t.Errorf("keys of c: %q", of)
	}
	left, n := RemoveKeys([]byte(file), of, []byte("ssh-rsa AAAA4 some comment"))
	if want := "# x\nssh-rsa AAAA1 root@a\nssh-rsa AAAA3 root@ab\n"; string(left) != want || n != 3 {
		t.Errorf("%d removed, left %q, want %q", n, left, want)
	}
}

func TestRootsLoginIsDecidedByWhatHolds(t *testing.T) {
	for text, want := range map[string]bool{
		"permitrootlogin yes\npubkeyauthentication yes\n":               true,
		"port 22\npermitrootlogin without-password\n":                   true,
		"permitrootlogin prohibit-password\npubkeyauthentication yes\n": true,
		"permitrootlogin no\n":                                          false,
		"permitrootlogin forced-commands-only\n":                        false,
		"permitrootlogin yes\npubkeyauthentication no\n":                false,
		"": false,
	} {
		if got := RootMayLogIn([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzSSHFiles(f *testing.F) {
	f.Add([]byte("ssh-rsa AAAAB root@a\n# c\n\nfrom=\"x\" ssh-ed25519 AAAAC\n"), []byte("|1|MDEyMzQ1Njc4OTAxMjM0NTY3ODk=|tOdV1PYc9ebqGNNGyv4RgNzjoEw= ssh-rsa AAAAB\n"))
	f.Add([]byte("ssh-rsa AAAAB"), []byte("node3 ssh-rsa AAAAB\n@revoked * ssh-rsa AAAA\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		merged := MergeAuthorizedKeys(a, b, nil)
		if again := MergeAuthorizedKeys(merged, b, a); !slices.Equal(again[:min(len(again), len(merged))], merged[:min(len(again), len(merged))]) {
			t.Errorf("a second merge of %q changes what was there: %q", merged, again)
		}
		known := MergeKnownHosts(a, b, "node3", "10.0.0.3", "ssh-rsa AAAAB3")
		if again := MergeKnownHosts(known, nil, "node3", "10.0.0.3", "ssh-rsa AAAAB3"); string(again) != string(known) {
			t.Errorf("a second merge of %q makes %q", known, again)
		}
		NodeKnownHosts("n", a, b)
		KeysOf(a, "b")
		RemoveKeys(a, b)
	})
}
