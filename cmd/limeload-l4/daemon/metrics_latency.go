package daemon

import (
	dto "github.com/prometheus/client_model/go"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// latencySeries are the series of how fast each backend is. They are histograms of few buckets: there may be 10,000
// backends, and the listener's have many.
type latencySeries struct {
	connect, firstByte *series
	bounds             []float64 // in seconds
}

// ofLatency declares them.
func (c *catalog) ofLatency() *latencySeries {
	s := &latencySeries{
		connect: c.histogram("limeload_backend_connect_seconds",
			"A backend takes so long to be connected to, over the connects that succeed.", "backend", "pool"),
		firstByte: c.histogram("limeload_backend_first_byte_seconds",
			"A backend takes so long to its first byte, from when it was asked or, if it speaks unasked, connected.",
			"backend", "pool"),
	}
	for _, bound := range pool.TimeBounds() {
		s.bounds = append(s.bounds, bound.Seconds())
	}
	return s
}

// put sends the times of one backend.
func (s *latencySeries) put(to sink, b *pool.BackendInfo, labels ...*dto.LabelPair) {
	to <- &distribution{of: s.connect, form: s.form(&b.ConnectTimes), labels: labels}
	to <- &distribution{of: s.firstByte, form: s.form(&b.FirstByteTimes), labels: labels}
}

// form converts times to a classic histogram.
func (s *latencySeries) form(t *pool.Times) *dto.Histogram {
	h := &dto.Histogram{SampleCount: new(t.Count()), SampleSum: &t.Sum}
	var upTo uint64
	for i := range s.bounds {
		upTo += t.Buckets[i]
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &s.bounds[i], CumulativeCount: new(upTo)})
	}
	return h
}

// checkSeries are the series of the checks of each backend.
type checkSeries struct{ took, last, lag *series }

// ofBackendChecks declares them.
func (c *catalog) ofBackendChecks() *checkSeries {
	return &checkSeries{
		took: c.summary("limeload_backend_check_duration_seconds",
			"A check of the backend takes so long, whatever its outcome.", "backend", "pool"),
		last: c.gauge("limeload_backend_check_last_duration_seconds",
			"The last check of the backend took so long; 0 before there was one.", "backend", "pool"),
		lag: c.gauge("limeload_backend_replication_lag_seconds",
			"A replica is so far behind its primary, as its last check has found. Only replicas whose checks know it have this.",
			"backend", "pool"),
	}
}

// put sends what the scheduler knows of the checks of one backend.
func (s *checkSeries) put(to sink, t *healthcheck.TargetStats, labels ...*dto.LabelPair) {
	var n uint64
	for _, of := range t.Checks {
		n += of
	}
	to <- &distribution{of: s.took, sums: &dto.Summary{SampleCount: &n, SampleSum: new(t.Took.Seconds())}, labels: labels}
	to.put(s.last, t.Last.Took.Seconds(), labels...)
	if t.Last.KnowsLag {
		to.put(s.lag, t.Last.Lag.Seconds(), labels...)
	}
}
