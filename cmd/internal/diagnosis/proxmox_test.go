package diagnosis

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// proxmoxRoot makes the files of a host of Proxmox VE that the check looks at, but for
// those that have one of the texts in their names.
func proxmoxRoot(t *testing.T, without ...string) string {
	t.Helper()
	root := t.TempDir()
	sysctl := "# of Proxmox VE\n"
	for _, key := range kernelKeys {
		sysctl += key + " = 0\n"
	}
	for name, text := range map[string]string{
		"usr/share/perl5/PVE/INotify.pm":                            "",
		"usr/share/perl5/PVE/Cluster.pm":                            "",
		"usr/share/perl5/PVE/Cluster/IPCConst.pm":                   "",
		"usr/share/perl5/PVE/IPCC.pm":                               "",
		"usr/lib/x86_64-linux-gnu/perl5/5.40/auto/PVE/IPCC/IPCC.so": "",
		"usr/lib/sysctl.d/10-pve.conf":                              sysctl,
		"etc/sysctl.d/99-local.conf":                                "; nothing\n#fs.aio-max-nr = 1\n",
	} {
		skip := false
		for _, w := range without {
			skip = skip || strings.Contains(name, w)
		}
		if skip {
			continue
		}
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestWhatProxmoxNeedsIsFound(t *testing.T) {
	well := "Id=pve-cluster.service\nLoadState=loaded\nActiveState=active\nExecMainStartTimestampMonotonic=2000\n\n" +
		"Id=pvedaemon.service\nLoadState=loaded\nActiveState=active\nExecMainStartTimestampMonotonic=3000\n\n" +
		"Id=pve-ha-crm.service\nLoadState=not-found\nActiveState=inactive\nExecMainStartTimestampMonotonic=0\n"
	for _, test := range []struct {
		what    string
		without []string
		units   string
		want    []string // severity and part of the text
	}{
		{"no host of Proxmox VE", []string{"INotify"}, well, nil},
		{"all is there", nil, well, []string{"ok the files"}},
		{"files are missing", []string{"IPCC.so", "Cluster.pm"}, well, []string{"error nothing of Proxmox VE can start without these files of the stock pve-cluster: /usr/share/perl5/PVE/Cluster.pm, /usr/lib/*"}},
		{"settings are missing", []string{"10-pve"}, well, []string{"warning no file of sysctl.d sets what Proxmox VE's guests need: net.bridge"}},
		{"a service has failed", nil, strings.Replace(well, "active\nExecMainStartTimestampMonotonic=3000", "failed\nExecMainStartTimestampMonotonic=3000", 1), []string{"error services of Proxmox VE have failed: pvedaemon.service"}},
		{"a service is older than the daemon", nil, strings.Replace(well, "3000", "1000", 1), []string{"info started before the daemon"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			h := &Host{SystemRoot: proxmoxRoot(t, test.without...), Units: func([]string) ([]Unit, error) { return parseUnits([]byte(test.units)), nil }}
			var f findings
			f.proxmox(h, nil)
			if len(f.list) != len(test.want) {
				t.Fatalf("found %v, want %q", f.list, test.want)
			}
			for i, w := range test.want {
				if got := string(f.list[i].Severity) + " " + f.list[i].Text; !strings.HasPrefix(got, w) {
					t.Errorf("found %q, want %q", got, w)
				}
				if s := f.list[i].Severity; s != OK && f.list[i].Remedy == "" {
					t.Errorf("no remedy for %q", f.list[i].Text)
				}
			}
		})
	}
}
