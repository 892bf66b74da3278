package main

import "slices"

// A summary has the results of one contender in one scenario over all rounds: medians, and medians of the ratios to the
// best rival of the same round. Figures that were not measured are nil or 0.
type summary struct {
	Scenario  string `json:"scenario"`
	Contender string `json:"contender"`
	Unit      string `json:"unit"`
	Rounds    int    `json:"rounds"` // that succeeded
	Failed    int    `json:"failed"`

	Lost       float64 `json:"lost,omitempty"` // requests by UDP that were not answered, in all rounds
	Rate       float64 `json:"units_per_second"`
	P50        float64 `json:"p50_seconds"`
	P99        float64 `json:"p99_seconds"`
	CPUPerUnit float64 `json:"cpu_seconds_per_unit"`

	TLS        []string `json:"tls,omitempty"`                   // what connections negotiated, in all rounds
	Handshakes float64  `json:"handshakes_per_second,omitempty"` // of a flood meanwhile

	RateRatio *float64 `json:"rate_ratio,omitempty"` // higher is better; in all others lower is
	P99Ratio  *float64 `json:"p99_ratio,omitempty"`
	CPURatio  *float64 `json:"cpu_ratio,omitempty"`

	Idle *idleSummary `json:"idle,omitempty"`

	Table  table         `json:"table,omitempty"`
	Limits *limitFigures `json:"limits,omitempty"` // medians
}

// An idleSummary has the further figures of sessions at rest.
type idleSummary struct {
	Memory      float64  `json:"memory_per_session_bytes"`
	MemoryAfter float64  `json:"memory_after_bytes"`
	MemoryRatio *float64 `json:"memory_ratio,omitempty"`
	Descriptors float64  `json:"descriptors_per_session"`
	CPUShare    float64  `json:"cpu_share"`
}

// A figure is one number of a measurement, and whether the measurement has it.
type figure func(measurement) (float64, bool)

func rateOf(m measurement) (float64, bool) { return m.Rate, m.Rate > 0 }
func p50Of(m measurement) (float64, bool)  { return m.P50, m.P50 > 0 }
func p99Of(m measurement) (float64, bool)  { return m.P99, m.P99 > 0 }
func cpuOf(m measurement) (float64, bool)  { return m.CPUPerUnit, m.CPUPerUnit > 0 }

func handshakesOf(m measurement) (float64, bool) { return m.Handshakes, m.Handshakes > 0 }

// idleFigure makes a figure of one that only sessions at rest have.
func idleFigure(f func(*idleFigures) float64) figure {
	return func(m measurement) (float64, bool) {
		if m.Idle == nil {
			return 0, false
		}
		return f(m.Idle), true
	}
}

// summarize returns the summaries of all measurements, by scenario and contender.
func summarize(ss []scenario, cs []contender, all []measurement) []summary {
	var out []summary
	for _, s := range ss {
		done := map[string][]measurement{} // by contender
		failed := map[string]int{}
		for _, m := range all {
			switch {
			case m.Scenario != s.name:
			case m.Error != "":
				failed[m.Contender]++
			default:
				done[m.Contender] = append(done[m.Contender], m)
			}
		}
		var rivals [][]measurement
		for _, c := range cs {
			if c.rival {
				rivals = append(rivals, done[c.name])
			}
		}
		for _, c := range cs {
			ms := done[c.name]
			if len(ms)+failed[c.name] == 0 {
				continue
			}
			sum := newSummary(ms, rivals)
			sum.Scenario, sum.Contender, sum.Unit = s.name, c.name, s.unit
			sum.Table = s.table
			sum.Failed = failed[c.name]
			out = append(out, sum)
		}
	}
	return out
}

