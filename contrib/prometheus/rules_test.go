package prometheus

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"pmxcfs/status/metrics/metricstest"
)

func TestRulesAreSoundAndAlertAsTheyShould(t *testing.T) {
	promtool := metricstest.Program(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "pmxcfs-rules.yml", "pmxcfs-alerts.yml"},
		{"test", "rules", "pmxcfs-alerts.test.yml"},
	} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

var (
	expression = regexp.MustCompile(`(?m)^ +expr: (.*)$`)
	alert      = regexp.MustCompile(`alert: ([A-Za-z]+)`)
	recorded   = regexp.MustCompile(`record: (pmxcfs:[a-z0-9_:]+)`)
	used       = regexp.MustCompile(`\bpmxcfs:[a-z0-9_:]+`)
)

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRulesAskForMetricsThatThereAre(t *testing.T) {
	rules, alerts, tests := read(t, "pmxcfs-rules.yml"), read(t, "pmxcfs-alerts.yml"), read(t, "pmxcfs-alerts.test.yml")
	all := expression.FindAllStringSubmatch(rules+alerts, -1)
	if len(all) < 25 {
		t.Errorf("%d expressions", len(all))
	}
	for _, m := range all {
		for _, name := range metricstest.Unknown(m[1]) {
			t.Errorf("%s asks for %s, which there is not", m[1], name)
		}
	}
	for _, name := range metricstest.Unknown(tests) {
		t.Errorf("a test has %s, which there is not", name)
	}
	have := map[string]bool{}
	for _, m := range recorded.FindAllStringSubmatch(rules, -1) {
		have[m[1]] = true
	}
	for _, name := range used.FindAllString(alerts+read(t, "../grafana/pmxcfs.json"), -1) {
		if !have[name] {
			t.Errorf("%s is recorded nowhere", name)
		}
	}
	for _, m := range alert.FindAllStringSubmatch(alerts, -1) {
		// Once where nothing is wrong, and where it begins, fires and ends.
		if n := strings.Count(tests, "alertname: "+m[1]+"\n") + strings.Count(tests, "alertname: "+m[1]+"}"); n < 4 {
			t.Errorf("%s is tested %d times", m[1], n)
		}
	}
}
