package diagnosis

import (
	"encoding/json"
	"strings"
	"testing"

	"pmxcfs/status/inspect"
)

const hush = "Sup3rHush"

func TestTextsLoseTheirSecrets(t *testing.T) {
	uuid := "12345678-1234-1234-1234-123456789abc"
	for _, text := range []string{
		"password=" + hush, "Password: " + hush, `"password": "a ` + hush + `"`, "cipassword: " + hush, "passwd " + hush,
		"the secret is " + hush, "api_key=" + hush, "x-api-key: '" + hush + "'", "CSRFPreventionToken: 5F:" + hush,
		"Authorization: PVEAPIToken=root@pam!x=" + hush, "Authorization: Bearer " + hush,
		"PVEAuthCookie=PVE:root@pam:65AB12CD::" + hush, "ticket PVE:root@pam:65AB12CD::" + hush, "a@pve!t=" + hush,
		"http://user:" + hush + "@proxy:3128/", "root:$5$salt$" + hush + ":1", "ssh-ed25519 " + hush + " root@a",
		"-----BEGIN PRIVATE KEY-----\n" + hush + "\n-----END PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----\ncut " + hush,
		"can't open /etc/pve/priv/" + hush + ": no", "path=nodes/a/priv/" + hush, `path="nodes/a/priv/a ` + hush + `" x`, "lock=" + hush, `lock="a \" ` + hush + `"`,
		`wrote "priv/a b ` + hush + `"`, strings.Repeat("aB3", 40) + hush,
		"token: " + uuid[:8] + hush, "token " + hush, "token abcSECRET" + hush, "pass=" + hush, "pw=" + hush, "key: " + hush, "bindpw " + hush,
		`path="nodes/a/priv/a \" ` + hush + `" x`, `odd row in the database path=/x row="inode 12 (\"` + hush + `\"): is odd"`,
		`row="inode 12 (\"a \\\"` + hush + `\"): the parent, inode 7 (\"` + hush + `\"), is not a directory"`,
		`passwd="a ` + hush, "priv/a " + hush + " b", `inode 12 ("` + hush + `"): is odd`, `inode 12 ("a"): its parent 7 ("` + hush + `"), is not a directory`,
	} {
		if got := redact(text); strings.Contains(got, hush) || !strings.Contains(got, leftOut) {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if got := redact("id " + uuid); strings.Contains(got, uuid) {
		t.Errorf("a token's value by itself stays: %q", got)
	}
}

// TestTextsKeepWhatHelps has lines that a bug report is made for.
func TestTextsKeepWhatHelps(t *testing.T) {
	for _, text := range []string{
		"2026-11-25T19:54:18 node1 pmxcfs[69]: [dcdb] members: 1/123, 2/456",
		"[dcdb] received sync request (epoch 1/123/00000003)",
		"corosync[5]: [TOTEM ] A processor failed, forming new configuration: token timed out (1000ms)",
		"storing a change failed error=\"database or disk is full\"",
		"cannot connect: corosync: connection lost: cpg_model_initialize: library error (is corosync running?)",
		"wrote new corosync config '/etc/corosync/corosync.conf' (version = 4)",
		"digest ac2dd6fa3ffa959fac2dd6fa3ffa959fac2dd6fa3ffa959fac2dd6fa3ffa959f",
	} {
		if got := redact(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

func TestConfigurationKeepsOnlyWhatIsKnown(t *testing.T) {
	in := `totem {
  version: 2
  cluster_name: lab
  key: ` + hush + `
  interface {
    linknumber: 0
  }
}
nodelist {
  node {
    name: node1
    nodeid: 1
    ring0_addr: 10.99.0.1
  }
}
# ` + hush + `
nfs: backup
	server 10.0.0.1
	export /data
	options vers=4,password=` + hush + `
	` + hush + ` x
	username ` + hush + `

keyboard: de
http_proxy: http://a:` + hush + `@b
` + hush + `: x
nfs: name ` + hush + `
path "/quoted ` + hush + `"
`
	got := string(redactConfig("corosync.conf", []byte(in)))
	if strings.Contains(got, hush) {
		t.Errorf("it keeps a secret:\n%s", got)
	}
	for _, want := range []string{"totem {", "  cluster_name: lab", "    linknumber: 0", "    ring0_addr: 10.99.0.1", "nfs: backup", "\tserver 10.0.0.1", "\texport /data", "keyboard: de", "  }\n}\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("it lacks %q:\n%s", want, got)
		}
	}
}

func TestKeysAreKnownByFile(t *testing.T) {
	for _, tt := range []struct {
		file, line string
		kept       bool
	}{
		{"corosync.conf", "  token: 3000", true}, {"corosync.conf", "\ttoken_coefficient: 650", true}, {"corosync.conf", "  token: " + hush, false},
		{"corosync.conf", "  token: 3000 " + hush, false}, {"storage.cfg", "\ttoken abc" + hush, false}, {"storage.cfg", "\ttoken: 3000", false},
		{"storage.cfg", "\ttoken 3000", false}, {"ha/groups.cfg", "token: 3000", false},
	} {
		want := leftOut + "\n"
		if tt.kept {
			want = tt.line + "\n"
		}
		if got := string(redactConfig(tt.file, []byte(tt.line))); got != want {
			t.Errorf("%s: %q becomes %q", tt.file, tt.line, got)
		}
	}
}

func TestDocumentsStayDocuments(t *testing.T) {
	d := map[string]any{"a": []any{"password=" + hush, 12, true, nil}, "b": map[string]any{"c": `"priv/` + hush + `"`}, "n": uint64(1<<63 + 1)}
	out, err := redactDocument(d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(out)
	if err != nil || strings.Contains(string(b), hush) || !strings.Contains(string(b), "9223372036854775809") || !strings.Contains(string(b), "true") {
		t.Errorf("%s, %v", b, err)
	}
}

func TestPrivatePathsOfAComparisonAreHidden(t *testing.T) {
	c := &inspect.Comparison{Differences: []inspect.Difference{
		{Path: "/priv/a " + hush, Have: map[string]*inspect.Version{"a": {Path: "/nodes/a/priv/b " + hush}, "b": nil}},
		{Path: "/storage.cfg"},
	}}
	redactComparison(c)
	b, _ := json.Marshal(c)
	if strings.Contains(string(b), hush) || !strings.Contains(string(b), "/storage.cfg") {
		t.Errorf("%s", b)
	}
}

// FuzzRedactConfig: a line is kept as it is, or not at all.
func FuzzRedactConfig(f *testing.F) {
	f.Add("nfs: a\n\tserver b\r\n")
	f.Add("totem {\n}\n# x")
	f.Fuzz(func(t *testing.T, text string) {
		in := map[string]bool{"": true, leftOut: true}
		for line := range strings.Lines(text) {
			in[strings.TrimRight(line, "\r\n")] = true
		}
		for line := range strings.Lines(string(redactConfig("storage.cfg", []byte(text)))) {
			if !in[strings.TrimSuffix(line, "\n")] {
				t.Errorf("%q is new", line)
			}
		}
	})
}
