package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/limeload/limeload-l4/l4"
)

// A series is one metric: its name, its help text and the names of its labels. It is read-only.
type series struct {
	name, help string
	kind       dto.MetricType
	labels     []string // in alphabetical order
	desc       *prometheus.Desc
}

// A catalog is the list of all series.
type catalog []*series

// counter declares a number that only grows while its subject exists.
func (c *catalog) counter(name, help string, labels ...string) *series {
	return c.declare(dto.MetricType_COUNTER, name, help, labels)
}

// gauge declares a number that may fall.
func (c *catalog) gauge(name, help string, labels ...string) *series {
	return c.declare(dto.MetricType_GAUGE, name, help, labels)
}

// histogram declares a distribution of durations.
func (c *catalog) histogram(name, help string, labels ...string) *series {
	return c.declare(dto.MetricType_HISTOGRAM, name, help, labels)
}

// summary declares a distribution of durations of which only the sum and the number are known.
func (c *catalog) summary(name, help string, labels ...string) *series {
	return c.declare(dto.MetricType_SUMMARY, name, help, labels)
}

func (c *catalog) declare(kind dto.MetricType, name, help string, labels []string) *series {
	if !slices.IsSorted(labels) {
		panic("the labels of " + name + " are not in alphabetical order")
	}
	s := &series{name: name, help: help, kind: kind, labels: labels, desc: prometheus.NewDesc(name, help, labels, nil)}
	*c = append(*c, s)
	return s
}

// label returns a label with its value. All numbers that have it may share it. The value is a name of the
// configuration, a backend's name or a word of a closed set, and never a client's address.
func label(name, value string) *dto.LabelPair {
	value = strings.ToValidUTF8(value, "\uFFFD") // invalid UTF-8 would fail the whole scrape
	return &dto.LabelPair{Name: &name, Value: &value}
}

// labelsOf returns a label for each value of a closed set, from its zero value to its last one.
func labelsOf[T interface {
	~uint8
	fmt.Stringer
}](name string, last T) []*dto.LabelPair {
	var all []*dto.LabelPair
	for v := T(0); v <= last; v++ {
		all = append(all, label(name, v.String()))
	}
	return all
}

// labelsFor returns a label for each word.
func labelsFor(name string, words ...string) []*dto.LabelPair {
	all := make([]*dto.LabelPair, len(words))
	for i, w := range words {
		all[i] = label(name, w)
	}
	return all
}

// A sink receives the numbers of one scrape.
type sink chan<- prometheus.Metric

// put sends a number of a series. labels has all labels of the series, in alphabetical order.
func (to sink) put(s *series, value float64, labels ...*dto.LabelPair) {
	to <- &number{of: s, value: value, labels: labels}
}

// claim sends 1 if something is so, and else 0.
func (to sink) claim(s *series, is bool, labels ...*dto.LabelPair) {
	var value float64
	if is {
		value = 1
	}
	to.put(s, value, labels...)
}

// A number is one value of a series. client_golang's constant metrics would do too, but their copies of the labels took
// half of the time of a scrape of 240,000 numbers.
type number struct {
	of     *series
	value  float64
	labels []*dto.LabelPair
}

// Desc returns the description of the series.
func (n *number) Desc() *prometheus.Desc { return n.of.desc }

// Write writes the number as it is sent.
func (n *number) Write(m *dto.Metric) error {
	m.Label = n.labels
	if n.of.kind == dto.MetricType_COUNTER {
		m.Counter = &dto.Counter{Value: &n.value}
	} else {
		m.Gauge = &dto.Gauge{Value: &n.value}
	}
	return nil
}

// A distribution is one histogram of a series, or one summary.
type distribution struct {
	of     *series
	form   *dto.Histogram
	sums   *dto.Summary
	labels []*dto.LabelPair
}

// Desc returns the description of the series.
func (h *distribution) Desc() *prometheus.Desc { return h.of.desc }

// Write writes the distribution as it is sent.
func (h *distribution) Write(m *dto.Metric) error {
	m.Label, m.Histogram, m.Summary = h.labels, h.form, h.sums
	return nil
}

// A scale holds the upper bounds of a histogram's classic buckets, in seconds and ascending. All are bounds of
// l4.HistogramBound.
type scale struct {
	step   int // see l4.Histogram.Classic
	bounds []float64
}

// newScale returns the bounds from least to most seconds, each of them 2^(step/4) times the previous one.
func newScale(step int, least, most float64) scale {
	s := scale{step: step}
	for i := 0; l4.HistogramBound(i) <= most; i += step {
		if bound := l4.HistogramBound(i); bound >= least {
			s.bounds = append(s.bounds, bound)
		}
	}
	return s
}

// times sends a histogram of the data plane in both forms: classic with the few buckets of the scale, and native with
// all buckets. The text format has the first, the binary format both, and Prometheus keeps the one it is configured
// for.
func (to sink) times(s *series, h l4.Histogram, classic scale, labels ...*dto.LabelPair) {
	to <- &distribution{of: s, form: histogramOf(s, h, classic, labels), labels: labels}
}

// histogramOf returns a histogram in both forms; labels has all labels of the series.
func histogramOf(s *series, h l4.Histogram, classic scale, labels []*dto.LabelPair) *dto.Histogram {
	values := make([]string, len(labels))
	for i, l := range labels {
		values[i] = l.GetValue()
	}
	buckets, zero, threshold := h.Native()
	native, err := prometheus.NewConstNativeHistogram(
		s.desc, h.Count, h.Sum, buckets, nil, zero, l4.HistogramSchema, threshold, time.Time{}, values...)
	if err != nil {
		panic("a histogram's count is not the sum of its buckets: " + err.Error())
	}
	var m dto.Metric
	if err := native.Write(&m); err != nil {
		panic("a histogram cannot be written: " + err.Error())
	}
	form := m.Histogram
	form.CreatedTimestamp = nil // unknown: the listener may be younger than the process
	counts := h.Classic(classic.step)
	for _, bound := range classic.bounds {
		form.Bucket = append(form.Bucket, &dto.Bucket{UpperBound: new(bound), CumulativeCount: new(counts[bound])})
	}
	return form
}
