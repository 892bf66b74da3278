package daemon

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"
)

const (
	metricsPage  = "../../../docs/metrics.md"
	metricsBoard = "../packaging/grafana/limeload-l4.json"
	metricsRules = "../packaging/prometheus/limeload.rules.yml"
)

// row returns the line of a series in the page.
func (s *series) row() string {
	labels := make([]string, len(s.labels))
	for i, l := range s.labels {
		labels[i] = "`" + l + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |", s.name, strings.ToLower(s.kind.String()),
		strings.Join(labels, " "), s.help)
}

// isGiven reports whether users choose the values of a label. The values of the others are closed sets.
func isGiven(label string) bool {
	return slices.Contains([]string{"listener", "pool", "backend", "certificate", "loop", "goversion", "version",
		"address", "role", "tier", "zone", "algorithm", "fleet", "node"}, label)
}

// closedSets returns the values of all labels with closed sets, by metric and label, in the order in which they are
// sent.
func closedSets(families map[string]*dto.MetricFamily) map[string]map[string][]string {
	sets := make(map[string]map[string][]string)
	for name, f := range families {
		if !strings.HasPrefix(name, "limeload_") {
			continue
		}
		sets[name] = make(map[string][]string)
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if values := sets[name][l.GetName()]; !isGiven(l.GetName()) && !slices.Contains(values, l.GetValue()) {
					sets[name][l.GetName()] = append(values, l.GetValue())
				}
			}
		}
	}
	return sets
}

// valueRows returns the lines of the page about labels with closed sets.
func valueRows(families map[string]*dto.MetricFamily) []string {
	var rows []string
	for name, labels := range closedSets(families) {
		for label, values := range labels {
			slices.Sort(values)
			rows = append(rows, fmt.Sprintf("| `%s` | `%s` | `%s` |", name, label, strings.Join(values, "` `")))
		}
	}
	slices.Sort(rows)
	return rows
}

// pageViolations returns the differences between a page and these lines.
func pageViolations(page string, rows []string) []string {
	var violations []string
	written := regexp.MustCompile("(?m)^\\| `limeload_.*$").FindAllString(page, -1)
	for _, r := range rows {
		if !slices.Contains(written, r) {
			violations = append(violations, "it lacks "+r)
		}
	}
	for i, r := range written {
		if !slices.Contains(rows, r) || slices.Contains(written[:i], r) {
			violations = append(violations, "it has "+r)
		}
	}
	return violations
}

// TestMetricsPage: docs/metrics.md has one line for each series and for each label with a closed set, and no others.
func TestMetricsPage(t *testing.T) {
	d := metricsDaemon(t)
	var rows []string
	for _, s := range newCollector(d).series {
		rows = append(rows, s.row())
	}
	rows = append(rows, valueRows(scrape(t, d.metrics, textForm))...)
	bad := rows[0] + "\n" + rows[0] + "\n| `limeload_gone` | gauge |  | Nothing. |\n"
	if got := pageViolations(bad, rows[:2]); len(got) != 3 {
		t.Fatalf("the guard finds %q in a bad sample", got)
	}
	text, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, violation := range pageViolations(string(text), rows) {
		t.Error(violation)
	}
	for _, line := range sizeRows(t, d) {
		if !strings.Contains(string(text), line) {
			t.Errorf("it lacks %s", line)
		}
	}
	var rules ruleFile
	readRules(t, &rules)
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Record != "" && !strings.Contains(string(text), "`"+r.Record+"`") { // TestRunbooks has the alerts
				t.Errorf("the page does not tell of the rule %s", r.Record)
			}
		}
	}
}