// newSummary sums up the measurements of one contender in one scenario.
func newSummary(ms []measurement, rivals [][]measurement) summary {
	var lost float64
	for _, m := range ms {
		lost += m.Lost
	}
	s := summary{
		Lost:       lost,
		Rounds:     len(ms),
		Rate:       medianOf(ms, rateOf),
		P50:        medianOf(ms, p50Of),
		P99:        medianOf(ms, p99Of),
		CPUPerUnit: medianOf(ms, cpuOf),
		RateRatio:  ratioOf(ms, rivals, rateOf, false),
		P99Ratio:   ratioOf(ms, rivals, p99Of, true),
		CPURatio:   ratioOf(ms, rivals, cpuOf, true),
		Handshakes: medianOf(ms, handshakesOf),
	}
	for _, m := range ms {
		if m.TLS != "" && !slices.Contains(s.TLS, m.TLS) {
			s.TLS = append(s.TLS, m.TLS)
		}
	}
	if len(ms) > 0 && ms[0].Limits != nil {
		s.Limits = medianLimits(ms)
	}
	if len(ms) > 0 && ms[0].Idle != nil {
		memory := idleFigure(func(i *idleFigures) float64 { return i.MemoryPerSession })
		s.Idle = &idleSummary{
			Memory:      medianOf(ms, memory),
			MemoryRatio: ratioOf(ms, rivals, memory, true),
			MemoryAfter: medianOf(ms, idleFigure(func(i *idleFigures) float64 { return float64(i.MemoryAfter) })),
			Descriptors: medianOf(ms, idleFigure(func(i *idleFigures) float64 { return i.DescriptorsPerSession })),
			CPUShare:    medianOf(ms, idleFigure(func(i *idleFigures) float64 { return i.CPUShare })),
		}
	}
	return s
}

// medianLimits returns the medians of the figures about limits.
func medianLimits(ms []measurement) *limitFigures {
	of := func(f func(*limitFigures) float64) float64 {
		return medianOf(ms, func(m measurement) (float64, bool) {
			if m.Limits == nil {
				return 0, false
			}
			return f(m.Limits), true
		})
	}
	return &limitFigures{
		Offered:       of(func(f *limitFigures) float64 { return f.Offered }),
		Refused:       of(func(f *limitFigures) float64 { return f.Refused }),
		RateRatio:     of(func(f *limitFigures) float64 { return f.RateRatio }),
		P99Ratio:      of(func(f *limitFigures) float64 { return f.P99Ratio }),
		CPUPerRefusal: of(func(f *limitFigures) float64 { return f.CPUPerRefusal }),
		CPUMore:       of(func(f *limitFigures) float64 { return f.CPUMore }),
		Allowed:       of(func(f *limitFigures) float64 { return f.Allowed }),
		Exact:         of(func(f *limitFigures) float64 { return f.Exact }),
		Least:         of(func(f *limitFigures) float64 { return f.Least }),
		Most:          of(func(f *limitFigures) float64 { return f.Most }),
		Burst:         of(func(f *limitFigures) float64 { return f.Burst }),
		Switches:      of(func(f *limitFigures) float64 { return f.Switches }),
	}
}

// medianOf returns 0 for a figure that no measurement has.
func medianOf(ms []measurement, f figure) float64 {
	var values []float64
	for _, v := range roundValues(ms, f) {
		values = append(values, v.value)
	}
	m, _ := median(values)
	return m
}

// ratioOf returns nil where there is nothing to compare.
func ratioOf(ms []measurement, rivals [][]measurement, f figure, lowerIsBetter bool) *float64 {
	var theirs [][]roundValue
	for _, r := range rivals {
		theirs = append(theirs, roundValues(r, f))
	}
	ratio, ok := ratioToBest(roundValues(ms, f), theirs, lowerIsBetter)
	if !ok {
		return nil
	}
	return &ratio
}

func roundValues(ms []measurement, f figure) []roundValue {
	var out []roundValue
	for _, m := range ms {
		if v, ok := f(m); ok {
			out = append(out, roundValue{m.Round, v})
		}
	}
	return out
}
