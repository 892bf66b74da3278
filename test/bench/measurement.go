package main

import (
	"fmt"
	"strings"
)

// A measurement has the figures of one contender in one scenario and round. Times are in seconds. With an Error the
// figures are meaningless.
type measurement struct {
	Round     int    `json:"round"`
	Scenario  string `json:"scenario"`
	Contender string `json:"contender"`
	Error     string `json:"error,omitempty"`

	Units          float64 `json:"units"`          // requests, connections, GB or sessions, as the scenario says
	Lost           float64 `json:"lost,omitempty"` // requests by UDP that were not answered
	ElapsedSeconds float64 `json:"elapsed_seconds"`
	Rate           float64 `json:"units_per_second"`
	P50            float64 `json:"p50_seconds"`
	P99            float64 `json:"p99_seconds"`
	P999           float64 `json:"p999_seconds,omitempty"` // of our own load generator without TLS
	Max            float64 `json:"max_seconds"`

	CPU        float64 `json:"cpu_seconds"` // of the balancer, by its CPU clocks
	CPUPerUnit float64 `json:"cpu_seconds_per_unit"`
	CPUByStat  float64 `json:"cpu_seconds_by_stat"` // the same by /proc/PID/stat, in ticks
	CPUDoubt   bool    `json:"cpu_doubtful,omitempty"`
	ClientCPU  float64 `json:"client_cpu_seconds"`
	BackendCPU float64 `json:"backend_cpu_seconds"`
	OtherCPU   float64 `json:"other_cpu_seconds"` // of anything else on the machine, in ticks

	TLS        string  `json:"tls,omitempty"`                   // what the connections negotiated
	Handshakes float64 `json:"handshakes_per_second,omitempty"` // of a flood meanwhile

	Reload float64 `json:"reload_seconds,omitempty"` // how long it took until the new configuration served

	Idle   *idleFigures  `json:"idle,omitempty"`
	Limits *limitFigures `json:"limits,omitempty"`
}

// idleFigures are about sessions at rest.
type idleFigures struct {
	Sessions              int     `json:"sessions"`
	MemoryBefore          int64   `json:"memory_before_bytes"` // RssAnon of the balancer after a few sessions
	MemoryAfter           int64   `json:"memory_after_bytes"`  // and with all of them
	MemoryPerSession      float64 `json:"memory_per_session_bytes"`
	DescriptorsBefore     int     `json:"descriptors_before"`
	DescriptorsAfter      int     `json:"descriptors_after"`
	DescriptorsPerSession float64 `json:"descriptors_per_session"`
	CPUShare              float64 `json:"cpu_share"` // of one CPU, while nothing happens
}

func newMeasurement(s scenario, r loadResult, before, after view) measurement {
	cpu := after.balancer.since(before.balancer)
	m := measurement{
		Units:          s.units(r),
		Lost:           float64(r.Lost),
		ElapsedSeconds: r.Elapsed.Seconds(),
		CPU:            cpu.clock.Seconds(),
		CPUByStat:      cpu.stat.Seconds(),
		CPUDoubt:       cpu.disagrees(after.processes),
		ClientCPU:      after.client.since(before.client).clock.Seconds(),
		BackendCPU:     after.backend.since(before.backend).clock.Seconds(),
		TLS:            r.TLS,
		Handshakes:     r.Handshakes,
		Reload:         r.Reload.Seconds(),
	}
	m.OtherCPU = (after.machine - before.machine).Seconds() - m.CPU - m.ClientCPU - m.BackendCPU
	if s.hasLatency() {
		m.P50, m.P99, m.P999, m.Max = r.P50.Seconds(), r.P99.Seconds(), r.P999.Seconds(), r.Max.Seconds()
	}
	if m.Units > 0 && m.ElapsedSeconds > 0 {
		m.Rate = m.Units / m.ElapsedSeconds
		m.CPUPerUnit = m.CPU / m.Units
	}
	if m.Handshakes > 0 || r.Flood != nil && s.unit != unitRefusal {
		m.CPUPerUnit = 0 // most of the CPU time is the flood's
	}
	if wall := after.at.Sub(before.at).Seconds(); r.Stream != nil && m.Rate > 0 {
		m.CPUPerUnit = m.CPU / wall / m.Rate // the work goes on all the time
	}
	m.Limits = newLimitFigures(s, r, before, after)
	return m
}

