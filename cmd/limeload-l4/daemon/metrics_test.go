package daemon

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"net/http/httptest"
	"slices"
	"strings"
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
)

// metricsConfig has all that metrics are made of: two listeners, a pool with checks and a queue, and one without.
const metricsConfig = `
[admin]
address = ""
[listener.web]
address = "127.0.0.1:7999"
pool = "web"
[listener.mail]
address = "127.0.0.1:7997"
pool = "mail"
[pool.web]
backends = [{ address = "127.0.0.1:7998", name = "a", weight = 3 }, { address = "127.0.0.1:7996", name = "b", mode = "drain" }]
[pool.web.health]
type = "tcp"
[pool.web.queue]
max = 7
[pool.mail]
backends = [{ address = "127.0.0.1:7995" }]
`

func metricsDaemon(t *testing.T) *Daemon {
	t.Helper()
	cfg, err := conf.Parse("lb.toml", []byte(metricsConfig))
	if err != nil {
		t.Fatal(err)
	}
	if err := Resolve(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return testDaemon(t, cfg)
}

// scrape asks for the metrics as a program does that accepts this.
func scrape(t testing.TB, h http.Handler, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %.500s", w.Code, w.Body)
	}
	return w
}

// TestMetricsOfManyBackends scrapes 10,000 backends.
func TestMetricsOfManyBackends(t *testing.T) {
	cfg, err := conf.Parse("lb.toml", []byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	d := testDaemon(t, cfg)
	const backends = 10_000
	specs := make([]pool.Spec, backends)
	for i := range specs {
		specs[i].ID = fmt.Sprintf("backend-%05d", i)
		specs[i].Addr = cfg.Pools[0].Backends[0].Addr
		specs[i].Weight = 1
	}
	if _, err := d.pools["web"].pool.Reconcile(sourceConfig, specs); err != nil {
		t.Fatal(err)
	}
	for range 15 {
		began := time.Now()
		w := scrape(t, d.metrics, "")
		t.Logf("%d bytes in %v", w.Body.Len(), time.Since(began))
	}
	began := time.Now()
	w := scrape(t, d.metrics, "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	_ = os.WriteFile("/tmp/metrics.txt", scrape(t, d.metrics, "").Body.Bytes(), 0o600)
	t.Logf("protobuf %d bytes in %v", w.Body.Len(), time.Since(began))
	g := prometheus.Gatherer(d.newRegistry())
	began = time.Now()
	_, _ = g.Gather()
	t.Logf("gather %v", time.Since(began))
	_ = []any{testutil.GatherAndLint, dto.MetricType_COUNTER, expfmt.NewDecoder, io.EOF, slices.Sort[[]int], strings.Cut, healthcheck.Counts{}, l4.MaxSessions}
}
