package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

const (
	alertsPage = "../../../docs/alerts.md"
	runbooks   = "https://github.com/limeload/limeload-l4/blob/main/docs/alerts.md#"
)

// TestRunbooks holds that each alert leads to its chapter of docs/alerts.md, and that the page has no others.
func TestRunbooks(t *testing.T) {
	page, err := os.ReadFile(alertsPage)
	if err != nil {
		t.Fatal(err)
	}
	var chapters []string
	for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(page), -1) {
		chapters = append(chapters, m[1])
	}
	var rules ruleFile
	readRules(t, &rules)
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			if url := r.Annotations["runbook_url"]; url != runbooks+strings.ToLower(r.Alert) {
				t.Errorf("the runbook_url of %s is %q", r.Alert, url)
			}
			i := slices.Index(chapters, r.Alert)
			if i < 0 {
				t.Errorf("%s has no chapter", r.Alert)
				continue
			}
			chapters = slices.Delete(chapters, i, i+1)
		}
	}
	if len(chapters) > 0 {
		t.Errorf("there are chapters of no alert: %q", chapters)
	}
}

// A phase is a time in the life of a setup: how long it lasts, and what happens at its beginning.
type phase struct {
	minutes int
	events  []event
}

// An event changes one backend, or the node. Empty fields change nothing.
type event struct {
	backend  string
	verdict  string
	mode     string
	breaks   bool // its breaker opens
	sessions int  // that it has from then on
	alone    bool // the node reaches none of its backends, from then on
}

// verdictsByName are the verdicts by their names.
func verdictsByName() map[string]pool.Verdict {
	all := make(map[string]pool.Verdict)
	for v := pool.Unknown; v <= pool.Fallback; v++ {
		all[v.String()] = v
	}
	return all
}

// A setup is a configuration and what happens to it. alerts are those that fire at any time, as "name pool backend".
type setup struct {
	name, config string
	phases       []phase
	alerts       []string
}

const (
	primaryOnly = `
[pool.db]
backends = [{ address = "10.0.0.1:1", name = "b1" }, { address = "10.0.0.2:1", name = "b2" }, { address = "10.0.0.3:1", name = "b3" }]
health = { type = "postgres", role = "primary", user = "u", database = "d" }
`
	replicas = `
[pool.db]
backends = [{ address = "10.0.0.1:1", name = "b1" }, { address = "10.0.0.2:1", name = "b2" }, { address = "10.0.0.3:1", name = "b3" }]
health = { type = "redis", role = "replica" }
`
	readingPrimary = `
[pool.db]
backends = [{ address = "10.0.0.1:1", name = "b1" }, { address = "10.0.0.2:1", name = "b2" }, { address = "10.0.0.3:1", name = "b3" }]
health = { type = "redis", role = "replica", fallback = "primary" }
`
	plain = `
[pool.db]
backends = [{ address = "10.0.0.1:1", name = "b1" }, { address = "10.0.0.2:1", name = "b2" }, { address = "10.0.0.3:1", name = "b3" }]
health = { type = "tcp" }
`
	ofFleet = `
[fleet]
name = "edge"
node = "a"
endpoints = ["http://127.0.0.1:1"]
` + plain
	tiers = `
[pool.db]
backends = [{ address = "10.0.0.1:1", name = "b1" }, { address = "10.0.0.2:1", name = "b2", tier = 1 }, { address = "10.0.0.3:1", name = "b3", tier = 1 }]
health = { type = "tcp" }
`
)

// judge returns the events that give b1, b2 and b3 these verdicts.
func judge(verdicts ...string) []event {
	var events []event
	for i, v := range verdicts {
		events = append(events, event{backend: fmt.Sprintf("b%d", i+1), verdict: v})
	}
	return events
}

