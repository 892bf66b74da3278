package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

// metricsConfig has everything that has metrics: two listeners, a pool with checks and a queue, and a pool without.
const metricsConfig = `
[admin]
address = ""
[fleet]
name = "edge"
node = "a"
endpoints = ["http://127.0.0.1:1"]
check_share = 2
[listener.web]
address = "127.0.0.1:7999"
pool = "web"
[listener.names]
address = "127.0.0.1:7997"
protocol = "udp"
pool = "web"
cache = { max_entries = 1000 }
[listener.mail]
address = "127.0.0.1:7997"
pool = "mail"
profile = "postgres"
access = { deny = ["192.0.2.0/24"] }
[pool.web]
backends = [
  { address = "127.0.0.1:7998", name = "a", weight = 3 }, { address = "127.0.0.1:7996", name = "b", mode = "drain" },
]
[pool.web.health]
type = "tcp"
[pool.web.queue]
max = 7
[pool.mail]
backends = [{ address = "127.0.0.1:7995" }]
`

// The formats of /metrics that clients accept.
const (
	textForm   = "text/plain;version=0.0.4"
	binaryForm = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// metricsDaemon returns a daemon of metricsConfig that does not run.
func metricsDaemon(t *testing.T) *Daemon {
	t.Helper()
	cfg, err := conf.Parse("lb.toml", []byte(metricsConfig))
	if err != nil {
		t.Fatal(err)
	}
	addTLS(t, cfg)
	return testDaemon(t, cfg)
}

// addTLS gives the first listener and its pool certificates.
func addTLS(t *testing.T, cfg *conf.Config) {
	t.Helper()
	f := newTLSFolder(t)
	f.pair("a", "a.test")
	cert, key := f.path("a.crt"), f.path("a.key")
	l := &cfg.Listeners[0]
	l.TLS = &conf.ListenerTLS{Certificates: []conf.Certificate{{Cert: cert, Key: key}}}
	i := slices.IndexFunc(cfg.Pools, func(p conf.Pool) bool { return p.Name == l.Pool })
	cfg.Pools[i].TLS = &conf.PoolTLS{Mode: "verify", CA: cert, Cert: cert, Key: key}
}

// scrape gets the metrics in a format, by their names.
func scrape(t testing.TB, h http.Handler, accept string) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := tryScrape(h, accept)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// tryScrape is scrape for any goroutine.
func tryScrape(h http.Handler, accept string) (map[string]*dto.MetricFamily, error) {
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return nil, fmt.Errorf("status %d: %.500s", w.Code, w.Body)
	}
	families := make(map[string]*dto.MetricFamily)
	for decoder := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header())); ; {
		f := new(dto.MetricFamily)
		err := decoder.Decode(f)
		if errors.Is(err, io.EOF) {
			return families, nil
		}
		if err != nil {
			return nil, err
		}
		families[f.GetName()] = f
	}
}

