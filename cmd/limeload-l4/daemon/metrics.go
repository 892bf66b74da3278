package daemon

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// maxScrapes bounds the concurrent answers to /metrics, each of which holds a copy of all numbers. Two Prometheus
// servers and a person need fewer. Further requests get status 503.
const maxScrapes = 4

// newMetrics returns two handlers of /metrics, for the admin address and for metrics.address. They answer in Prometheus'
// text format or, on request, in its binary format, which alone has native histograms.
func (d *Daemon) newMetrics() (atAdmin, atMetrics http.Handler) {
	r := d.newRegistry()
	return newHandler(r, scrapeLog{d.log}), newHandler(r, scrapeLog{d.log})
}

func newHandler(g prometheus.Gatherer, log promhttp.Logger) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog:            log,
		ErrorHandling:       promhttp.ContinueOnError, // most of the numbers are better than none
		MaxRequestsInFlight: maxScrapes,
	})
}

// newRegistry returns a registry of the daemon's numbers, those of the process and those of Go's run time. No other
// registry is used.
func (d *Daemon) newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		newCollector(d), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return r
}

// A scrapeLog logs the errors of promhttp.
type scrapeLog struct{ log zerolog.Logger }

// Println logs an error of a scrape.
func (l scrapeLog) Println(v ...any) {
	l.log.Error().Str("err", fmt.Sprint(v...)).Str("event", "scrape_failed").Msg("metrics")
}

// A collector makes metrics of the numbers that the packages keep anyway. So nothing is counted twice, and metrics cost
// sessions and picks nothing. It is safe for concurrent use.
type collector struct {
	// set once, then read-only
	series catalog
	parts  []part
}

// A part sends the numbers of one part of the daemon. They may change while it reads them; it blocks nobody.
type part func(to sink)

// newCollector lists the parts. A new one is a function that declares its series in the catalog, and a line here.
func newCollector(d *Daemon) *collector {
	c := new(collector)
	c.parts = []part{
		c.series.ofDaemon(d), c.series.ofLoops(d), c.series.ofListeners(d), c.series.ofDNS(d), c.series.ofPools(d),
		c.series.ofChecks(d), c.series.ofTLS(d), c.series.ofAccess(d), c.series.ofFleet(d), c.series.ofFleetChecks(d),
		c.series.ofFleetLimits(d),
	}
	return c
}

// Describe sends the description of each series.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, s := range c.series {
		to <- s.desc
	}
}

// Collect sends the current numbers.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	for _, put := range c.parts {
		put(to)
	}
}
