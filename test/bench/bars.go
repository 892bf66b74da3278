package main

import (
	"slices"
	"strings"
)

// A bar is what limeload-l4 may cost in one scenario, beside the better of its rivals.
type bar struct {
	work     string
	scenario string
	figure   barFigure
	atMost   float64  // median over the rounds of the ratio to a rival in the same round, for each rival
	absolute float64  // and its own figure; 0 for no such bar
	rivals   []string // by contender
	kernel   bool     // the bar is for sessions whose TLS the kernel does
}

// A barFigure is the figure of a measurement that a bar is about.
type barFigure string

const (
	figureCPU    barFigure = "CPU time"
	figureP99    barFigure = "p99"
	figureP999   barFigure = "p99.9"
	figureMemory barFigure = "memory"
)

// of returns the figure of a measurement.
func (f barFigure) of(m measurement) (float64, bool) {
	switch f {
	case figureP99:
		return p99Of(m)
	case figureP999:
		return m.P999, m.P999 > 0
	case figureMemory:
		return idleFigure(func(i *idleFigures) float64 { return i.MemoryPerSession })(m)
	}
	return cpuOf(m)
}

// format writes a value of the figure.
func (f barFigure) format(v float64) string {
	if f == figureMemory {
		return formatBytes(v)
	}
	return formatSeconds(v)
}

// bars are what limeload-l4 is held against, in the order of the table.
func bars() []bar {
	var all []bar
	add := func(b bar, rivals ...string) {
		b.rivals = rivals
		if b.figure == "" {
			b.figure = figureCPU
		}
		all = append(all, b)
	}
	tcp := func(work, scenario string, atMost float64) {
		add(bar{work: work, scenario: scenario, atMost: atMost}, "haproxy", "nginx")
	}
	tcp("request-response, 64 connections, 64 B", "request64", 0.97)
	tcp("request-response, 64 connections, 4 KiB", "request64-4k", 0.97)
	tcp("Redis GET", "redis-get", 0.97)
	tcp("Redis SET", "redis-set", 0.97)
	tcp("Redis GET, 16 in a pipeline", "redis-get-p16", 0.97)
	tcp("Redis SET, 16 in a pipeline", "redis-set-p16", 0.97)
	tcp("pgbench, select only", "pgbench-select", 0.97)
	tcp("connect, one request, close", "connect", 0.82)
	tcp("bulk, 1 stream in", "bulk1-in", 0.75)
	tcp("bulk, 1 stream out", "bulk1-out", 0.75)
	tcp("bulk, 8 streams in", "bulk8-in", 0.75)
	tcp("bulk, 8 streams out", "bulk8-out", 0.75)
	add(bar{work: "latency at half of the lowest peak", scenario: "half-peak", figure: figureP99, atMost: 1},
		"haproxy", "nginx")
	add(bar{work: "an idle session's memory", scenario: "idle", figure: figureMemory, atMost: 0.20, absolute: 512},
		"haproxy", "nginx")
	tcp("TLS, full handshake (P-256)", "tls-handshake-ecdsa", 1)
	tcp("TLS, resumed handshake", "tls-resume-ecdsa", 1)
	for _, b := range []struct{ work, scenario string }{
		{"TLS, bulk, 1 stream in", "tls-bulk1-in"}, {"TLS, bulk, 1 stream out", "tls-bulk1-out"},
		{"TLS, bulk, 4 streams in", "tls-bulk4-in"}, {"TLS, bulk, 4 streams out", "tls-bulk4-out"},
	} {
		add(bar{work: b.work, scenario: b.scenario, atMost: 0.80, kernel: true}, "haproxy", "nginx")
	}
	add(bar{work: "TLS, request-response", scenario: "tls-request64", atMost: 0.90, kernel: true}, "haproxy", "nginx")
	add(bar{work: "TLS, an idle session's memory", scenario: "tls-idle", figure: figureMemory, atMost: 0.30},
		"haproxy", "nginx")
	add(bar{work: "DNS, relayed, as fast as possible", scenario: "dns-single", atMost: 0.75}, "nginx", "dnsdist")
	add(bar{work: "DNS, relayed, at a fixed rate", scenario: "dns-paced", atMost: 0.95}, "nginx", "dnsdist")
	add(bar{work: "DNS, from the cache", scenario: "dns-cached", atMost: 0.85}, "dnsdist")
	add(bar{work: "QUIC, bulk in", scenario: "trains-in", atMost: 0.55}, "nginx")
	add(bar{work: "QUIC, bulk out", scenario: "trains-out", atMost: 0.55}, "nginx")
	tcp("a refused connect", "refused", 0.80)
	add(bar{work: "a request during a reload", scenario: "reload", figure: figureP999, atMost: 0.50},
		"haproxy", "nginx")
	return all
}

