package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// round returns a measurement whose CPU time per unit is that.
func cpuRound(round int, scenario, contender string, cpu float64) measurement {
	return measurement{Round: round, Scenario: scenario, Contender: contender, Rate: 1, CPUPerUnit: cpu, P99: cpu,
		P999: 2 * cpu}
}

// Each bar is about a scenario that exists, that everybody in it does, and that has its figure.
func TestBarsAreWhole(t *testing.T) {
	byName := map[string]scenario{}
	for _, s := range scenarios() {
		byName[s.name] = s
	}
	for _, b := range bars() {
		s, ok := byName[b.scenario]
		if !ok {
			t.Errorf("%s: no scenario %q", b.work, b.scenario)
			continue
		}
		for _, c := range contenders() {
			for _, rival := range append([]string{"limeload-l4"}, b.rivals...) {
				if c.name == rival && !c.does(s) {
					t.Errorf("%s: %s does not take part in %s", b.work, rival, s.name)
				}
			}
		}
		if memory := b.figure == figureMemory; memory != (s.job.Pattern == patternIdle) {
			t.Errorf("%s: figure %s of %s", b.work, b.figure, s.name)
		}
		if (b.figure == figureP999) != s.reload || (b.figure == figureP99) != (s.half != "") {
			t.Errorf("%s: figure %s of %s", b.work, b.figure, s.name)
		}
		if b.kernel && !s.traffic.tls() || b.atMost <= 0 || b.atMost > 1 {
			t.Errorf("%+v", b)
		}
	}
	ss, err := selectScenarios("bars")
	if err != nil || len(ss) != len(bars()) { // request64, which half-peak needs, has a bar of its own
		t.Errorf("-only bars selects %d scenarios, %v, want %d", len(ss), err, len(bars()))
	}
}

func TestJudge(t *testing.T) {
	all := []measurement{
		cpuRound(1, "connect", "limeload-l4", 8), cpuRound(1, "connect", "haproxy", 10),
		cpuRound(1, "connect", "nginx", 16),
		cpuRound(2, "connect", "limeload-l4", 9), cpuRound(2, "connect", "haproxy", 20),
		cpuRound(2, "connect", "nginx", 10),
		cpuRound(3, "connect", "limeload-l4", 8), cpuRound(3, "connect", "haproxy", 10), // nginx has failed
		cpuRound(1, "tls-request64", "limeload-l4", 95), cpuRound(1, "tls-request64", "nginx", 100),
		cpuRound(1, "dns-cached", "limeload-l4", 8),
		// nginx has no bar in this one, and so its figure is no ratio
		cpuRound(1, "dns-cached", "nginx", 1),
		{Round: 1, Scenario: "idle", Contender: "limeload-l4", Idle: &idleFigures{MemoryPerSession: 600}},
		{Round: 1, Scenario: "idle", Contender: "haproxy", Idle: &idleFigures{MemoryPerSession: 6000}},
		{Round: 1, Scenario: "reload", Contender: "limeload-l4", P999: 0.004},
		{Round: 1, Scenario: "reload", Contender: "nginx", P999: 0.01},
		{Round: 2, Scenario: "reload", Contender: "limeload-l4", Error: "it broke"},
	}
	ss, err := selectScenarios("connect,tls-request64,idle,reload,dns-cached")
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		Scenario, Ratio, Verdict string
		Rounds                   int
	}
	judged := func(m machine) (out []line) {
		for _, r := range judge(summarize(ss, contenders(), all), all, m) {
			out = append(out, line{r.Scenario, formatRatio(r.Ratio), r.verdict(), r.Rounds})
		}
		return out
	}
	want := []line{
		{"connect", "0.80", "met", 3},                // to HAProxy; 0.70 to nginx, whichever was luckier in a round
		{"idle", "0.10", "missed, without nginx", 1}, // more than 512 B
		{"tls-request64", "0.95", "missed, without kernel TLS, without HAProxy", 1},
		{"dns-cached", "-", "no rival", 0},
		{"reload", "0.40", "met, without HAProxy", 1},
	}
	if diff := cmp.Diff(want, judged(machine{ULP: "mptcp"})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want[2].Verdict = "missed, without HAProxy"
	if diff := cmp.Diff(want, judged(machine{ULP: "espintcp mptcp tls"})); diff != "" {
		t.Errorf("with kernel TLS (-want +got):\n%s", diff)
	}

	text := barSheet(judge(summarize(ss, contenders(), all), all, machine{})).markdown()
	for _, row := range []string{
		"| connect, one request, close | connect | CPU time per connection | 8s | 10s | 13s |  | 0.80 | 0.45 to 0.80 " +
			"| 0.82 | met |",
		"| an idle session's memory | idle | memory | 600 B | 5.9 KiB |  |  | 0.10 | 0.10 to 0.10 | 0.20 and 512 B " +
			"| missed, without nginx |",
	} {
		if !strings.Contains(text, row) {
			t.Errorf("no %q in\n%s", row, text)
		}
	}
}

