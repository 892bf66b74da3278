package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// metrics returns the values of /metrics by name and labels, as written there.
func metrics(t testing.TB, b *harness.Balancer) map[string]float64 {
	t.Helper()
	status, text := b.API(t, "GET", "/metrics", nil)
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d %.500s", status, text)
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		check(t, err)
		values[line[:i]] = value
	}
	return values
}

// measured fails the test for each metric whose value differs.
func measured(t testing.TB, b *harness.Balancer, want map[string]float64) {
	t.Helper()
	got := metrics(t, b)
	for key, value := range want {
		if is, has := got[key]; !has || is != value {
			t.Errorf("%s is %v (there: %t), expected %v", key, is, has, value)
		}
	}
}

// awaitMetric waits until a metric has this value.
func awaitMetric(t testing.TB, b *harness.Balancer, key string, value float64) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s is %v", key, value), func() error {
		if is, has := metrics(t, b)[key]; !has || is != value {
			return fmt.Errorf("it is %v (there: %t)", is, has)
		}
		return nil
	})
}

// TestMetrics causes known numbers of events and compares the metrics: sessions and their bytes, retries, a breaker's
// opening, refusals of two kinds, a verdict, reloads of either result, and the drain.
func TestMetrics(t *testing.T) {
	t.Parallel()
	const greeting = "hello"
	echo, ill := harness.Serve(t, harness.SpeakFirst(greeting)), harness.Serve(t, harness.Echo)
	config := fmt.Sprintf(`
[listener.main]
address = %q
pool = "all"
[listener.one]
address = %q
pool = "single"
max_sessions = 1
[listener.none]
address = %q
pool = "empty"
[pool.all]
algorithm = "first"
backends = %s
[pool.all.breaker]
failures = 2
open_for = "10m"
max_open_for = "10m"
[pool.single]
backends = %s
[pool.empty]
backends = [{ address = %q, name = "b1", mode = "maintenance" }]
[pool.checked]
backends = %s
[pool.checked.health]
type = "tcp"
interval = "100ms"
rise = 1
fall = 1
`, harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t), harness.BackendList(harness.FreeAddress(t), echo.Address()),
		harness.BackendList(echo.Address()), echo.Address(), harness.BackendList(ill.Address()))
	started := time.Now()
	b := harness.StartBalancer(t, config)

	const sessions, bytes = 5, 100
	for i := range sessions {
		c := b.Dial(t, "main")
		_, err := io.ReadFull(c, make([]byte, len(greeting)))
		check(t, err)
		check(t, harness.PingPong(c, 1, bytes))
		check(t, c.Close())
		b.WaitSession(t, c.LocalAddr())
		if i == 1 { // the second failure in a row
			awaitBreaker(t, b, "b1", "open", started)
		}
	}
	all := map[string]float64{
		`limeload_listener_accepted_total{listener="main"}`:                                  sessions,
		`limeload_listener_ended_total{listener="main",reason="client_closed"}`:              sessions,
		`limeload_listener_ended_total{listener="main",reason="backend_closed"}`:             0,
		`limeload_listener_refused_total{listener="main",reason="connect_failed"}`:           0,
		`limeload_listener_bytes_total{direction="in",listener="main"}`:                      sessions * bytes,
		`limeload_listener_bytes_total{direction="out",listener="main"}`:                     float64(sessions * (bytes + len(greeting))),
		`limeload_listener_retries_total{listener="main",outcome="connect_refused"}`:         2,
		`limeload_listener_retries_total{listener="main",outcome="connect_timeout"}`:         0,
		`limeload_listener_connect_seconds_count{listener="main"}`:                           sessions,
		`limeload_listener_connect_seconds_bucket{listener="main",le="64"}`:                  sessions,
		`limeload_listener_connect_seconds_bucket{listener="main",le="+Inf"}`:                sessions,
		`limeload_listener_first_byte_seconds_count{listener="main"}`:                        sessions,
		`limeload_listener_session_seconds_count{listener="main"}`:                           sessions,
		`limeload_listener_queue_seconds_count{listener="main"}`:                             0,
		`limeload_backend_outcomes_total{backend="b1",outcome="connect_refused",pool="all"}`: 2,
		`limeload_backend_outcomes_total{backend="b2",outcome="served",pool="all"}`:          sessions,
		`limeload_backend_bytes_total{backend="b2",direction="in",pool="all"}`:               sessions * bytes,
		`limeload_backend_bytes_total{backend="b1",direction="in",pool="all"}`:               0,
		`limeload_backend_breaker{backend="b1",breaker="open",pool="all"}`:                   1,
		`limeload_backend_breaker{backend="b1",breaker="closed",pool="all"}`:                 0,
		`limeload_backend_breaker{backend="b2",breaker="closed",pool="all"}`:                 1,
		`limeload_backend_breaker_openings_total{backend="b1",pool="all"}`:                   1,
		`limeload_pool_breaker_openings_total{pool="all"}`:                                   1,
		`limeload_pool_eligible_backends{pool="all"}`:                                        1,
		`limeload_pool_backends{pool="all"}`:                                                 2,
		`limeload_ready`:                                                                     1,
	}
	measured(t, b, all)
	awaitMetric(t, b, `limeload_listener_sessions{listener="main"}`, 0) // it leaves after its line in the log

	const refused = 3
	for range refused {
		_ = refusal(t, b.Address(t, "none"))
	}
	awaitMetric(t, b, `limeload_listener_refused_total{listener="none",reason="no_backend"}`, refused)
	staying := b.Dial(t, "one")
	awaitMetric(t, b, `limeload_backend_sessions{backend="b1",pool="single"}`, 1)
	_ = refusal(t, b.Address(t, "one"))
	awaitMetric(t, b, `limeload_listener_refused_total{listener="one",reason="max_sessions"}`, 1)
	measured(t, b, map[string]float64{
		`limeload_listener_accepted_total{listener="none"}`:                       refused,
		`limeload_pool_refused_picks_total{pool="empty",reason="no_backend"}`:     refused,
		`limeload_backend_mode{backend="b1",mode="maintenance",pool="empty"}`:     1,
		`limeload_listener_accepted_total{listener="one"}`:                        1,
		`limeload_listener_sessions{listener="one"}`:                              1,
		`limeload_pool_sessions{pool="single"}`:                                   1,
		`limeload_sessions`:                                                       1,
		`limeload_backend_verdict{backend="b1",pool="checked",verdict="healthy"}`: 1,
		`limeload_checks_total{outcome="failure",pool="checked"}`:                 0,
	})

	ill.Close()
	b.WaitVerdict(t, "b1", "unhealthy", started)
	if failures := metrics(t, b)[`limeload_checks_total{outcome="failure",pool="checked"}`]; failures < 1 {
		t.Errorf("%v checks failed", failures)
	}
	measured(t, b, map[string]float64{
		`limeload_backend_verdict{backend="b1",pool="checked",verdict="healthy"}`:   0,
		`limeload_backend_verdict{backend="b1",pool="checked",verdict="unhealthy"}`: 1,
		`limeload_pool_eligible_backends{pool="checked"}`:                           0,
	})

	b.Reload(t, strings.Replace(config, "max_sessions = 1", "max_sessions = 2", 1))
	reloaded := map[string]float64{
		`limeload_reloads_total{result="done"}`:   1,
		`limeload_reloads_total{result="failed"}`: 0,
		`limeload_last_reload_success`:            1,
	}
	measured(t, b, reloaded)
	b.Configure(t, "[listener.main]\naddress = 7\n")
	if status, answer := b.API(t, "POST", "/v1/reload", nil); status != http.StatusUnprocessableEntity {
		t.Fatalf("reload of a broken file: %d %s", status, answer)
	}
	reloaded[`limeload_reloads_total{result="failed"}`] = 1
	reloaded[`limeload_last_reload_success`] = 0
	measured(t, b, reloaded)
	b.Reload(t, config)
	reloaded[`limeload_reloads_total{result="done"}`] = 2
	reloaded[`limeload_last_reload_success`] = 1
	measured(t, b, reloaded)
	measured(t, b, all) // nothing of it was lost
	if last := metrics(t, b)[`limeload_last_reload_timestamp_seconds`]; last < float64(started.Unix()) {
		t.Errorf("the last reload was at %v", last)
	}

	b.Signal(t, syscall.SIGTERM)
	awaitMetric(t, b, `limeload_draining`, 1)
	measured(t, b, map[string]float64{`limeload_ready`: 0, `limeload_sessions`: 1})
	check(t, staying.Close())
	if code := b.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestMetricsRules runs Prometheus' own tool on the rules and their tests, and on the queries of the dashboard.