// setups are those that operators have, as intended and with what goes wrong.
func setups() []setup {
	asPrimary := judge("healthy", "wrong_role", "wrong_role")
	asReplicas := judge("wrong_role", "healthy", "healthy")
	well := judge("healthy", "healthy", "healthy")
	return []setup{
		{"one primary and two standbys", primaryOnly, []phase{{5, asPrimary}}, nil},
		{"a failover", primaryOnly, []phase{{5, asPrimary},
			{20, judge("unhealthy", "healthy", "wrong_role")}},
			[]string{"LimeloadBackendNotHealthy db b1"}},
		{"a switchover", primaryOnly, []phase{{5, asPrimary}, {20, judge("wrong_role", "healthy", "wrong_role")}}, nil},
		{"the primary is lost", primaryOnly, []phase{{5, asPrimary}, {20, judge("unhealthy")}},
			[]string{"LimeloadBackendNotHealthy db b1", "LimeloadNoEligibleBackend db"}},
		{"a standby is lost", primaryOnly, []phase{{5, asPrimary}, {20, []event{{backend: "b3", verdict: "unhealthy"}}}},
			[]string{"LimeloadBackendNotHealthy db b3"}},
		{"replicas for reads", replicas, []phase{{5, asReplicas}}, nil},
		{"replicas that lag", replicas, []phase{{5, asReplicas}, {20, judge("wrong_role", "lagging", "lagging")}},
			[]string{"LimeloadBackendNotHealthy db b2", "LimeloadBackendNotHealthy db b3", "LimeloadNoEligibleBackend db"}},
		{"reads may fall back", readingPrimary, []phase{{20, judge("fallback", "healthy", "healthy")}}, nil},
		{"reads fall back", readingPrimary, []phase{{20, judge("fallback", "lagging", "lagging")}},
			[]string{"LimeloadBackendNotHealthy db b2", "LimeloadBackendNotHealthy db b3", "LimeloadPoolFallsBack db"}},
		{"a drained backend", plain, []phase{{20, well}, {60, []event{{backend: "b1", mode: "drain"}}}}, nil},
		{"two drained backends", plain, []phase{{20, well},
			{60, []event{{backend: "b1", mode: "drain"}, {backend: "b2", mode: "drain"}}}}, nil},
		{"a drained backend with sessions", plain, []phase{{5, append(well[:3:3], event{backend: "b1", sessions: 3})},
			{70, []event{{backend: "b1", mode: "drain"}}}}, []string{"LimeloadBackendDraining db b1"}},
		{"all are drained", plain, []phase{{5, well},
			{20, []event{{backend: "b1", mode: "drain"}, {backend: "b2", mode: "drain"}, {backend: "b3", mode: "drain"}}}},
			[]string{"LimeloadNoEligibleBackend db"}},
		{"maintenance", plain, []phase{{5, well}, {20, []event{{backend: "b1", mode: "maintenance", verdict: "unhealthy"},
			{backend: "b2", mode: "maintenance", verdict: "unhealthy"}}}}, nil},
		{"maintenance, and one more fails", plain, []phase{{5, well}, {20, []event{
			{backend: "b1", mode: "maintenance", verdict: "unhealthy"}, {backend: "b2", verdict: "unhealthy"}}}},
			[]string{"LimeloadBackendNotHealthy db b2"}},
		{"most have failed", plain, []phase{{5, well}, {20, judge("unhealthy", "unhealthy")}},
			[]string{"LimeloadBackendNotHealthy db b1", "LimeloadBackendNotHealthy db b2", "LimeloadFewEligibleBackends db"}},
		{"a tier that waits", tiers, []phase{{20, well}}, nil},
		{"the tier that waits serves", tiers, []phase{{5, well}, {20, judge("unhealthy")}},
			[]string{"LimeloadBackendNotHealthy db b1"}},
		{"the tier that waits is away for maintenance", tiers, []phase{{5, well},
			{20, []event{{backend: "b2", mode: "maintenance"}, {backend: "b3", mode: "maintenance"}}}}, nil},
		{"a rolling restart", plain, []phase{{5, well}, {2, judge("unhealthy")}, {5, well},
			{2, judge("healthy", "unhealthy")}, {5, well}, {2, judge("healthy", "healthy", "unhealthy")}, {20, well}}, nil},
		{"a rolling restart with drains", plain, []phase{{5, well},
			{3, []event{{backend: "b1", mode: "drain"}}}, {2, judge("unhealthy")}, {2, append([]event{{backend: "b1", mode: "ready"}}, well...)},
			{3, []event{{backend: "b2", mode: "drain"}}}, {2, judge("healthy", "unhealthy")},
			{20, append([]event{{backend: "b2", mode: "ready"}}, well...)}}, nil},
		{"a breaker opens", plain, []phase{{5, well}, {20, []event{{backend: "b1", breaks: true}}}},
			[]string{"LimeloadBreakerOpen db b1"}},
		{"a breaker of a drained backend", plain, []phase{{5, well},
			{20, []event{{backend: "b1", breaks: true, mode: "drain"}}}}, nil},
		{"a node of a fleet without etcd", ofFleet, []phase{{20, well}}, []string{"LimeloadFleetDisconnected"}},
		{"a node that reaches nobody", ofFleet, []phase{{20, append(well[:3:3], event{alone: true})}},
			[]string{"LimeloadFleetDisconnected", "LimeloadFleetNodeAlone"}},
		{"checks that flap", plain, flaps(), []string{"LimeloadBackendFlapping db b1"}},
	}
}

// flaps returns phases in which a backend changes each minute.
func flaps() []phase {
	phases := []phase{{5, judge("healthy", "healthy", "healthy")}}
	for range 4 {
		phases = append(phases, phase{1, judge("unhealthy")}, phase{1, judge("healthy")})
	}
	return phases
}

