//lint:file-ignore SA1019 the classic model is what every Grafana imports; its successor needs version 13

package grafana

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"

	"pmxcfs/status/metrics/metricstest"
)

func load(t *testing.T) dashboard.Dashboard {
	t.Helper()
	cog.NewRuntime().RegisterPanelcfgVariant(stat.VariantConfig())
	cog.NewRuntime().RegisterPanelcfgVariant(timeseries.VariantConfig())
	cog.NewRuntime().RegisterDataqueryVariant(prometheus.VariantConfig())
	raw, err := os.ReadFile("pmxcfs.json")
	if err != nil {
		t.Fatal(err)
	}
	var strict, d dashboard.Dashboard
	if err := asError(strict.UnmarshalJSONStrict(raw)); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &d); err != nil { // the strict way finds faults, and drops panels
		t.Fatal(err)
	}
	return d
}

// asError returns nil for an empty list of errors, which the types return for success.
func asError(err error) error {
	if list, ok := errors.AsType[cog.BuildErrors](err); ok && len(list) == 0 {
		return nil
	}
	return err
}

func panels(d dashboard.Dashboard) (list []*dashboard.Panel) {
	for _, p := range d.Panels {
		if p.Panel != nil {
			list = append(list, p.Panel)
		}
	}
	return list
}

func TestDashboardIsOneByGrafanasTypes(t *testing.T) {
	d := load(t)
	if err := asError(d.Validate()); err != nil {
		t.Error(err)
	}
	all := panels(d)
	if len(all) < 20 || d.Uid == nil || *d.Uid != "pmxcfs" {
		t.Errorf("%d panels, uid %v", len(all), d.Uid)
	}
	taken := map[[2]uint32]string{}
	ids := map[uint32]bool{}
	for _, p := range all {
		title := *p.Title
		if p.Description == nil || *p.Description == "" || p.Id == nil || ids[*p.Id] {
			t.Errorf("%q: no description, or an id that is another's", title)
		}
		ids[*p.Id] = true
		g := p.GridPos
		if g.X+g.W > 24 {
			t.Errorf("%q is beyond the edge", title)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]uint32{x, y}]; other != "" {
					t.Fatalf("%q lies over %q", title, other)
				}
				taken[[2]uint32{x, y}] = title
			}
		}
	}
}

// expressions returns every query of the dashboard, with its variables filled in.
func expressions(t *testing.T, d dashboard.Dashboard) map[string]string {
	list := map[string]string{}
	add := func(where, expr string) {
		list[where] = strings.NewReplacer("$__rate_interval", "5m", "$job", "pmxcfs", "$cluster", ".*", "$instance", ".+").Replace(expr)
	}
	for _, p := range panels(d) {
		if len(p.Targets) == 0 {
			t.Errorf("%q asks for nothing", *p.Title)
		}
		for i, target := range p.Targets {
			q, ok := target.(prometheus.Dataquery)
			if !ok {
				if ref, isRef := target.(*prometheus.Dataquery); isRef {
					q, ok = *ref, true
				}
			}
			if !ok {
				t.Fatalf("%q: a query of type %T", *p.Title, target)
			}
			add(fmt.Sprintf("%s %d", *p.Title, i), q.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != nil {
			add(a.Name, *a.Expr)
		}
	}
	return list
}

func TestEveryExpressionParsesAndAsksForWhatThereIs(t *testing.T) {
	list := expressions(t, load(t))
	rules := map[string]any{}
	var records []any
	for where, expr := range list {
		if jobs := strings.Count(expr, `job="pmxcfs"`); jobs == 0 || jobs != strings.Count(expr, `cluster=~".*"`) {
			t.Errorf("%s does not keep to the chosen job and cluster: %s", where, expr)
		}
		if strings.Contains(expr, "$") {
			t.Errorf("%s: a variable is left in %s", where, expr)
		}
		for _, name := range metricstest.Unknown(expr) {
			t.Errorf("%s asks for %s, which there is not", where, name)
		}
		records = append(records, map[string]string{"record": "x:y", "expr": expr})
	}
	rules["groups"] = []any{map[string]any{"name": "dashboard", "rules": records}}
	text, err := json.Marshal(rules) // which is YAML, too
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool := metricstest.Program(t, "promtool")
	if out, err := exec.Command(promtool, "check", "rules", "--lint=none", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Nodes of several clusters, or of one without that label, in one job: each is compared with its own.
func TestBehindIsCountedWithinACluster(t *testing.T) {
	var expr string
	for where, x := range expressions(t, load(t)) {
		if strings.Contains(x, "max by (cluster) (pmxcfs_database_version") {
			expr = x
			t.Log(where)
		}
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	series := func(labels, value string) map[string]string {
		return map[string]string{"series": `pmxcfs_database_version{job="pmxcfs", ` + labels + `}`, "values": value}
	}
	sample := func(labels string, value int) map[string]any { return map[string]any{"labels": labels, "value": value} }
	text, err := json.Marshal(map[string]any{"tests": []any{map[string]any{
		"input_series": []any{
			series(`cluster="x", instance="a"`, "100"), series(`cluster="x", instance="b"`, "90"),
			series(`cluster="y", instance="c"`, "7000"), series(`instance="d"`, "12"), series(`instance="e"`, "10"),
		},
		"promql_expr_test": []any{map[string]any{"expr": expr, "eval_time": "0m", "exp_samples": []any{
			sample(`{job="pmxcfs", cluster="x", instance="a"}`, 0), sample(`{job="pmxcfs", cluster="x", instance="b"}`, 10),
			sample(`{job="pmxcfs", cluster="y", instance="c"}`, 0),
			sample(`{job="pmxcfs", instance="d"}`, 0), sample(`{job="pmxcfs", instance="e"}`, 2),
		}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(metricstest.Program(t, "promtool"), "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", expr, err, out)
	}
}
