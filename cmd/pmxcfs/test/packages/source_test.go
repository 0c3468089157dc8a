package packages

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/contrib/vmlab"
)

// mostPackages is how many Debian packages running from the source tree may install on a
// system that has make, git and ca-certificates: compilers and headers, no services.
const mostPackages = 160

// sourceScript does what README.md says of the source tree in $1.
const sourceScript = `
cd "$1"
units() { find /etc/systemd/system /etc/rc?.d -type l 2> /dev/null | sort; }
before=$(units)
services() { pgrep -a 'corosync|rrdcached|prometheus|sshd' || true; }
make run
echo "running after: $SECONDS s"
echo hello > run/pve/hello
[ "$(cat run/pve/hello)" = hello ]
bin/pmxcfs status --socket run/state/pmxcfs.sock || [ $? = 2 ]
bin/pvecm apiver
make stop
echo "packages for running: $(grep -c ' install ' /var/log/dpkg.log)"
for p in corosync rrdcached prometheus openssh-server; do
	! dpkg-query -W -f '${Status}' "$p" 2> /dev/null | grep 'ok installed'
done
make deps
echo "packages for testing: $(grep -c ' install ' /var/log/dpkg.log)"
echo "left enabled: $(comm -13 <(echo "$before") <(units) | grep -v -e '/dev/null' | tr '\n' ' ')"
echo "left running: $(services)"
[ ! -e /usr/sbin/policy-rc.d ]
go vet ./cmd/pmxcfs
`

// TestSourceTreeOnAFreshSystem builds and runs a single node from the source tree, and
// installs what the tests need, on systems that have make, git and ca-certificates.
func TestSourceTreeOnAFreshSystem(t *testing.T) {
	long(t)
	for _, suite := range []string{vmlab.Trixie, vmlab.Bookworm} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			tree := filepath.Join(lab.TempDir(t), "pmxcfs")
			if err := os.Mkdir(tree, 0o755); err != nil {
				t.Fatal(err)
			}
			machine(t, ".", "../../../../debian/export-source", tree)
			cache, err := vmlab.GoCache("", suite)
			if err != nil {
				t.Fatal(err)
			}
			// Only what has been downloaded is shared: it is checked all the same.
			out, err := exec.Command("go", "env", "GOMODCACHE").Output()
			if err != nil {
				t.Fatal(err)
			}
			downloads := filepath.Join(string(bytes.TrimSpace(out)), "cache/download")
			if err := os.MkdirAll(downloads, 0o755); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			run := vmlab.RootRun{
				Suite: suite, Packages: []string{"ca-certificates", "git", "make"}, Log: t.Output(),
				Binds: []string{tree, downloads, cache}, Dir: "/",
				Env:    []string{"GOMODCACHE=" + filepath.Dir(filepath.Dir(downloads)), "GOCACHE=" + cache},
				Args:   []string{"bash", "-euo", "pipefail", "-c", sourceScript, "source", tree},
				Stdout: &log, Stderr: &log,
			}
			for _, name := range []string{"GOPROXY", "GOSUMDB", "http_proxy", "https_proxy", "no_proxy"} {
				if v, ok := os.LookupEnv(name); ok {
					run.Env = append(run.Env, name+"="+v)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute) // making the root counts
			defer cancel()
			if err := run.Run(ctx); err != nil {
				t.Fatalf("%v:\n%s", err, log.Bytes()[max(0, log.Len()-4000):])
			}
			text := log.String()
			find := func(pattern string) string {
				m := regexp.MustCompile(`(?m)` + pattern).FindStringSubmatch(text)
				if m == nil {
					t.Fatalf("nothing says %q:\n%.4000s", pattern, text)
				}
				return m[1]
			}
			if n, err := strconv.Atoi(find(`^packages for running: (\d+)$`)); err != nil || n > mostPackages || n == 0 {
				t.Errorf("%d packages were installed for running (%v)", n, err)
			} else {
				t.Logf("%d packages for running, %s with those for testing; it ran after %s", n, find(`^packages for testing: (\d+)$`), find(`^running after: (.*)$`))
			}
			// What and how much is said before it is done.
			said := regexp.MustCompile(`(?s)^.*?To be installed, for building and running: .*?newly installed.*?Need to get .*?After this operation`).FindStringIndex(text)
			begun := regexp.MustCompile(`(?m)^Unpacking `).FindStringIndex(text)
			if said == nil || begun == nil || begun[0] < said[1] {
				t.Errorf("it does not say first what is going to be installed and how much:\n%.2000s", text)
			}
			if left := find(`^left enabled: (.*)$`); left != "" {
				t.Errorf("left enabled: %s", left)
			}
			if left := find(`^left running: (.*)$`); left != "" {
				t.Errorf("left running: %s", left)
			}
		})
	}
}