// history returns the values of all series of a setup, one for each minute, and how many there are.
func (s *setup) history(t *testing.T) (values map[string][]string, minutes int) {
	t.Helper()
	cfg, err := conf.Parse("lb.toml",
		[]byte("[admin]\naddress = \"\"\n[listener.a]\naddress = \"127.0.0.1:1\"\npool = \"db\"\n"+s.config))
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	d := testDaemon(t, cfg)
	d.life.serve() // it is ready
	values = make(map[string][]string)
	for _, f := range s.phases {
		for _, e := range f.events {
			if e.alone {
				d.fleet.members.setAlone("test")
				continue
			}
			e.happen(t, d.pools["db"].pool)
		}
		now := numbersOf(scrape(t, d.metrics, textForm))
		for range max(f.minutes, 1) {
			for key, value := range now {
				for len(values[key]) < minutes {
					values[key] = append(values[key], "_")
				}
				values[key] = append(values[key], value)
			}
			minutes++
		}
	}
	return values, minutes
}

// happen makes an event happen.
func (e *event) happen(t *testing.T, p *pool.Pool) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if e.verdict != "" {
		must(p.SetVerdict(e.backend, verdictsByName()[e.verdict], "test"))
	}
	for has := 0; has < e.sessions; {
		l, err := p.Pick(pool.PickContext{})
		must(err)
		if l.Backend().ID() == e.backend {
			has++
		}
	}
	if e.breaks {
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		harness.Eventually(t, "the breaker opens", func() error {
			if b, _ := p.Backend(e.backend); b.Breaker == pool.Open {
				return nil
			}
			l, err := p.Pick(pool.PickContext{})
			must(err)
			if l.Backend().ID() == e.backend {
				l.Release(pool.ConnectRefused)
			} else {
				defer l.Release(pool.Neutral)
			}
			return errors.New("it is closed")
		})
		stop()
		running.Wait()
	}
	switch e.mode {
	case "drain":
		must(p.SetMode(e.backend, pool.Drain))
	case "maintenance":
		must(p.SetMode(e.backend, pool.Maintenance))
	case "ready":
		must(p.SetMode(e.backend, pool.Ready))
	}
}

// numbersOf returns the counters and gauges of a scrape as promtool reads them, by their series.
func numbersOf(families map[string]*dto.MetricFamily) map[string]string {
	all := map[string]string{`up{job="limeload",instance="lb1"}`: "1"}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			key := `{job="limeload",instance="lb1"`
			for _, l := range m.GetLabel() {
				key += fmt.Sprintf(",%s=%q", l.GetName(), l.GetValue())
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				all[name+key+"}"] = fmt.Sprint(m.GetCounter().GetValue())
			case dto.MetricType_GAUGE:
				all[name+key+"}"] = fmt.Sprint(m.GetGauge().GetValue())
			}
		}
	}
	return all
}

// TestAlertsOfSetups has promtool evaluate the alerts on what the daemon's metrics are in each setup, as intended and
// with what goes wrong. No other alerts fire than those that should.
func TestAlertsOfSetups(t *testing.T) {
	rules, err := filepath.Abs(metricsRules)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool) // the words of the rules: promtool takes long for series that no rule needs
	for _, word := range regexp.MustCompile(`\w+`).FindAllString(string(content), -1) {
		used[word] = true
	}
	var text strings.Builder
	head := fmt.Sprintf("rule_files: [%q]\nevaluation_interval: 1m\ntests:\n", rules)
	text.WriteString(head)
	write := func(s setup) {
		values, minutes := s.history(t)
		fmt.Fprintf(&text, "- name: %q\n  interval: 1m\n  input_series:\n", s.name)
		for _, key := range slices.Sorted(maps.Keys(values)) {
			if name, _, _ := strings.Cut(key, "{"); !used[name] {
				continue
			}
			fmt.Fprintf(&text, "  - {series: %q, values: %q}\n", key, strings.Join(values[key], " "))
		}
		fmt.Fprintf(&text, "  promql_expr_test:\n  - expr: max by (alertname, pool, backend) (max_over_time(ALERTS{alertstate=\"firing\"}[%dm]))\n"+
			"    eval_time: %dm\n    exp_samples:\n", minutes, minutes-1)
		for _, alert := range s.alerts {
			words := append(strings.Fields(alert), "")
			labels := fmt.Sprintf("alertname=%q", words[0])
			if words[1] != "" {
				labels += fmt.Sprintf(",pool=%q", words[1])
			}
			if len(words) > 2 && words[2] != "" {
				labels += fmt.Sprintf(",backend=%q", words[2])
			}
			fmt.Fprintf(&text, "    - {labels: %q, value: 1}\n", "{"+labels+"}")
		}
	}
	run := func() (string, error) {
		file := filepath.Join(t.TempDir(), "setups.yml")
		if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), harness.Tool(t, "promtool"), "test", "rules", file).CombinedOutput()
		return string(out), err
	}
	all := setups()
	for _, s := range all {
		write(s)
	}
	if out, err := run(); err != nil {
		t.Fatalf("%v\n%.6000s", err, out)
	}
	bad := all[0]
	text.Reset()
	text.WriteString(head)
	bad.alerts = []string{"LimeloadDown db"}
	write(bad)
	if _, err := run(); err == nil {
		t.Error("promtool finds nothing wrong with an alert that does not fire")
	}
}