// A barResult is one bar with what was measured.
type barResult struct {
	Work     string             `json:"work"`
	Scenario string             `json:"scenario"`
	Figure   barFigure          `json:"figure"`
	Unit     string             `json:"unit"`
	AtMost   float64            `json:"at_most"`
	Absolute float64            `json:"absolute_at_most,omitempty"`
	Rivals   []string           `json:"rivals"`
	Values   map[string]float64 `json:"values"`           // medians, by contender
	Better   string             `json:"better,omitempty"` // the rival that the ratio is to
	Rounds   int                `json:"rounds"`           // that have a ratio
	Ratio    *float64           `json:"ratio,omitempty"`
	Least    float64            `json:"least_ratio,omitempty"` // of the rounds
	Most     float64            `json:"most_ratio,omitempty"`
	Met      bool               `json:"met"`
	Missing  []string           `json:"missing,omitempty"` // rivals that were not measured

	// Without says that the bar is for a kernel that has TLS, and that this one has none.
	Without bool `json:"without_kernel_tls,omitempty"`
}

// judge holds the measurements against the bars. A bar whose scenario nobody has done is left out.
func judge(summaries []summary, all []measurement, m machine) []barResult {
	var out []barResult
	for _, b := range bars() {
		byContender := map[string][]measurement{}
		for _, x := range all {
			if x.Scenario == b.scenario && x.Error == "" {
				byContender[x.Contender] = append(byContender[x.Contender], x)
			}
		}
		ours := byContender["limeload-l4"]
		if len(ours) == 0 {
			continue
		}
		r := barResult{Work: b.work, Scenario: b.scenario, Figure: b.figure, AtMost: b.atMost, Absolute: b.absolute,
			Rivals: b.rivals, Values: map[string]float64{}, Without: b.kernel && !m.kernelTLS()}
		i := slices.IndexFunc(summaries, func(s summary) bool { return s.Scenario == b.scenario })
		if i >= 0 {
			r.Unit = summaries[i].Unit
		}
		for name, ms := range byContender {
			if v := medianOf(ms, b.figure.of); v > 0 {
				r.Values[name] = v
			}
		}
		for _, name := range b.rivals {
			theirs := roundValues(byContender[name], b.figure.of)
			if len(theirs) == 0 {
				r.Missing = append(r.Missing, name)
				continue
			}
			ratios := ratiosToBest(roundValues(ours, b.figure.of), [][]roundValue{theirs}, true)
			if ratio, ok := median(ratios); ok && (r.Ratio == nil || ratio > *r.Ratio) {
				r.Better, r.Ratio = name, &ratio
				r.Rounds, r.Least, r.Most = len(ratios), slices.Min(ratios), slices.Max(ratios)
			}
		}
		r.Met = r.Ratio != nil && *r.Ratio <= b.atMost && (b.absolute == 0 || r.Values["limeload-l4"] <= b.absolute)
		out = append(out, r)
	}
	return out
}

// verdict says whether the bar is met.
func (r barResult) verdict() string {
	text := "missed"
	switch {
	case r.Ratio == nil:
		return "no rival"
	case r.Met:
		text = "met"
	}
	if r.Without {
		text += ", without kernel TLS"
	}
	for _, name := range r.Missing {
		text += ", without " + contenderTitle(name)
	}
	return text
}

// title says which figure of which unit of work the result is about.
func (r barResult) title() string {
	if r.Figure == figureCPU {
		return string(r.Figure) + " per " + r.Unit
	}
	return string(r.Figure)
}

// value is a contender's median, as text; "" if it has none.
func (r barResult) value(contender string) string {
	if v, ok := r.Values[contender]; ok {
		return r.Figure.format(v)
	}
	return ""
}

// valueSheet returns a table of what everybody needs, without the bars.
func valueSheet(bs []barResult) sheet {
	s := sheet{titles: []string{"work", "figure", "limeload-l4", "HAProxy", "nginx", "dnsdist", "ratio"}}
	for _, r := range bs {
		s.row(r.Work, r.title(), r.value("limeload-l4"), r.value("haproxy"), r.value("nginx"), r.value("dnsdist"),
			formatRatio(r.Ratio))
	}
	return s
}

// barSheet returns the table of bars.
func barSheet(bs []barResult) sheet {
	s := sheet{titles: []string{"work", "scenario", "figure", "limeload-l4", "HAProxy", "nginx", "dnsdist", "ratio",
		"in rounds", "bar", ""}}
	for _, r := range bs {
		limit := formatTimes(r.AtMost)
		if r.Absolute > 0 {
			limit += " and " + r.Figure.format(r.Absolute)
		}
		spread := ""
		if r.Ratio != nil {
			spread = formatTimes(r.Least) + " to " + formatTimes(r.Most)
		}
		s.row(r.Work, r.Scenario, r.title(), r.value("limeload-l4"), r.value("haproxy"), r.value("nginx"),
			r.value("dnsdist"), formatRatio(r.Ratio), spread, limit, r.verdict())
	}
	return s
}

// kernelTLS reports whether the kernel of the machine had TLS when the bench ran.
func (m machine) kernelTLS() bool { return slices.Contains(strings.Fields(m.ULP), "tls") }
