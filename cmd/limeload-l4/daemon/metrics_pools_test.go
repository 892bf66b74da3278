package daemon

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/rate"
)

// TestOneHot: every state of a closed set has exactly one line that is 1, and all sets are in the metrics.
func TestOneHot(t *testing.T) {
	for what, beyond := range map[string]fmt.Stringer{
		"verdicts": pool.Fallback + 1, "modes": pool.Maintenance + 1, "breakers": pool.HalfOpen + 1,
		"outcomes":           pool.ICMPError + 1,
		"outcomes of checks": healthcheck.Outcome(len(healthcheck.Counts{})),
	} {
		if !strings.HasSuffix(beyond.String(), ")") {
			t.Errorf("the %s have one more: %s", what, beyond)
		}
	}
	d := metricsDaemon(t)
	p := d.pools["web"].pool
	for v := pool.Unknown; v <= pool.Fallback; v++ {
		if err := p.SetVerdict("a", v, ""); err != nil {
			t.Fatal(err)
		}
		for m := pool.Ready; m <= pool.Maintenance; m++ {
			if err := p.SetMode("a", m); err != nil {
				t.Fatal(err)
			}
			got := numbers(scrape(t, d.metrics, textForm))
			for metric, state := range map[string]string{"verdict": v.String(), "mode": m.String(),
				"breaker": "closed"} {
				var on []string
				for key, value := range got {
					if strings.HasPrefix(key, "limeload_backend_"+metric+"{") && strings.Contains(key, `backend="a"`) &&
						value == 1 {
						on = append(on, key)
					}
				}
				if len(on) != 1 || !strings.Contains(on[0], fmt.Sprintf("%s=%q", metric, state)) {
					t.Errorf("%s: %q are 1, want the one of %s", metric, on, state)
				}
			}
		}
	}
}

// TestMetricsOfManyBackends measures a scrape with 10,000 backends.
func TestMetricsOfManyBackends(t *testing.T) {
	const backends, each = 10_000, 49 // the numbers in docs/metrics.md
	d := metricsDaemon(t)
	specs := make([]pool.Spec, backends)
	for i := range specs {
		specs[i] = pool.Spec{ID: fmt.Sprintf("backend-%05d", i),
			Addr: pool.At(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), uint16(1+i))), Weight: 1}
	}
	if _, err := d.pools["mail"].pool.Reconcile("test", specs); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/metrics", nil)
	var text string
	for _, coding := range []string{"gzip", "identity"} {
		r.Header.Set("Accept-Encoding", coding)
		w := httptest.NewRecorder()
		began := time.Now()
		d.metrics.ServeHTTP(w, r)
		t.Logf("%s: %d bytes in %v", coding, w.Body.Len(), time.Since(began))
		text = w.Body.String()
	}
	if got := strings.Count(text, `backend="backend-`); got != backends*each {
		t.Errorf("%d backends have %d numbers, want %d for each", backends, got, each)
	}
}

