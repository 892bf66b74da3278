package daemon

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// maxScrapes bounds the answers to /metrics under way: each holds a copy of all numbers, and more than two Prometheus servers and a
// person are somebody's mistake. More are told so with status 503.
const maxScrapes = 4

// newMetrics is what answers /metrics: in Prometheus' text format, or in its binary one for who asks for that, which alone has
// native histograms.
func (d *Daemon) newMetrics() http.Handler {
	return newHandler(d.newRegistry(), scrapeLog{d.log})
}

func newHandler(g prometheus.Gatherer, log promhttp.Logger) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog:            log,
		ErrorHandling:       promhttp.ContinueOnError, // all that is in order is better than nothing
		MaxRequestsInFlight: maxScrapes,
	})
}

// newRegistry has the daemon's numbers, and those of the process and of Go's run time. No other registry is used.
func (d *Daemon) newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		newCollector(d), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return r
}

// A scrapeLog takes what promhttp says of a scrape that did not go well.
type scrapeLog struct{ log zerolog.Logger }

// Println logs an error of a scrape.
func (l scrapeLog) Println(v ...any) { l.log.Error().Str("err", fmt.Sprint(v...)).Msg("metrics") }

// A collector makes metrics of the numbers that the packages keep anyway: nothing is counted twice, and no session and no pick
// knows of it. It is safe for concurrent use.
type collector struct {
	// set once, then read-only
	series catalog
	parts  []part
}

// A part puts what one part of the daemon has come to. It reads numbers that change meanwhile, and holds nobody up.
type part func(to sink)

// newCollector names each part; a new one is a function that declares its series in the catalog, and a line here.
func newCollector(d *Daemon) *collector {
	c := new(collector)
	c.parts = []part{
		c.series.ofDaemon(d), c.series.ofLoops(d), c.series.ofListeners(d), c.series.ofDNS(d), c.series.ofPools(d), c.series.ofChecks(d),
	}
	return c
}

// Describe sends what each series is.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, s := range c.series {
		to <- s.desc
	}
}

// Collect sends the numbers of now.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	for _, put := range c.parts {
		put(to)
	}
}