// sizeRows returns the lines of the page about the number of series for each kind of thing.
func sizeRows(t *testing.T, d *Daemon) []string {
	r := httptest.NewRequest("GET", "/metrics", nil)
	w := httptest.NewRecorder()
	d.metrics.ServeHTTP(w, r)
	count := func(pattern string) int {
		return len(regexp.MustCompile("(?m)^limeload_"+pattern).FindAllString(w.Body.String(), -1))
	}
	times := count(`listener_\w+_(bucket|sum|count)\{listener="web"`)
	cached := count(`dns_(cache_\w+|questions_total)\{listener="names"`)
	dns := count(`dns_\w+\{listener="names"`)
	shaken := count(`listener_tls_\w+\{listener="web".*side="client"`)
	backend := `backend_\w+\{(address="[^"]*",)?backend=`
	checked := count(`backend_check_\w+\{backend="a"`)
	return []string{
		fmt.Sprintf("\n| backend | %d |\n", count(backend+`"a",`)-checked),
		fmt.Sprintf("\n| backend with checks | %d more |\n", checked),
		fmt.Sprintf("\n| pool | %d, and %d more with checks |\n",
			count(`pool_\w+\{(algorithm="[^"]*",)?pool="web"`), count(`checks?_.*\{.*pool="web"`)),
		fmt.Sprintf("\n| listener | %d, and %d of histograms |\n", count(`listener_.*listener="web"`)-times-2*shaken, times),
		fmt.Sprintf("\n| listener with `tls` | %d more, and as many if a pool of it has `tls` |\n", shaken),
		fmt.Sprintf("\n| listener with `access` | %d more |\n", count(`listener_access_\w+\{.*listener="mail"`)),
		fmt.Sprintf("\n| listener with DNS settings | %d more, and another %d with a cache |\n", dns-cached, cached),
		fmt.Sprintf("\n| listener with `profile = \"postgres\"` | %d more |\n", count(`postgres_\w+\{listener="mail"`)),
		fmt.Sprintf("\n| loop | %d |\n", count(`loop_\w+\{loop="0"`)),
	}
}

// A ruleFile is a file of Prometheus rules.
type ruleFile struct {
	Groups []struct {
		Rules []struct {
			Record, Alert, Expr string
			Annotations         map[string]string
		}
	}
}

func readRules(t *testing.T, into *ruleFile) {
	t.Helper()
	text, err := os.ReadFile(metricsRules)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
	if len(into.Groups) == 0 {
		t.Fatal("there are no rules")
	}
}

// A query checks the names in PromQL against the existing metrics.
type query struct {
	series map[string][]string            // the labels of each metric, including those of the target and of histograms
	values map[string]map[string][]string // see closedSets
}

// newQuery knows all metrics of d, and those that rules record.
func newQuery(t *testing.T, d *Daemon, rules ruleFile) *query {
	q := &query{series: map[string][]string{"up": {"job", "instance"}, "ALERTS": nil}}
	families := scrape(t, d.metrics, textForm)
	q.values = closedSets(families)
	for name, f := range families {
		labels := []string{"job", "instance"}
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		if f.GetType() == dto.MetricType_SUMMARY {
			q.series[name+"_count"], q.series[name+"_sum"] = labels, labels
			continue
		}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			q.series[name+"_count"], q.series[name+"_sum"] = labels, labels
			q.series[name+"_bucket"] = append(slices.Clone(labels), "le")
			continue
		}
		q.series[name] = labels
	}
	for _, s := range newCollector(d).series { // those that have no number now
		if s.kind == dto.MetricType_GAUGE || s.kind == dto.MetricType_COUNTER {
			q.series[s.name] = append([]string{"job", "instance"}, s.labels...)
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if by := regexp.MustCompile(`by \(([^)]*)\)`).FindStringSubmatch(r.Expr); r.Record != "" && by != nil {
				q.series[r.Record] = splitLabels(by[1])
			}
		}
	}
	return q
}

