//go:build soak

package test

import (
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// TestSoakPage keeps the page open for a minute, first with a small pool on the screen and then with one of 1,000
// backends, and measures what that costs the browser and the balancer.
func TestSoakPage(t *testing.T) {
	w := startPageWorld(t)
	b := startChromium(t).open(t, w.page, 1440, 1000)
	for _, pool := range []string{"web", "many"} { // which is on the screen; "many" is closed at first
		b.openPool(t, pool)
		b.await(t, `document.querySelector("#pool-`+pool+` tbody tr")`)
		b.eval(t, `document.querySelector("#pool-`+pool+`").scrollIntoView()`)
		_, err := chromedp.Call(b.ctx, performance.Enable, performance.EnableParams{})
		check(t, err)
		before, cpu, began := b.metrics(t), w.CPUTime(t), time.Now()
		time.Sleep(time.Minute)
		after, took := b.metrics(t), time.Since(began).Seconds()
		share := func(name string) float64 { return 100 * (after[name] - before[name]) / took }
		t.Logf("pool %s on the screen, %.0f s: the page takes %.1f %% of a CPU (scripts %.1f %%, layout and style %.1f %%), "+
			"the balancer %.1f %%; the heap has %.1f MB, the document %.0f nodes (%+.0f)", pool, took, share("TaskDuration"),
			share("ScriptDuration"), share("LayoutDuration")+share("RecalcStyleDuration"),
			100*(w.CPUTime(t)-cpu).Seconds()/took, after["JSHeapUsedSize"]/1e6, after["Nodes"], after["Nodes"]-before["Nodes"])
		if share("TaskDuration") > 50 {
			t.Error("the page takes more than half a CPU")
		}
	}
	b.silent(t)
}

// metrics returns the browser's numbers about the tab; times are in seconds.
func (b *tab) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	found, err := chromedp.Call(b.ctx, performance.GetMetrics, cdp.Empty{})
	check(t, err)
	all := map[string]float64{}
	for _, m := range found.Metrics {
		all[m.Name] = m.Value
	}
	return all
}