// TestMetricsOfPool causes each thing that a pool counts a different number of times, and checks the numbers.
func TestMetricsOfPool(t *testing.T) {
	d := metricsDaemon(t)
	p := d.pools["web"].pool
	for id, v := range map[string]pool.Verdict{"a": pool.Healthy, "b": pool.Lagging} {
		if err := p.SetVerdict(id, v, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.SetMaxSessions("a", 1); err != nil {
		t.Fatal(err)
	}
	if err := p.SetMaxRate("a", rate.Limit{Every: 250 * time.Millisecond, Burst: 1000}); err != nil {
		t.Fatal(err)
	}
	lease, err := p.Pick(pool.PickContext{})
	if err != nil {
		t.Fatal(err)
	}
	lease.Backend().AddBytes(30, 40)
	lease.ConnectTook(7*time.Millisecond, 0)
	lease.FirstByteTook(2*time.Second, 3)

	const busy, full = 9, 2
	for range busy {
		if _, err := p.Pick(pool.PickContext{}); !errors.Is(err, pool.ErrBusy) {
			t.Fatal(err)
		}
	}
	leases := make(chan pool.Lease, 1)
	waiters := make([]*pool.Waiter, p.QueueMax())
	for i := range waiters {
		waiters[i] = &pool.Waiter{Serve: func(l pool.Lease, err error) {
			if err == nil {
				leases <- l
			}
		}}
		if err := p.Wait(waiters[i]); err != nil {
			t.Fatal(err)
		}
	}
	for range full {
		if err := p.Wait(new(pool.Waiter)); !errors.Is(err, pool.ErrQueueFull) {
			t.Fatal(err)
		}
	}
	lease.Release(pool.Served)
	lease = <-leases
	for _, w := range waiters[1:3] {
		if !p.Leave(w) {
			t.Fatal("not in the queue")
		}
	}
	waiting := float64(len(waiters) - 3)
	before := map[string]float64{
		`limeload_backend_connect_seconds{backend="a",pool="web"}`:                                               1,
		`limeload_backend_first_byte_seconds{backend="a",pool="web"}`:                                            1,
		`limeload_backend_first_byte_seconds{backend="b",pool="web"}`:                                            0,
		`limeload_pool_info{algorithm="least_conn",pool="web",role="any"}`:                                       1,
		`limeload_backend_info{address="127.0.0.1:7998",backend="a",pool="web",role="unknown",tier="0",zone=""}`: 1,
		`limeload_pool_sessions{pool="web"}`:                                                                     1,
		`limeload_backend_sessions{backend="a",pool="web"}`:                                                      1,
		`limeload_backend_max_sessions{backend="a",pool="web"}`:                                                  1,
		`limeload_backend_max_rate_per_second{backend="a",pool="web"}`:                                           4,
		`limeload_backend_max_rate_per_second{backend="b",pool="web"}`:                                           0,
		`limeload_backend_rate_reached_total{backend="a",pool="web"}`:                                            0,
		`limeload_backend_outcomes_total{backend="a",outcome="served",pool="web"}`:                               1,
		`limeload_backend_outcomes_total{backend="a",outcome="neutral",pool="web"}`:                              0,
		`limeload_backend_bytes_total{backend="a",direction="in",pool="web"}`:                                    30,
		`limeload_backend_bytes_total{backend="a",direction="out",pool="web"}`:                                   40,
		`limeload_pool_queue_sessions{pool="web"}`:                                                               waiting,
		`limeload_pool_queue_waited_total{pool="web"}`:                                                           float64(len(waiters)),
		`limeload_pool_queue_left_total{pool="web",result="served"}`:                                             1,
		`limeload_pool_queue_left_total{pool="web",result="left"}`:                                               2,
		`limeload_pool_queue_left_total{pool="web",result="in_vain"}`:                                            0,
		`limeload_pool_queue_full_total{pool="web"}`:                                                             full,
		`limeload_pool_refused_picks_total{pool="web",reason="no_backend"}`:                                      0,
		`limeload_pool_tries_all{pool="web"}`:                                                                    0,
		`limeload_pool_revocations_total{pool="web"}`:                                                            0,
		`limeload_pool_rivalries_total{pool="web"}`:                                                              0,
		`limeload_pool_sticky_entries{pool="web"}`:                                                               0,
		`limeload_pool_breaker_openings_total{pool="web"}`:                                                       0,
	}
	compare := func(want map[string]float64) {
		t.Helper()
		got := numbers(scrape(t, d.metrics, textForm))
		for key, value := range want {
			if is, has := got[key]; !has || is != value {
				t.Errorf("%s is %v (there: %t), want %v", key, is, has, value)
			}
		}
		if n := got[`limeload_pool_refused_picks_total{pool="web",reason="busy"}`]; n < busy {
			t.Errorf("%v picks found all busy, want %d or more", n, busy)
		}
	}
	compare(before)
	families := scrape(t, d.metrics, textForm)
	for name, want := range map[string][]uint64{
		"limeload_backend_connect_seconds":    {0, 0, 1, 1, 1, 1},
		"limeload_backend_first_byte_seconds": {0, 0, 0, 0, 0, 1},
	} {
		var got []uint64
		for _, m := range families[name].GetMetric() {
			if strings.Contains(labelsText(m), `{backend="a"`) {
				for _, b := range m.GetHistogram().GetBucket() {
					got = append(got, b.GetCumulativeCount())
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the buckets of %s are %v, want %v", name, got, want)
		}
	}
	for _, m := range families["limeload_backend_verdict_changed_timestamp_seconds"].GetMetric() {
		if since := time.Since(time.UnixMicro(int64(m.GetGauge().GetValue() * 1e6))); since < 0 || since > time.Hour {
			t.Errorf("the verdict is %v old", since)
		}
	}

	if err := p.SetVerdict("a", pool.Unhealthy, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Pick(pool.PickContext{}); !errors.Is(err, pool.ErrNoBackend) {
		t.Fatal(err)
	}
	lease.Release(pool.ConnectTimeout)
	compare(map[string]float64{
		`limeload_pool_queue_sessions{pool="web"}`:                    waiting, // a backend may recover
		`limeload_pool_queue_left_total{pool="web",result="in_vain"}`: 0,
	})
	p.Close()
	compare(map[string]float64{
		`limeload_pool_eligible_backends{pool="web"}`:                                       0,
		`limeload_pool_queue_sessions{pool="web"}`:                                          0,
		`limeload_pool_queue_left_total{pool="web",result="in_vain"}`:                       waiting,
		`limeload_backend_outcomes_total{backend="a",outcome="connect_timeout",pool="web"}`: 1,
	})
	now := numbers(scrape(t, d.metrics, textForm))
	if n := now[`limeload_pool_refused_picks_total{pool="web",reason="no_backend"}`]; n < 1 {
		t.Errorf("%v picks found no backend", n)
	}
}

// TestCheckTimes converts the durations of checks to a histogram.
func TestCheckTimes(t *testing.T) {
	var tally healthcheck.Tally
	tally.Checks[healthcheck.Succeeded], tally.Checks[healthcheck.TimedOut] = 6, 1
	tally.Buckets[0], tally.Buckets[3], tally.Duration = 4, 2, 9*time.Second
	h := checkTimes(tally)
	if h.GetSampleCount() != 7 || h.GetSampleSum() != 9 || len(h.GetBucket()) != len(tally.Buckets) {
		t.Errorf("it is %v", h)
	}
	for i, b := range h.GetBucket() {
		want := uint64(4)
		if i >= 3 {
			want = 6
		}
		if b.GetCumulativeCount() != want || b.GetUpperBound() != healthcheck.DurationBounds()[i].Seconds() {
			t.Errorf("bucket %d is %v, want %d", i, b, want)
		}
	}
}

// TestWantedBackends checks how many backends should serve, which an alert compares with how many can.
func TestWantedBackends(t *testing.T) {
	d := testDaemon(t, parsed(t, `
[pool.writers]
backends = [
  { address = "127.0.0.1:7998", name = "b1" }, { address = "127.0.0.1:7997", name = "b2" },
  { address = "127.0.0.1:7996", name = "b3" },
]
health = { type = "redis", role = "primary" }
[pool.readers]
backends = [
  { address = "127.0.0.1:7998", name = "b1" }, { address = "127.0.0.1:7997", name = "b2" },
  { address = "127.0.0.1:7996", name = "b3" }, { address = "127.0.0.1:7995", name = "drained", mode = "drain" },
  { address = "127.0.0.1:7994", name = "light", weight = 0 },
]
health = { type = "redis", role = "replica" }
[pool.reading]
backends = [
  { address = "127.0.0.1:7998", name = "b1" }, { address = "127.0.0.1:7997", name = "b2" },
  { address = "127.0.0.1:7996", name = "b3" },
]
health = { type = "redis", role = "replica", fallback = "primary" }
`))
	for name, verdicts := range map[string][]pool.Verdict{
		"writers": {pool.Healthy, pool.WrongRole, pool.Unhealthy},
		"readers": {pool.WrongRole, pool.Healthy, pool.Lagging},
		"reading": {pool.Fallback, pool.Unhealthy, pool.Lagging},
	} {
		for i, v := range verdicts {
			if err := d.pools[name].pool.SetVerdict(fmt.Sprintf("b%d", i+1), v, "test"); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := numbers(scrape(t, d.metrics, textForm))
	for key, want := range map[string]float64{
		`limeload_pool_wanted_backends{pool="writers"}`: 1, `limeload_pool_wanted_backends{pool="readers"}`: 2,
		`limeload_pool_eligible_backends{pool="writers"}`: 1, `limeload_pool_eligible_backends{pool="readers"}`: 1,
		`limeload_pool_wanted_backends{pool="reading"}`: 2, `limeload_pool_eligible_backends{pool="reading"}`: 1,
		`limeload_pool_falls_back{pool="reading"}`: 1, `limeload_pool_falls_back{pool="readers"}`: 0,
	} {
		if is, there := got[key]; !there || is != want {
			t.Errorf("%s is %v (there: %v), want %v", key, is, there, want)
		}
	}
}
