package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/internal/testutil"
	"pmxcfs/status/metrics/metricstest"
	"pmxcfs/status/web"
)

// port is where the daemons serve metrics.
const port = "9922"

func target(n *node) string { return lab.Address(n.Host.ID()) + ":" + port }

// prometheus is a running Prometheus.
type prometheus struct {
	t        *testing.T
	on       *node
	promtool string
}

var waiting = regexp.MustCompile(`(?m)^( +for:) .*$`)

// startPrometheus starts one on a node, that scrapes all of the cluster once a second.
func startPrometheus(t *testing.T, c *cluster, on *node) *prometheus {
	t.Helper()
	p := &prometheus{t: t, on: on, promtool: metricstest.Program(t, "promtool")}
	dir := t.TempDir()
	var targets []string
	for _, n := range c.Nodes {
		targets = append(targets, target(n))
	}
	list, err := json.Marshal(targets)
	on.Must(err)
	for _, file := range []string{"pmxcfs-rules.yml", "pmxcfs-alerts.yml"} {
		text, err := os.ReadFile("../../../../contrib/prometheus/" + file)
		on.Must(err)
		on.Must(os.WriteFile(filepath.Join(dir, file), waiting.ReplaceAll(text, []byte("$1 2s")), 0o600))
	}
	on.Must(os.WriteFile(filepath.Join(dir, "prometheus.yml"), fmt.Appendf(nil, `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [pmxcfs-rules.yml, pmxcfs-alerts.yml]
scrape_configs:
  - job_name: pmxcfs
    static_configs: [{targets: %s, labels: {cluster: lab}}]
`, list), 0o600))
	proc, err := on.Host.Start(lab.Spec{Args: []string{
		metricstest.Program(t, "prometheus"), "--config.file=" + dir + "/prometheus.yml", "--storage.tsdb.path=" + dir + "/data",
		"--web.listen-address=127.0.0.1:9090", "--log.level=warn",
	}})
	on.Must(err)
	t.Cleanup(func() {
		if err := proc.Stop(syscall.SIGTERM, 20*time.Second); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			if b, err := os.ReadFile(filepath.Join(on.Host.Dir(), "prometheus.log")); err == nil {
				t.Logf("Prometheus says:\n%s", b)
			}
		}
	})
	return p
}

// sample is one series of an answer.
type sample struct {
	labels map[string]string
	value  float64
}

// query asks for the present value of an expression.
func (p *prometheus) query(expr string) ([]sample, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := p.on.Host.Exec(ctx, p.promtool, "query", "instant", "-o", "json", "http://127.0.0.1:9090", expr)
	if err != nil {
		return nil, err
	}
	var raw []struct {
		Metric map[string]string
		Value  [2]any
	}
	if err := json.Unmarshal(out, &raw); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var list []sample
	for _, r := range raw {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		list = append(list, sample{r.Metric, v})
	}
	return list, nil
}

// values asks for an expression with one value for each of some labels, by these.
func (p *prometheus) values(expr string, labels ...string) (map[string]float64, error) {
	list, err := p.query(expr)
	if err != nil {
		return nil, err
	}
	m := make(map[string]float64, len(list))
	for _, s := range list {
		var key []string
		for _, l := range labels {
			key = append(key, s.labels[l])
		}
		m[strings.Join(key, " ")] = s.value
	}
	return m, nil
}

// wants waits until an expression has these values, by the label instance.
func (p *prometheus) wants(what, expr string, want map[string]float64) {
	p.t.Helper()
	testutil.Eventually(p.t, what, func() error {
		got, err := p.values(expr, "instance")
		if err == nil && !maps.Equal(got, want) {
			err = fmt.Errorf("%s: %v, want %v", expr, got, want)
		}
		return err
	})
}

// everywhere is the same value on some nodes.
func everywhere(v float64, nodes ...*node) map[string]float64 {
	m := map[string]float64{}
	for _, n := range nodes {
		m[target(n)] = v
	}
	return m
}

// alerts returns what fires, as "name instance".
func (p *prometheus) alerts() ([]string, error) {
	m, err := p.values(`ALERTS{alertstate="firing"}`, "alertname", "instance")
	return slices.Sorted(maps.Keys(m)), err
}

// ofSpeed are the alerts that a busy machine explains; pmxcfs-alerts.test.yml tests them.
var ofSpeed = []string{"PmxcfsSlowDelivery", "PmxcfsSlowDisk"}

// wantAlerts waits until these fire, and none that is neither among them nor may.
func (p *prometheus) wantAlerts(what string, want []string, may ...string) {
	p.t.Helper()
	testutil.Eventually(p.t, what, func() error {
		got, err := p.alerts()
		if err != nil {
			return err
		}
		for _, a := range want {
			if !slices.Contains(got, a) {
				return fmt.Errorf("%q does not fire, but %q", a, got)
			}
		}
		for _, a := range got {
			name, _, _ := strings.Cut(a, " ")
			if !slices.Contains(want, a) && !slices.Contains(may, name) && !slices.Contains(ofSpeed, name) {
				return fmt.Errorf("%q fires, too", a)
			}
		}
		return nil
	})
}

// scrape returns what a node gives, over its Unix socket.
func scrape(n *node) string {
	n.T.Helper()
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return web.Dial(ctx, n.Host.Path("/run/pve-cluster/pmxcfs.sock"))
		},
	}}
	r, err := c.Get("http://pmxcfs/metrics")
	n.Must(err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	n.Must(err)
	return string(b)
}