func TestMetricsRules(t *testing.T) {
	t.Parallel()
	promtool := harness.Tool(t, "promtool")
	bad := filepath.Join(t.TempDir(), "bad.yml")
	check(t, os.WriteFile(bad, []byte("groups: [{name: bad, rules: [{record: x, expr: rate(x)}]}]"), 0o600))
	if _, _, code := harness.Run(t, harness.Command{Path: promtool, Args: []string{"check", "rules", bad}}); code == 0 {
		t.Fatal("promtool finds nothing in a bad sample")
	}
	for _, args := range [][]string{{"check", "rules", "limeload.rules.yml"},
		{"test", "rules", "limeload.rules.test.yml"}} {
		harness.MustRun(t, harness.Command{Path: promtool, Args: args, Dir: filepath.Join(packagingDir, "prometheus")})
	}

	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	check(t, json.Unmarshal([]byte(packaged(t, "grafana/limeload-l4.json")), &board))
	// as Grafana does when all are chosen
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*", "$listener", ".*",
		"$pool", ".*", "$backend", ".*")
	var rules strings.Builder
	rules.WriteString("groups:\n- name: board\n  rules:\n")
	n := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			n++
			fmt.Fprintf(&rules, "  - record: board%d\n    expr: %q\n", n,
				variables.Replace(target.Expr))
		}
	}
	if n < 50 {
		t.Fatalf("the board asks for %d things", n)
	}
	file := filepath.Join(t.TempDir(), "board.yml")
	check(t, os.WriteFile(file, []byte(rules.String()), 0o600))
	harness.MustRun(t, harness.Command{Path: promtool, Args: []string{"check", "rules", file}})
}