// labelsText formats a metric's labels as PromQL does.
func labelsText(m *dto.Metric) string {
	var all []string
	for _, l := range m.GetLabel() {
		all = append(all, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	return "{" + strings.Join(all, ",") + "}"
}

// numbers returns the values of counters and gauges, and the counts of histograms, by name and labels.
func numbers(families map[string]*dto.MetricFamily) map[string]float64 {
	all := make(map[string]float64)
	for name, f := range families {
		for _, m := range f.GetMetric() {
			key := name + labelsText(m)
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				all[key] = m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				all[key] = m.GetGauge().GetValue()
			case dto.MetricType_SUMMARY:
				all[key] = float64(m.GetSummary().GetSampleCount())
			case dto.MetricType_HISTOGRAM:
				all[key] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return all
}

// named returns a series of the catalog.
func (c catalog) named(t *testing.T, name string) *series {
	t.Helper()
	i := slices.IndexFunc(c, func(s *series) bool { return s.name == name })
	if i < 0 {
		t.Fatalf("there is no series %s", name)
	}
	return c[i]
}

// TestMetricsAreSound checks all series with client_golang's linter and its strictest registry. All of them exist from
// the start: a rate over a series that appears with its first event misses that event.
func TestMetricsAreSound(t *testing.T) {
	bad := prometheus.NewPedanticRegistry()
	bad.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "limeload_milliseconds"}))
	if found, err := testutil.GatherAndLint(bad); err != nil || len(found) < 2 {
		t.Fatalf("the linter finds %v in a bad sample, %v", found, err)
	}

	d := metricsDaemon(t)
	// the gauges of agents are only for backends whose agent has said something
	if err := d.pools["web"].pool.SetAgent("b", pool.Agent{Weighs: true, Percent: 50}); err != nil {
		t.Fatal(err)
	}
	c := newCollector(d)
	// and the lag of a replica is only for those whose check knows it
	lag := checkSeries{took: c.series.named(t, "limeload_backend_check_duration_seconds"),
		last: c.series.named(t, "limeload_backend_check_last_duration_seconds"),
		lag:  c.series.named(t, "limeload_backend_replication_lag_seconds")}
	c.parts = append(c.parts, func(to sink) {
		lag.put(to, &healthcheck.TargetStats{Last: healthcheck.Ended{Lag: 7 * time.Second, KnowsLag: true}},
			label("backend", "replica"), label("pool", "db"))
	})
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	found, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range found {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	declared := make(map[string]*series)
	for _, s := range c.series {
		if declared[s.name] != nil {
			t.Errorf("%s is declared twice", s.name)
		}
		declared[s.name] = s
	}
	for _, f := range families {
		s := declared[f.GetName()]
		if s.kind != f.GetType() || s.help != f.GetHelp() {
			t.Errorf("%s is a %v, %q; declared is a %v, %q", s.name, f.GetType(), f.GetHelp(), s.kind, s.help)
		}
		delete(declared, s.name)
	}
	for name := range declared {
		t.Errorf("%s has no number", name)
	}
}

// TestMetricsOfConfiguration checks the numbers of a configuration before anything has happened.
func TestMetricsOfConfiguration(t *testing.T) {
	d := metricsDaemon(t)
	if err := d.pools["web"].pool.SetVerdict("a", pool.Healthy, ""); err != nil {
		t.Fatal(err)
	}
	if err := d.pools["mail"].pool.Add(
		pool.Spec{ID: "na\xffme", Addr: pool.At(d.cfg.Pools[0].Backends[0].Addr), Weight: 1}); err != nil {
		t.Fatal(err)
	}
	if n := len(d.cfg.Warnings()); n != 1 {
		t.Fatalf("there are the warnings %q, want one", d.cfg.Warnings())
	}
	next := *d.cfg
	next.Global.Workers, next.Global.StateFile, next.Log.Format = 7, "/elsewhere", "console"
	d.cfg, d.loadFailure, d.dropped = &next, errors.New("damaged"), func() uint64 { return 7 }
	got, slots := numbers(scrape(t, d.metrics, textForm)), checkSlotsFor(descriptorLimit())
	for key, want := range map[string]float64{
		`limeload_config_warnings{}`:      1,
		`limeload_config_needs_restart{}`: 3,
		`limeload_state_file_failure{}`:   1,
		`limeload_ready{}`:                0,
		`limeload_draining{}`:             0,
		`limeload_build_info{goversion="` + runtime.Version() + `",version="test"}`: 1,
		`limeload_last_reload_success{}`:                                            1,
		`limeload_last_reload_timestamp_seconds{}`:                                  0,
		`limeload_listener_info{listener="web",pool="web",protocol="tcp"}`:          1,
		`limeload_pool_backends{pool="web"}`:                                        2,
		`limeload_pool_eligible_backends{pool="web"}`:                               1,
		`limeload_pool_queue_max_sessions{pool="web"}`:                              7,
		`limeload_pool_queue_max_sessions{pool="mail"}`:                             0,
		`limeload_backend_weight{backend="a",pool="web"}`:                           3,
		`limeload_backend_eligible{backend="a",pool="web"}`:                         1,
		`limeload_backend_eligible{backend="b",pool="web"}`:                         0,
		`limeload_backend_verdict{backend="a",pool="web",verdict="healthy"}`:        1,
		`limeload_backend_verdict{backend="a",pool="web",verdict="unknown"}`:        0,
		`limeload_backend_verdict{backend="b",pool="web",verdict="unknown"}`:        1,
		`limeload_backend_mode{backend="b",mode="drain",pool="web"}`:                1,
		`limeload_backend_mode{backend="b",mode="ready",pool="web"}`:                0,
		`limeload_backend_breaker{backend="a",breaker="closed",pool="web"}`:         1,
		`limeload_backend_breaker{backend="a",breaker="half-open",pool="web"}`:      0,
		`limeload_backend_sessions{backend="na` + "\uFFFD" + `me",pool="mail"}`:     0,
		`limeload_checks_total{outcome="success",pool="web"}`:                       0,
		`limeload_check_duration_seconds{pool="web"}`:                               0,
		`limeload_checks_max_running{kind="socket"}`:                                float64(slots.sockets),
		`limeload_checks_max_running{kind="program"}`:                               float64(slots.programs),
		`limeload_checks_blind_backends{pool="web"}`:                                0,
		`limeload_listener_refused_total{listener="web",reason="max_sessions"}`:     0,
		`limeload_dns_questions_total{listener="names",result="coalesced"}`:         0,
		`limeload_dns_cache_bytes{listener="names"}`:                                0,
		`limeload_log_lines_dropped_total{}`:                                        7,
		`limeload_loop_turn_seconds{loop="0"}`:                                      0,
		`limeload_start_time_seconds{}`:                                             timestamp(d.began),
	} {
		if value, has := got[key]; !has || math.Abs(value-want) > 1e-3 {
			t.Errorf("%s is %v (there: %t), want %v", key, value, has, want)
		}
	}
	if _, has := got[`limeload_dns_tries_total{listener="web"}`]; has {
		t.Error("a listener without DNS settings has numbers of them")
	}
	if _, has := got[`limeload_checks_total{outcome="success",pool="mail"}`]; has {
		t.Error("a pool without checks has numbers of checks")
	}
	for _, name := range []string{"go_goroutines{}", "process_open_fds{}", "process_max_fds{}"} {
		if got[name] <= 0 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
}

// TestTimes checks one histogram in both formats: the text format has the classic buckets, the binary format both, and
// they agree.
func TestTimes(t *testing.T) {
	h := l4.Histogram{Count: 10, Sum: 12.5,
		Buckets: bucketsOf(map[float64]uint64{1e-7: 1, 0.003: 4, 1: 2, 90: 2, 1e9: 1})}
	var c catalog
	s := c.histogram("limeload_test_seconds", "A test.", "listener")
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&collector{series: c,
		parts: []part{func(to sink) { to.times(s, h, newScale(4, 1e-4, 100), label("listener", "web")) }}})
	handler := newHandler(r, nil)

	text := scrape(t, handler, textForm)["limeload_test_seconds"].GetMetric()[0].GetHistogram()
	if text.GetSampleCount() != 10 || text.GetSampleSum() != 12.5 || text.Schema != nil {
		t.Errorf("as text it is %v", text)
	}
	var bounds []float64
	classic := make(map[float64]uint64)
	for _, b := range text.GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
		classic[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	if len(bounds) != 21 || bounds[0] != math.Exp2(-13) || bounds[19] != 64 || !math.IsInf(bounds[20], 1) {
		t.Errorf("the bounds are %v", bounds)
	}
	for bound, want := range map[float64]uint64{math.Exp2(-13): 1, math.Exp2(-9): 1, math.Exp2(-8): 5, 0.5: 5, 1: 7,
		64: 7, math.Inf(1): 10} {
		if classic[bound] != want {
			t.Errorf("up to %v s there are %d, want %d", bound, classic[bound], want)
		}
	}

	both := scrape(t, handler, binaryForm)["limeload_test_seconds"].GetMetric()[0].GetHistogram()
	if n := len(both.GetBucket()); n != 20 {
		t.Errorf("the binary form has %d classic buckets", n)
	}
	if both.GetSchema() != l4.HistogramSchema || both.GetZeroCount() != 1 || both.GetSampleCount() != 10 ||
		both.GetSampleSum() != 12.5 ||
		both.CreatedTimestamp != nil {
		t.Errorf("the binary form is %v", both)
	}
	native := nativeCounts(both)
	want := map[float64]uint64{math.Exp2(-8.25): 4, 1: 2, math.Exp2(6.5): 2, math.Inf(1): 1}
	for bound, n := range want {
		if bound < math.Inf(1) && native[bound] != n {
			t.Errorf("the native bucket up to %v has %d, want %d; all are %v", bound, native[bound], n, native)
		}
	}
	if len(native) != len(want) {
		t.Errorf("the native buckets are %v", native)
	}

	var empty l4.Histogram
	empty.Buckets = make([]uint64, len(h.Buckets))
	h = empty
	none := scrape(t, handler, binaryForm)["limeload_test_seconds"].GetMetric()[0].GetHistogram()
	if none.GetZeroThreshold() == 0 || none.GetSampleCount() != 0 || len(none.GetBucket()) != 20 {
		t.Errorf("an empty one is %v: Prometheus takes it for native by its zero threshold", none)
	}
}

// bucketsOf returns the buckets of a histogram with so many times of so many seconds.
func bucketsOf(times map[float64]uint64) []uint64 {
	var buckets []uint64
	for i := 0; ; i++ {
		buckets = append(buckets, 0)
		bound := l4.HistogramBound(i)
		for seconds, n := range times {
			if seconds <= bound {
				buckets[i] += n
				delete(times, seconds)
			}
		}
		if math.IsInf(bound, 1) {
			return buckets
		}
	}
}

// nativeCounts returns the native buckets of a histogram of schema 2 by their upper bounds.
func nativeCounts(h *dto.Histogram) map[float64]uint64 {
	counts := make(map[float64]uint64)
	var index int32
	var count int64
	deltas := h.GetPositiveDelta()
	for _, span := range h.GetPositiveSpan() {
		index += span.GetOffset()
		for range span.GetLength() {
			count += deltas[0]
			deltas = deltas[1:]
			if count > 0 {
				counts[math.Exp2(float64(index)/4)] = uint64(count)
			}
			index++
		}
	}
	return counts
}

// TestMetricsUnderLoad scrapes while clients come and go and the configuration is reloaded again and again. The
// counters of things that stay never go down, and are right at the end.
func TestMetricsUnderLoad(t *testing.T) {
	echo, address := harness.Serve(t, harness.Echo), harness.FreeAddress(t)
	file := filepath.Join(t.TempDir(), "lb.toml")
	configure := func(i int) {
		text := fmt.Sprintf(
			"[admin]\naddress = \"\"\n[listener.web]\naddress = %q\npool = \"web\"\nmax_sessions = %d\n"+
				"[pool.web]\nbackends = [{ address = %q, name = \"a\", weight = %d }]\n", address, 100+i,
			echo.Address(), 1+i%5)
		if i%3 == 1 {
			text += "[pool.web.health]\ntype = \"tcp\"\ninterval = \"10ms\"\n"
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	configure(0)
	cfg, err := Load(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Config: cfg, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx, nil) })
	defer running.Wait()
	defer stop()
	<-d.life.reloadable

	const clients, rounds, reloads = 4, 50, 20
	var work sync.WaitGroup
	for range clients {
		work.Go(func() {
			for range rounds {
				if err := visit(address); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	work.Go(func() {
		for i := range reloads {
			configure(i + 1)
			if _, err := d.Reload(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	done := make(chan struct{})
	go func() {
		work.Wait()
		close(done)
	}()
	last := make(map[string]float64)
	scrapes := 0
	for busy := true; busy; scrapes++ {
		select {
		case <-done:
			busy = false
		default:
		}
		families, err := tryScrape(d.metrics, binaryForm)
		if err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(families, func(name string, f *dto.MetricFamily) bool {
			return f.GetType() == dto.MetricType_GAUGE || !strings.HasPrefix(name, "limeload_")
		})
		now := numbers(families)
		for key, was := range last {
			// A pool without checks has no counters of them, and continues them later. A backend counts its checks from
			// when it last began to be checked.
			if is, there := now[key]; there && is < was && !strings.HasPrefix(key, "limeload_backend_check_") {
				t.Errorf("%s went down from %v to %v", key, was, is)
			}
		}
		maps.Copy(last, now)
	}
	t.Logf("%d scrapes", scrapes)
	for key, want := range map[string]float64{
		`limeload_listener_accepted_total{listener="web"}`:                          clients * rounds,
		`limeload_listener_connect_seconds{listener="web"}`:                         clients * rounds,
		`limeload_reloads_total{result="done"}`:                                     reloads,
		`limeload_reloads_total{result="failed"}`:                                   0,
		`limeload_listener_retries_total{listener="web",outcome="connect_refused"}`: 0,
	} {
		if last[key] != want {
			t.Errorf("%s is %v, want %v", key, last[key], want)
		}
	}
}

// visit is one short session.
func visit(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	return harness.PingPong(c, 1, 5)
}

func TestInTurn(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		loop l4.LoopInfo
		want time.Duration
	}{
		{l4.LoopInfo{Waiting: true}, 0},
		{l4.LoopInfo{Waiting: true, LastTurn: now.Add(-time.Hour)}, 0},
		{l4.LoopInfo{LastTurn: now.Add(-7 * time.Second)}, 7 * time.Second},
		{l4.LoopInfo{LastTurn: now.Add(time.Millisecond)}, 0},
		{l4.LoopInfo{}, 0},
	} {
		if got := inTurn(tc.loop, now); got != tc.want {
			t.Errorf("%+v: %v, want %v", tc.loop, got, tc.want)
		}
	}
}