func splitLabels(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// violations returns the metrics, labels and values of labels in an expression that do not exist.
func (q *query) violations(expr string) []string {
	var violations []string
	known := make(map[string]bool) // the labels of all metrics in it
	bare := regexp.MustCompile(`"[^"]*"`).ReplaceAllString(expr, `""`)
	metrics := regexp.MustCompile(`\b([a-zA-Z_][\w:]*)(\{[^}]*\})?`).FindAllStringSubmatch(bare, -1)
	selectors := regexp.MustCompile(`\b([a-zA-Z_][\w:]*)\{([^}]*)\}`).FindAllStringSubmatch(expr, -1)
	for _, m := range metrics {
		labels, is := q.series[m[1]]
		if !is && (m[2] != "" || regexp.MustCompile(`^(limeload|process|go)_|:`).MatchString(m[1])) {
			violations = append(violations, "there is no metric "+m[1])
		}
		for _, l := range labels {
			known[l] = true
		}
	}
	for _, m := range selectors {
		for _, matcher := range regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`).FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(q.series[m[1]], matcher[1]) {
				violations = append(violations, m[1]+" has no label "+matcher[1])
			}
			for _, value := range strings.Split(matcher[3], "|") {
				if set := q.values[m[1]][matcher[1]]; set != nil && !slices.Contains(set, value) {
					violations = append(violations, m[1]+"'s label "+matcher[1]+" is never "+value)
				}
			}
		}
	}
	for _, by := range regexp.MustCompile(`\b(?:by|on|without|ignoring) ?\(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
		for _, l := range splitLabels(by[1]) {
			if !known[l] {
				violations = append(violations, "no metric has the label "+l+" of "+by[0])
			}
		}
	}
	return violations
}

// templates returns the labels that a text takes from a result.
func templates(text, pattern string) []string {
	var labels []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		labels = append(labels, m[1])
	}
	return labels
}

// result returns the labels that the result of an expression may have.
func (q *query) result(expr string) []string {
	if by := regexp.MustCompile(`by \(([^)]*)\)`).FindStringSubmatch(expr); by != nil {
		return splitLabels(by[1])
	}
	var labels []string
	for name := range q.series {
		if regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(expr) {
			labels = append(labels, q.series[name]...)
		}
	}
	return labels
}

// TestMetricsUsed compares the alert rules and the dashboard with the existing metrics, down to the values of labels.
func TestMetricsUsed(t *testing.T) {
	var rules ruleFile
	readRules(t, &rules)
	q := newQuery(t, metricsDaemon(t), rules)
	for _, bad := range []struct{ expr, violation string }{
		{`rate(limeload_listener_refusals_total[5m])`, "there is no metric limeload_listener_refusals_total"},
		{`limeload_listener_connect_seconds > 1`, "there is no metric limeload_listener_connect_seconds"},
		{`limeload_ready{pool="x"}`, "limeload_ready has no label pool"},
		{`limeload_backend_verdict{verdict=~"healthy|well"} == 0`,
			"limeload_backend_verdict's label verdict is never well"},
		{`sum by (instance, client) (limeload_sessions)`, "no metric has the label client of by (instance, client)"},
		{`sum(instance_listener:limeload_listener_refused:rate9m{listener="a"})`,
			"there is no metric instance_listener:limeload_listener_refused:rate9m"},
	} {
		if got := q.violations(bad.expr); !slices.Contains(got, bad.violation) {
			t.Errorf("the guard finds %q in %s, expected %q", got, bad.expr, bad.violation)
		}
	}

	used := make(map[string]bool)
	look := func(where, expr string, labels []string) {
		for _, violation := range q.violations(expr) {
			t.Errorf("%s: %s: %s", where, violation, expr)
		}
		for _, l := range labels {
			if !slices.Contains(q.result(expr), l) {
				t.Errorf("%s: the result has no label %s: %s", where, l, expr)
			}
		}
		for _, name := range regexp.MustCompile(`\blimeload_\w+`).FindAllString(expr, -1) {
			used[name] = true
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			text := r.Annotations["summary"] + r.Annotations["description"]
			look(r.Alert+r.Record, r.Expr, templates(text, `\$labels\.(\w+)`))
			if r.Alert != "" && (r.Annotations["summary"] == "" || r.Annotations["description"] == "") {
				t.Errorf("%s says too little", r.Alert)
			}
		}
	}

	var board struct {
		Annotations struct {
			List []struct{ Expr, TextFormat string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Panels []struct {
			ID                 int
			Title, Description string
			Type               string
			Targets            []struct{ Expr, LegendFormat string }
		}
	}
	text, err := os.ReadFile(metricsBoard)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	ids := make(map[int]bool)
	for _, p := range board.Panels {
		if ids[p.ID] || p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("panel %d, %s, says too little, or there are two", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			look(p.Title, target.Expr, templates(target.LegendFormat, `\{\{(\w+)\}\}`))
		}
	}
	for _, a := range board.Annotations.List {
		look("annotation", a.Expr, templates(a.TextFormat, `\{\{(\w+)\}\}`))
	}
	variables := 0
	for _, v := range board.Templating.List {
		if list := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition); list != nil {
			look("variable "+v.Name, list[1], list[2:])
			variables++
		}
	}
	if len(board.Panels) < 40 || variables != 5 {
		t.Errorf("the board has %d panels and %d variables", len(board.Panels), variables)
	}
	if t.Failed() {
		t.Logf("the metrics are %q", slices.Sorted(maps.Keys(q.series)))
	}
	t.Logf("%d metrics are used", len(used))
}