// A monitor is a Prometheus server.
type monitor struct{ address string }

// startMonitor starts a server that scrapes a balancer's TCP address each second, with native histograms, and has the
// packaged rules.
func startMonitor(t testing.TB, target string) monitor {
	t.Helper()
	dir, m := t.TempDir(), monitor{harness.FreeAddress(t)}
	rules, err := filepath.Abs(filepath.Join(packagingDir, "prometheus", "limeload.rules.yml"))
	check(t, err)
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\n"+
		"scrape_configs:\n- job_name: limeload\n  static_configs: [{targets: [%q]}]\n",
		rules, target)
	check(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	harness.Start(t, harness.Command{Path: harness.Tool(t, "prometheus"), Args: []string{
		"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(dir, "data"),
		"--web.listen-address=" + m.address, "--enable-feature=native-histograms", "--log.level=warn",
	}})
	return m
}

// ask decodes the API's answer into into.
func (m monitor) ask(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+m.address+path, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", path, response.Status, text)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// value is an expression's only value now.
func (m monitor) value(ctx context.Context, expr string) (float64, error) {
	var answer struct {
		Data struct{ Result []struct{ Value []any } }
	}
	if err := m.ask(ctx, "/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		return 0, err
	}
	if n := len(answer.Data.Result); n != 1 || len(answer.Data.Result[0].Value) != 2 {
		return 0, fmt.Errorf("%s: %d values", expr, n)
	}
	return strconv.ParseFloat(fmt.Sprint(answer.Data.Result[0].Value[1]), 64)
}

// TestPrometheus runs a real Prometheus, which scrapes the balancer with native histograms and evaluates the rules.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	echo, admin := harness.Serve(t, harness.Echo), harness.FreeAddress(t)
	b := harness.StartBalancer(t,
		world{Backends: []string{echo.Address()}}.config(t)+fmt.Sprintf("[admin]\naddress = %q\n", admin))
	const sessions = 20
	for range sessions {
		check(t, tryService(b.Address(t, "main")))
	}
	b.WaitSessions(t, sessions)
	m := startMonitor(t, admin)
	for expr, right := range map[string]func(float64) bool{
		`up{job="limeload"}`:                                          func(v float64) bool { return v == 1 },
		`limeload_listener_accepted_total`:                            func(v float64) bool { return v == sessions },
		`histogram_count(limeload_listener_session_seconds)`:          func(v float64) bool { return v == sessions },
		`histogram_quantile(0.99, limeload_listener_session_seconds)`: func(v float64) bool { return v > 0 && v < 60 },
		`histogram_quantile(0.99, limeload_listener_connect_seconds)`: func(v float64) bool { return v > 0 && v < 60 },
		`instance_listener:limeload_listener_clients:rate5m`:          func(v float64) bool { return v >= 0 },
		`count(limeload_backend_verdict == 1)`:                        func(v float64) bool { return v == 1 },
		`sum(limeload_listener_ended_total)`:                          func(v float64) bool { return v == sessions },
	} {
		harness.Eventually(t, expr, func() error {
			v, err := m.value(t.Context(), expr)
			if err == nil && !right(v) {
				err = fmt.Errorf("it is %v", v)
			}
			return err
		})
	}
	harness.Eventually(t, "every rule was evaluated, and works", func() error {
		var answer struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		if err := m.ask(t.Context(), "/api/v1/rules", &answer); err != nil {
			return err
		}
		n := 0
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				n++
				if r.Health != "ok" {
					return fmt.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		if n < 20 {
			return fmt.Errorf("there are %d rules", n)
		}
		return nil
	})
}
