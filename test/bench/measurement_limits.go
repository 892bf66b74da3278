package main

import (
	"fmt"
	"strings"
)

// limitFigures are about limits. Those that were not measured are 0.
type limitFigures struct {
	// of a flood, or of clients that are more than a rate allows: a second
	Offered float64 `json:"offered_per_second,omitempty"`
	Refused float64 `json:"refused_per_second,omitempty"` // connections only: a datagram's sender hears nothing

	// compared with the scenario's baseline in the same round
	RateRatio     float64 `json:"rate_to_baseline,omitempty"`
	P99Ratio      float64 `json:"p99_to_baseline,omitempty"`
	CPUPerRefusal float64 `json:"cpu_seconds_per_refusal,omitempty"`
	CPUMore       float64 `json:"cpu_seconds_more_per_unit,omitempty"`

	Allowed  float64 `json:"allowed_per_second,omitempty"`  // of clients that do not wait
	Exact    float64 `json:"of_allowed,omitempty"`          // what was admitted, or moved, as part of what is allowed
	Least    float64 `json:"least_of_allowed,omitempty"`    // of one session
	Most     float64 `json:"most_of_allowed,omitempty"`     // the same
	Burst    float64 `json:"burst_of_allowed,omitempty"`    // in the largest tenth of a second
	Switches float64 `json:"switches_per_second,omitempty"` // voluntary context switches of the balancer
}

// newLimitFigures returns nil for a scenario that is not about limits.
func newLimitFigures(s scenario, r loadResult, before, after view) *limitFigures {
	if s.table == tableWork || s.table == tableGrowth {
		return nil
	}
	f := &limitFigures{}
	if wall := after.at.Sub(before.at).Seconds(); wall > 0 && after.processes > 0 {
		f.Switches = float64(after.switches-before.switches) / wall
	}
	if o := r.Flood; o != nil && o.Elapsed > 0 {
		f.Offered = float64(o.Offered) / o.Elapsed.Seconds()
		f.Refused = float64(o.Refused) / o.Elapsed.Seconds()
		if s.table == tableRate {
			f.Exact = float64(r.Requests) / s.limits.admits(o.Elapsed.Seconds())
			if s.limits.Over != "delay" {
				f.Allowed = s.limits.admits(1)
			}
		}
	}
	if o := r.Stream; o != nil && o.Elapsed > 0 {
		f.streams(s, o)
	}
	return f
}

// admits returns how many the limit of a rate lets in within that many seconds, after a pause.
func (l limitation) admits(seconds float64) float64 {
	r := l.Rate
	if r.PerSecond == 0 {
		r = l.ClientRate
	}
	return float64(r.PerSecond)*seconds + float64(r.Burst)
}

// streams sets the figures of a bandwidth.
func (f *limitFigures) streams(s scenario, o *streamResult) {
	n := float64(s.job.Connections)
	each, all := float64(s.limits.SessionBandwidth), float64(s.limits.ClientBandwidth)
	burst := float64(o.Burst)
	if each > 0 {
		all = each * n
	} else {
		each, burst = all/n, float64(o.BurstOfAll)/n
	}
	seconds := o.Elapsed.Seconds()
	f.Exact = float64(o.Bytes) / (all * seconds)
	f.Least, f.Most = float64(o.Least)/(each*seconds), float64(o.Most)/(each*seconds)
	f.Burst = burst / (each / 10)
}

// compare sets the figures that need the scenario's baseline, which the earlier measurements have if it was chosen.
func (m *measurement) compare(s scenario, earlier []measurement) {
	if m.Limits == nil || m.Error != "" || s.baseline == "" {
		return
	}
	for _, base := range earlier {
		if base.Scenario != s.baseline || base.Round != m.Round || base.Contender != m.Contender || base.Error != "" {
			continue
		}
		if base.Rate > 0 {
			m.Limits.RateRatio = m.Rate / base.Rate
		}
		if base.P99 > 0 {
			m.Limits.P99Ratio = m.P99 / base.P99
		}
		if s.table == tableCost && m.CPUPerUnit > 0 {
			m.Limits.CPUMore = m.CPUPerUnit - base.CPUPerUnit
		}
		if refused := m.Limits.Refused * m.ElapsedSeconds; refused > 0 {
			m.Limits.CPUPerRefusal = (m.CPU - base.CPU) / refused
		}
	}
}

// short reports whether so few came that they say nothing about the limit of a rate.
func (f *limitFigures) short() bool { return f != nil && f.Offered < 1.2*f.Allowed }

// text returns what a line of progress says of them.
func (f *limitFigures) text() string {
	var b strings.Builder
	for _, c := range []struct {
		value  float64
		format string
	}{
		{f.Offered, "  offered %.0f/s"}, {f.Refused, "  refused %.0f/s"}, {100 * f.Exact, "  %.2f%% of allowed"},
		{100 * f.Burst, "  burst %.0f%%"}, {f.P99Ratio, "  p99 x %.2f"}, {f.RateRatio, "  rate x %.2f"},
		{1e6 * f.CPUPerRefusal, "  cpu %.1fus/refusal"}, {1e6 * f.CPUMore, "  cpu %+.2fus"},
		{f.Switches, "  %.0f switches/s"},
	} {
		if c.value != 0 {
			fmt.Fprintf(&b, c.format, c.value)
		}
	}
	return b.String()
}