// At half of the lowest peak of any balancer in the same round.
func TestPacedByHalf(t *testing.T) {
	rate := func(round int, contender string, rate float64) measurement {
		return measurement{Round: round, Scenario: "request64", Contender: contender, Rate: rate}
	}
	earlier := []measurement{rate(1, "haproxy", 100), rate(2, "limeload-l4", 9000), rate(2, "haproxy", 8001),
		rate(2, nameDirect, 500), rate(3, nameDirect, 600), {Round: 2, Scenario: "request64", Error: "it broke"}}
	s := scenario{name: "half-peak", half: "request64"}
	for round, want := range map[int]int{1: 50, 2: 4000, 3: 300} {
		got, err := s.paced(round, earlier)
		if err != nil || got.job.Rate != want {
			t.Errorf("round %d: rate %d, %v, want %d", round, got.job.Rate, err, want)
		}
	}
	if _, err := s.paced(4, earlier); err == nil {
		t.Error("a round without a peak has a rate")
	}
	if got, err := (scenario{}).paced(4, earlier); err != nil || got.job.Rate != 0 {
		t.Errorf("a scenario that is not paced by another one: %+v, %v", got, err)
	}
}

func TestSustained(t *testing.T) {
	s := scenario{unit: unitRefusal}
	j := job{Flood: &floodJob{Rate: 1000}}
	r := loadResult{Flood: &floodResult{Refused: 1900, Elapsed: 2e9}}
	if err := s.sustained(r, j); err != nil {
		t.Error(err)
	}
	r.Flood.Refused = 1700
	if err := s.sustained(r, j); err == nil || !strings.Contains(err.Error(), "1700 of 2000") {
		t.Errorf("error %v, want one with how many were refused", err)
	}
	if got := s.units(r); got != 1700 {
		t.Errorf("%v units, want as many as were refused", got)
	}
}

// A curve without a cliff, one with, and the cost of a byte.
func TestGrow(t *testing.T) {
	one := func(scenario, contender string, cpu float64) measurement {
		return cpuRound(1, scenario, contender, cpu)
	}
	curves := grow([]measurement{
		one("growth-sessions-1", "limeload-l4", 20e-6), one("growth-sessions-10", "limeload-l4", 10e-6),
		one("growth-sessions-100", "limeload-l4", 14e-6), one("growth-sessions-9000", "limeload-l4", 15e-6),
		one("growth-sessions-1", "nginx", 10e-6), one("growth-sessions-9000", "nginx", 16e-6),
		one("growth-size-1", "limeload-l4", 10e-6), one("growth-size-1024", "limeload-l4", 20e-6),
		one("request64", "limeload-l4", 10e-6),
		// a round on a slower machine: the steps are as large as in the first
		cpuRound(2, "growth-sessions-10", "limeload-l4", 100e-6),
		cpuRound(2, "growth-sessions-100", "limeload-l4", 140e-6),
		{Round: 3, Scenario: "growth-sessions-100", Contender: "limeload-l4", CPUPerUnit: 1, Error: "it broke"},
	})
	if len(curves) != 2 {
		t.Fatalf("%d curves, want 2", len(curves))
	}
	var verdicts []string
	for _, c := range curves {
		for _, l := range c.Lines {
			verdicts = append(verdicts, c.Name+" "+l.Contender+" "+l.verdict())
		}
	}
	want := []string{
		"sessions limeload-l4 no cliff: 1.40 from 10 to 100", "sessions nginx cliff: 1.60 from 1 to 9000",
		"sizes limeload-l4 no cliff: 0.00 from 1 to 1Ki",
	}
	if diff := cmp.Diff(want, verdicts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := curves[1].Lines[0].Points[1].Cost; got < 19.5e-9 || got > 19.6e-9 {
		t.Errorf("a byte of 1 KiB costs %v s, want 20us / 1024", got)
	}
	text := curves[0].sheet().markdown()
	for _, row := range []string{
		"| sessions | limeload-l4 | nginx |\n", "| 10 | 55us |  |\n", "| 9000 | 15us | 16us |\n",
	} {
		if !strings.Contains(text, row) {
			t.Errorf("no %q in\n%s", row, text)
		}
	}
}

func TestFeatureSheet(t *testing.T) {
	ss, err := selectScenarios("feature")
	if err != nil {
		t.Fatal(err)
	}
	r := report{Scenarios: map[string]string{"feature-connect-log": "a line", "feature-connect-proxy": "a header"}}
	for _, s := range ss {
		cpu := map[string]float64{"feature-connect-off": 100e-6, "feature-connect-log": 110e-6,
			"feature-connect-proxy": 99e-6, "feature-bulk-tls": 1}[s.name]
		if cpu > 0 {
			m := cpuRound(1, s.name, "limeload-l4", cpu)
			m.Limits = &limitFigures{}
			m.compare(s, r.Rounds)
			r.Rounds = append(r.Rounds, m)
		}
	}
	r.Summary = summarize(ss, contenders(), r.Rounds)
	got := r.featureSheet().markdown()
	want := "| work | with | without it | with it | more | factor |\n|---|---|---|---|---|---|\n" +
		"| connection | a header | 100us | 99us | -1us | 0.99 |\n" +
		"| connection | a line | 100us | 110us | +10us | 1.10 |\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
