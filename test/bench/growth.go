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
func grow(summaries []summary) []curveResult {
	cost := map[string]map[string]float64{} // by contender and scenario
	var names []string
	for _, s := range summaries {
		if s.CPUPerUnit == 0 {
			continue
		}
		if cost[s.Contender] == nil {
			cost[s.Contender] = map[string]float64{}
		}
		cost[s.Contender][s.Scenario] = s.CPUPerUnit
	}
	for _, name := range contenderNames() {
		if cost[name] != nil {
			names = append(names, name)
		}
	}
	var out []curveResult
	for _, c := range curves() {
		r := curveResult{Name: c.name, Title: c.title, Axis: c.axis, Unit: c.unit}
		for _, name := range names {
			line := growthLine{Contender: name}
			for _, p := range c.points {
				if v := cost[name][p.scenario.name]; v > 0 {
					line.Points = append(line.Points, growthPoint{p.x, v / p.parts})
				}
			}
			if len(line.Points) > 0 {
				line.judge()
				r.Lines = append(r.Lines, line)
			}
		}
		if len(r.Lines) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// judge finds the largest step of the line.
func (l *growthLine) judge() {
	for i := 1; i < len(l.Points); i++ {
		before, here := l.Points[i-1], l.Points[i]
		if step := here.Cost / before.Cost; step > l.Step {
			l.Step, l.From, l.To = step, before.X, here.X
		}
	}
	l.Cliff = l.Step > cliff
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

// featureSheet returns the table of what features cost.
func featureSheet(summaries []summary, scenarios map[string]string) sheet {
	s := sheet{titles: []string{"work", "with", "without it", "with it", "more", "factor"}}
	cost := map[string]summary{}
	for _, x := range summaries {
		if x.Contender == "limeload-l4" {
			cost[x.Scenario] = x
		}
	}
	for _, f := range featureScenarios() {
		with, without := cost[f.name], cost[f.baseline]
		if f.baseline == "" || with.CPUPerUnit == 0 || without.CPUPerUnit == 0 {
			continue
		}
		more := formatSeconds(with.CPUPerUnit - without.CPUPerUnit)
		if with.CPUPerUnit > without.CPUPerUnit {
			more = "+" + more
		}
		s.row(without.Unit, scenarios[f.name], formatSeconds(without.CPUPerUnit), formatSeconds(with.CPUPerUnit),
			more, formatTimes(with.CPUPerUnit/without.CPUPerUnit))
	}
	return s
}
