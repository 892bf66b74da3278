package main

import (
	"fmt"
	"strconv"
)

// A curveResult is one curve with what was measured.
type curveResult struct {
	Name  string       `json:"name"`
	Title string       `json:"title"`
	Axis  string       `json:"axis"`
	Unit  string       `json:"unit"`
	Lines []growthLine `json:"lines"`
}

// A growthLine is how the cost grows with one contender.
type growthLine struct {
	Contender string        `json:"contender"`
	Points    []growthPoint `json:"points"`
	Step      float64       `json:"largest_step,omitempty"` // the largest factor from one point to the next; 0 for none
	From      float64       `json:"step_from,omitempty"`
	To        float64       `json:"step_to,omitempty"`
	Cliff     bool          `json:"cliff"`
}

// A growthPoint is the cost at one point: CPU time in seconds.
type growthPoint struct {
	X    float64 `json:"x"`
	Cost float64 `json:"cpu_seconds"`
}

// grow returns the curves that have at least one point.
func grow(all []measurement) []curveResult {
	costs := costsOf(all)
	var out []curveResult
	for _, c := range curves() {
		r := curveResult{Name: c.name, Title: c.title, Axis: c.axis, Unit: c.unit}
		for _, name := range contenderNames() {
			if line := newGrowthLine(c, name, costs[name]); len(line.Points) > 0 {
				r.Lines = append(r.Lines, line)
			}
		}
		if len(r.Lines) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// costsOf returns the CPU time per unit in each round, by contender and scenario.
func costsOf(all []measurement) map[string]map[string][]roundValue {
	costs := map[string]map[string][]roundValue{}
	for _, m := range all {
		if m.Error != "" || m.CPUPerUnit <= 0 {
			continue
		}
		if costs[m.Contender] == nil {
			costs[m.Contender] = map[string][]roundValue{}
		}
		costs[m.Contender][m.Scenario] = append(costs[m.Contender][m.Scenario], roundValue{m.Round, m.CPUPerUnit})
	}
	return costs
}

// newGrowthLine returns a contender's line of a curve. Points are medians over the rounds, and steps are medians of the
// steps within a round, since a machine drifts. costs are by scenario.
func newGrowthLine(c curve, contender string, costs map[string][]roundValue) growthLine {
	line := growthLine{Contender: contender}
	var before curvePoint
	for _, p := range c.points {
		here := costs[p.scenario.name]
		values := make([]float64, 0, len(here))
		for _, v := range here {
			values = append(values, v.value)
		}
		cost, ok := median(values)
		if !ok {
			continue
		}
		line.Points = append(line.Points, growthPoint{p.x, cost / p.parts})
		step, ok := ratioToBest(here, [][]roundValue{costs[before.scenario.name]}, true)
		if step *= before.parts / p.parts; ok && step > line.Step {
			line.Step, line.From, line.To = step, before.x, p.x
		}
		before = p
	}
	line.Cliff = line.Step > cliff
	return line
}

// verdict says whether the line has a cliff, and where its largest step is.
func (l growthLine) verdict() string {
	if l.Step == 0 {
		return "one point"
	}
	text := "no cliff"
	if l.Cliff {
		text = "cliff"
	}
	return fmt.Sprintf("%s: %.2f from %s to %s", text, l.Step, formatCount(l.From), formatCount(l.To))
}

// formatCount writes a number of things, or of bytes that are a whole number of KiB or MiB.
func formatCount(v float64) string {
	n := int64(v)
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%dMi", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%dKi", n>>10)
	}
	return strconv.FormatInt(n, 10)
}

// sheet returns the table of the curve.
func (c curveResult) sheet() sheet {
	s := sheet{titles: []string{c.Axis}}
	var xs []float64
	for _, l := range c.Lines {
		s.titles = append(s.titles, contenderTitle(l.Contender))
		if len(l.Points) > len(xs) {
			xs = xs[:0]
			for _, p := range l.Points {
				xs = append(xs, p.X)
			}
		}
	}
	for _, x := range xs {
		cells := []string{formatCount(x)}
		for _, l := range c.Lines {
			cell := ""
			for _, p := range l.Points {
				if p.X == x {
					cell = formatCost(p.Cost)
				}
			}
			cells = append(cells, cell)
		}
		s.row(cells...)
	}
	cells := []string{"largest step"}
	for _, l := range c.Lines {
		cells = append(cells, l.verdict())
	}
	s.row(cells...)
	return s
}

// formatCost writes a CPU time that may be far below a microsecond.
func formatCost(seconds float64) string {
	if seconds > 0 && seconds < 1e-6 {
		return fmt.Sprintf("%.3gns", seconds*1e9)
	}
	return formatSeconds(seconds)
}

// featureSheet returns the table of what features cost. The factor, and what is more, are medians over the rounds of
// what they are in each.
func (r report) featureSheet() sheet {
	s := sheet{titles: []string{"work", "with", "without it", "with it", "more", "factor"}}
	of := map[string]summary{}
	for _, x := range r.Summary {
		if x.Contender == "limeload-l4" {
			of[x.Scenario] = x
		}
	}
	costs := costsOf(r.Rounds)["limeload-l4"]
	for _, f := range featureScenarios() {
		with, without := of[f.name], of[f.baseline]
		factor, ok := ratioToBest(costs[f.name], [][]roundValue{costs[f.baseline]}, true)
		if f.baseline == "" || !ok || with.Limits == nil {
			continue
		}
		more := formatSeconds(with.Limits.CPUMore)
		if with.Limits.CPUMore > 0 {
			more = "+" + more
		}
		s.row(without.Unit, r.Scenarios[f.name], formatSeconds(without.CPUPerUnit), formatSeconds(with.CPUPerUnit),
			more, formatTimes(factor))
	}
	return s
}