func newIdleFigures(sessions int, before, settled, rested view) *idleFigures {
	n := float64(sessions)
	return &idleFigures{
		Sessions:              sessions,
		MemoryBefore:          before.holds.memory,
		MemoryAfter:           rested.holds.memory,
		MemoryPerSession:      float64(rested.holds.memory-before.holds.memory) / n,
		DescriptorsBefore:     before.holds.descriptors,
		DescriptorsAfter:      rested.holds.descriptors,
		DescriptorsPerSession: float64(rested.holds.descriptors-before.holds.descriptors) / n,
		CPUShare:              rested.balancer.since(settled.balancer).clock.Seconds() / rested.at.Sub(settled.at).Seconds(),
	}
}

// disturbed reports whether something else used more than a twentieth of one CPU meanwhile, apart from rounding: then
// the figures are too high.
func (m measurement) disturbed() bool {
	return m.Error == "" && m.OtherCPU > m.ElapsedSeconds/20+5*clockTick.Seconds()
}

// line returns a one-line summary, which is printed while the bench runs.
func (m measurement) line(s scenario) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s  %-11s", scenarioWidth, m.Scenario, m.Contender)
	if m.Error != "" {
		fmt.Fprintf(&b, "  failed: %s", m.Error)
		return b.String()
	}
	fmt.Fprintf(&b, "  %s/s", formatRate(m.Rate, s.unit))
	if s.hasLatency() {
		fmt.Fprintf(&b, "  p50 %s  p99 %s", formatSeconds(m.P50), formatSeconds(m.P99))
	}
	if m.Lost > 0 {
		fmt.Fprintf(&b, "  %.0f lost", m.Lost)
	}
	if m.CPUPerUnit > 0 {
		fmt.Fprintf(&b, "  cpu %s/%s", formatSeconds(m.CPUPerUnit), s.unit)
	}
	if i := m.Idle; i != nil {
		fmt.Fprintf(&b, "  %s and %.2f descriptors per session", formatBytes(i.MemoryPerSession),
			i.DescriptorsPerSession)
	}
	if m.Limits != nil {
		b.WriteString(m.Limits.text())
	}
	if m.Reload > 0 {
		fmt.Fprintf(&b, "  p99.9 %s  max %s  reloaded within %s", formatSeconds(m.P999), formatSeconds(m.Max),
			formatSeconds(m.Reload))
	}
	if m.Handshakes > 0 {
		fmt.Fprintf(&b, "  beside %.0f handshakes/s", m.Handshakes)
	}
	return b.String()
}

// formatSeconds writes a time with three significant digits and its unit, or "-"
// for one that was not measured.
func formatSeconds(s float64) string {
	switch {
	case s == 0:
		return "-"
	case s < 0:
		return "-" + formatSeconds(-s)
	case s < 1e-3:
		return fmt.Sprintf("%.3gus", s*1e6)
	case s < 1:
		return fmt.Sprintf("%.3gms", s*1e3)
	}
	return fmt.Sprintf("%.3gs", s)
}

// formatRate writes units per second, or "-" for none.
func formatRate(r float64, unit string) string {
	switch {
	case r == 0:
		return "-"
	case unit == "GB":
		return fmt.Sprintf("%.2f GB", r)
	}
	return fmt.Sprintf("%.0f", r)
}

func formatBytes(b float64) string {
	switch {
	case b < 1<<10 && b > -(1<<10):
		return fmt.Sprintf("%.0f B", b)
	case b < 1<<20:
		return fmt.Sprintf("%.1f KiB", b/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", b/(1<<20))
}

// formatRatio writes a ratio, or "-" when there is none.
func formatRatio(r *float64) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *r)
}
