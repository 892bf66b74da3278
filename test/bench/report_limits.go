package main

import (
	"fmt"
	"strings"
)

// A column is one column of a table about limits.
type column struct {
	title string
	cell  func(s summary, f limitFigures) string
}

// limitTables has a title and the columns of each table about limits. The figures are those of the other tables.
func limitTables() map[table][]column {
	lost := column{"lost", func(s summary, _ limitFigures) string { return fmt.Sprintf("%.0f", s.Lost) }}
	rate := column{"rate/s", func(s summary, _ limitFigures) string { return formatRate(s.Rate, s.Unit) }}
	cpu := column{"CPU/unit", func(s summary, _ limitFigures) string { return formatSeconds(s.CPUPerUnit) }}
	unit := column{"unit", func(s summary, _ limitFigures) string { return s.Unit }}
	offered := column{"offered/s", func(_ summary, f limitFigures) string { return formatRate(f.Offered, "") }}
	refused := column{"refused/s", func(_ summary, f limitFigures) string { return formatRate(f.Refused, "") }}
	exact := column{"of allowed", func(_ summary, f limitFigures) string { return formatShare(f.Exact) }}
	return map[table][]column{
		tableFlood: {
			rate, {"x idle", func(_ summary, f limitFigures) string { return formatTimes(f.RateRatio) }},
			{"p50", func(s summary, _ limitFigures) string { return formatSeconds(s.P50) }},
			{"p99", func(s summary, _ limitFigures) string { return formatSeconds(s.P99) }},
			{"x idle", func(_ summary, f limitFigures) string { return formatTimes(f.P99Ratio) }}, lost, unit,
			offered, refused,
			{"CPU/refusal", func(_ summary, f limitFigures) string { return formatSeconds(f.CPUPerRefusal) }},
		},
		tableRate: {offered, rate, unit, exact},
		tableStreams: {
			rate, exact,
			{"least", func(_ summary, f limitFigures) string { return formatShare(f.Least) }},
			{"most", func(_ summary, f limitFigures) string { return formatShare(f.Most) }},
			{"in 100ms", func(_ summary, f limitFigures) string { return formatShare(f.Burst) }},
			{"CPU/GB", func(s summary, _ limitFigures) string { return formatSeconds(s.CPUPerUnit) }},
			{"switches/s", func(_ summary, f limitFigures) string { return formatRate(f.Switches, "") }},
		},
		tableCost: {
			rate, cpu, unit,
			{"more", func(_ summary, f limitFigures) string { return formatSeconds(f.CPUMore) }},
		},
	}
}

// limitTable writes a table of what was measured about limits.
func (r report) limitTable(b *strings.Builder, t table) {
	columns := limitTables()[t]
	titles := []string{"scenario", "contender"}
	for _, c := range columns {
		titles = append(titles, c.title)
	}
	tw := newTable(b, append(titles, "rounds")...)
	any := false
	for _, s := range r.Summary {
		if s.Limits == nil || s.Table != t {
			continue
		}
		any = true
		cells := []string{s.Scenario, s.Contender}
		for _, c := range columns {
			cells = append(cells, c.cell(s, *s.Limits))
		}
		row(tw, append(cells, s.outcome())...)
	}
	if any {
		tw.Flush() // into memory
		fmt.Fprintln(b)
	}
}

// formatShare writes a part of what a limit allows, or "-" for none.
func formatShare(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", 100*v)
}

// formatTimes writes a ratio, or "-" for none.
func formatTimes(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}
