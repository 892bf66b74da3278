package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/algo"
)

// simulationConfig is a configuration with a pool of four backends, of which b4 has weight 2, and further lines.
func simulationConfig(t *testing.T, lines ...string) string {
	t.Helper()
	return write(t, `
[listener.main]
address = ":7997"
pool = "four"
[pool.four]
backends = [
  { address = "10.0.0.1:1", name = "b1" }, { address = "10.0.0.2:1", name = "b2" },
  { address = "10.0.0.3:1", name = "b3" }, { address = "db4.internal:1", name = "b4", weight = 2 },
]
`+strings.Join(lines, "\n"))
}

// simulatedReports runs a simulation and returns its JSON.
func simulatedReports(t *testing.T, config string, args ...string) []report {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{"limeload-l4", "simulate", "--config", config, "--output", "json"}, args...)
	if code := run(t.Context(), args, &stdout, &stderr); code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	var reports []report
	if err := json.Unmarshal(stdout.Bytes(), &reports); err != nil {
		t.Fatal(err)
	}
	return reports
}

// TestSimulateShares: every algorithm except first distributes by weight, and the numbers of each report add up.
func TestSimulateShares(t *testing.T) {
	reports := simulatedReports(t, simulationConfig(t), "--algorithm", "all", "--sessions", "20000",
		"--clients", "20000")
	if len(reports) != len(algo.Kinds()) {
		t.Fatalf("%d reports, want one for each of %d algorithms", len(reports), len(algo.Kinds()))
	}
	for _, r := range reports {
		var served int
		for _, b := range r.Backends {
			p := b.Phases[0]
			served += p.Sessions
			if r.Algorithm != "first" && math.Abs(p.Share-p.ByWeight) > 0.05 {
				t.Errorf("%s: %s has a share of %v, by weight %v", r.Algorithm, b.Name, p.Share, p.ByWeight)
			}
		}
		if served != 20000 || r.Sessions != 20000 || r.MaxOverMean < 1 || r.Worst < r.MaxOverMean {
			t.Errorf("%s: %d of %d sessions served; maximum over mean %v, at worst %v", r.Algorithm, served, r.Sessions,
				r.MaxOverMean, r.Worst)
		}
	}
}

// TestSimulateChanges checks what each change does to the shares and, for algorithms that hash, to the clients.
func TestSimulateChanges(t *testing.T) {
	for change, want := range map[string]struct {
		had   float64 // of the clients
		after []float64
	}{
		"remove b1":        {0.2, []float64{0, 0.25, 0.25, 0.5}},
		"drain b2":         {0.2, []float64{0.25, 0, 0.25, 0.5}},
		"weight b3 0":      {0.2, []float64{0.25, 0.25, 0, 0.5}},
		"weight b1 6":      {0.4, []float64{0.6, 0.1, 0.1, 0.2}},
		"add 10.0.0.5:1":   {1.0 / 6, []float64{1. / 6, 1. / 6, 1. / 6, 1. / 3, 1. / 6}},
		"weight b4 1":      {0.15, []float64{0.25, 0.25, 0.25, 0.25}},
		"add [fd00::1]:80": {1.0 / 6, []float64{1. / 6, 1. / 6, 1. / 6, 1. / 3, 1. / 6}},
	} {
		r := simulatedReports(t, simulationConfig(t), "--algorithm", "client_hash", "--change", change,
			"--sessions", "20000")[0]
		if r.Keys == nil || math.Abs(r.Keys.Had-want.had) > 0.03 || r.Keys.More != 0 {
			t.Errorf("%s: of the clients %+v moved, want about %v and no more", change, r.Keys, want.had)
		}
		for i, b := range r.Backends {
			if got := b.Phases[1].Share; math.Abs(got-want.after[i]) > 0.05 {
				t.Errorf("%s: then %s has a share of %v, want about %v", change, b.Name, got, want.after[i])
			}
		}
	}
	r := simulatedReports(t, simulationConfig(t), "--algorithm", "maglev", "--change", "remove b1")[0]
	if r.Keys.More <= 0 || r.Keys.More > 0.02 {
		t.Errorf("maglev moves %v of the clients besides, want a few", r.Keys.More)
	}
}

// TestSimulateIsRepeatable: the same seed makes the same sessions, another seed makes others.
func TestSimulateIsRepeatable(t *testing.T) {
	first := func(seed string) report {
		return simulatedReports(t, simulationConfig(t), "--algorithm", "least_conn", "--sessions", "5000",
			"--seed", seed)[0]
	}
	one, again, other := fmt.Sprint(first("1")), fmt.Sprint(first("1")), fmt.Sprint(first("2"))
	if one != again || one == other {
		t.Errorf("with seed 1 twice and then 2:\n%s\n%s\n%s", one, again, other)
	}
}

// TestSimulateLimits: limits, the queue and its timeout work as in the balancer.
func TestSimulateLimits(t *testing.T) {
	config := write(t, `
[listener.main]
address = ":7997"
pool = "one"
[pool.one]
backends = [{ address = "10.0.0.1:1", max_sessions = 10 }]
queue = { max = 5, timeout = "50ms" }
`)
	r := simulatedReports(t, config, "--sessions", "10000", "--rate", "100", "--lifetime", "fixed 100ms")[0]
	if r.Full == 0 || r.Waited == 0 || r.TimedOut == 0 || r.NoBackend != 0 || r.Backends[0].MaxOpen != 10 {
		t.Errorf("ten at a time, ten come in the time of one: %+v", r)
	}
	if got := r.Backends[0].Phases[0].Sessions + r.Full + r.TimedOut; got != r.Sessions {
		t.Errorf("%d sessions are accounted for of %d", got, r.Sessions)
	}
	r = simulatedReports(t, config, "--sessions", "1000", "--change", "drain 10.0.0.1:1")[0]
	if r.NoBackend < 490 {
		t.Errorf("after the only backend was drained %d of 1000 found none", r.NoBackend)
	}
}

// TestSimulateRate: a rate limits a backend by the simulated clock, and whoever waits for it is served in time.
func TestSimulateRate(t *testing.T) {
	const head = "[listener.main]\naddress = \":7997\"\npool = \"one\"\n[pool.one]\n"
	r := simulatedReports(t, write(t, head+`
backends = [{ address = "10.0.0.1:1", max_rate = "50/s burst 10" }]
queue = { max = 5, timeout = "1s" }
`), "--sessions", "10000", "--rate", "100", "--lifetime", "fixed 1ms")[0]
	if got := r.Backends[0].Phases[0].Sessions; got < 4900 || got > 5200 || r.TimedOut != 0 || r.Waited < 4900 {
		t.Errorf("a hundred come in a second, of which fifty are allowed: %+v", r)
	}
	r = simulatedReports(t, write(t, head+`
backends = [{ address = "10.0.0.1:1", max_rate = "50/s" }, "10.0.0.2:1"]
`), "--sessions", "20000", "--rate", "200", "--lifetime", "fixed 1ms")[0]
	if got := r.Backends[0].Phases[0].Sessions; got < 4500 || got > 5150 || r.Full+r.NoBackend != 0 {
		t.Errorf("the first of two may have fifty in a second of two hundred: %+v", r)
	}
}

// TestSimulateLatency: least_time notices a slow backend by the simulated clock.
func TestSimulateLatency(t *testing.T) {
	r := simulatedReports(t, simulationConfig(t), "--algorithm", "least_time", "--lifetime", "1ms", "--latency",
		"b1=200ms")[0]
	if share := r.Backends[0].Phases[0].Share; share > 0.1 {
		t.Errorf("a backend that is 200 times as slow has a share of %v", share)
	}
}

// TestSimulateLog replays an access log.
func TestSimulateLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "access.log")
	text := `{"level":"info","message":"ready"}
{"level":"info","client":"10.1.1.1:1000","duration":5,"time":"2026-11-24T10:00:05.000Z","message":"session ended"}
{"level":"info","client":"10.1.1.2:1000","duration":1,"time":"2026-11-24T10:00:06.000Z","message":"session ended"}
{"level":"info","client":"10.1.1.3:1000","duration":6.5,"time":"2026-11-24T10:00:07.000Z","message":"session ended"}
`
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := simulatedReports(t, simulationConfig(t), "--algorithm", "first", "--log", log)[0]
	// The first and the third are open at the same time; the second starts when the first has ended.
	if r.Sessions != 3 || r.Backends[0].MaxOpen != 2 || r.Backends[0].Phases[0].Sessions != 3 {
		t.Errorf("replayed as %+v", r)
	}
}

// TestSimulateFile uses the backends of a discovery file.
func TestSimulateFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backends.json")
	if err := os.WriteFile(file, []byte(`[{"address": "10.0.0.9:1", "name": "b9", "weight": 5}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	config := simulationConfig(t, "[pool.four.discovery]", `type = "file"`, fmt.Sprintf("file = %q", file))
	r := simulatedReports(t, config, "--algorithm", "round_robin")[0]
	if last := r.Backends[len(r.Backends)-1]; last.Name != "b9" || math.Abs(last.Phases[0].Share-0.5) > 0.01 {
		t.Errorf("the file's backend is %+v, want half of the sessions", last)
	}
}

func TestSimulateOutputAndMistakes(t *testing.T) {
	config := simulationConfig(t)
	badLog := filepath.Join(t.TempDir(), "bad.log")
	if err := os.WriteFile(badLog, []byte("{}\nnot json\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	emptyLog := filepath.Join(t.TempDir(), "empty.log")
	if err := os.WriteFile(emptyLog, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		code   int
		stdout string // a pattern
		stderr string
	}{
		{[]string{"--change", "remove b2"}, exitDone,
			`(?s)^pool four, least_conn, 1000 sessions.*then: weight.*\nb1 .*maximum over mean`, `^$`},
		{[]string{"--algorithm", "all", "--change", "remove b2"}, exitDone, `(?m)^maglev .*%`, `^$`},
		{[]string{"--algorithm", "maglev", "--change", "remove b2", "--output", "csv"}, exitDone,
			`^algorithm,.*\nmaglev,1\.`, `^$`},
		{[]string{"--change", "remove b9"}, exitFailed, `^$`, `the pool has no such backend; did you mean`},
		{[]string{"--change", "destroy b2"}, exitUsage, `^$`, `--change: needs "remove NAME"`},
		{[]string{"--change", "weight b2 heavy"}, exitUsage, `^$`, `--change: needs`},
		{[]string{"--algorithm", "fastest"}, exitUsage, `^$`, `unknown algorithm "fastest" \(known: round_robin`},
		{[]string{"--pool", "five"}, exitUsage, `^$`, `no such pool; there is only four`},
		{[]string{"--sessions", "0"}, exitUsage, `^$`, `--sessions 0: needs 1 to`},
		{[]string{"--rate", "NaN"}, exitUsage, `^$`, `--rate NaN`},
		{[]string{"--clients", "-1"}, exitUsage, `^$`, `--clients -1`},
		{[]string{"--lifetime", "long"}, exitUsage, `^$`, `--lifetime "long"`},
		{[]string{"--latency", "b2"}, exitUsage, `^$`, `--latency "b2": needs NAME=TIME`},
		{[]string{"--latency", "b9=1ms"}, exitUsage, `^$`, `the pool has no backend "b9"`},
		{[]string{"--output", "xml"}, exitUsage, `^$`, `needs table, json or csv`},
		{[]string{"--log", badLog}, exitFailed, `^$`, `bad.log:2: not a line of this program's JSON log`},
		{[]string{"--log", emptyLog}, exitFailed, `^$`, `is log.access on`},
		{[]string{"--log", "/nowhere"}, exitFailed, `^$`, `no such file`},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append([]string{"limeload-l4", "simulate", "--config", config, "--sessions", "1000"}, test.args...)
			if code := run(t.Context(), args, &stdout, &stderr); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, out := range []struct{ name, got, want string }{{"stdout", stdout.String(), test.stdout},
				{"stderr", stderr.String(), test.stderr}} {
				if !regexp.MustCompile(out.want).MatchString(out.got) {
					t.Errorf("%s is %q, want %s", out.name, out.got, out.want)
				}
			}
		})
	}
}

// TestPlotsAreOfTheProgram runs the simulation of docs/plots again. The plotted figures are those of the program,
// exactly so where it uses no random numbers.
func TestPlotsAreOfTheProgram(t *testing.T) {
	for file, args := range map[string][]string{"many.csv": nil, "few.csv": {"--rate", "100"}} {
		want, err := os.ReadFile(filepath.Join("../../docs/plots", file))
		if err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		args = append([]string{
			"limeload-l4", "simulate", "--config", "../../docs/plots/ten.toml",
			"--algorithm", "all", "--change", "remove b3", "--output", "csv",
		}, args...)
		if code := run(t.Context(), args, &stdout, &stderr); code != exitDone {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		drawn, now := strings.Split(string(want), "\n"), strings.Split(stdout.String(), "\n")
		if len(drawn) != len(now) {
			t.Fatalf("%s has %d lines, the simulation makes %d: run `make plots`", file, len(drawn), len(now))
		}
		for i := range now {
			name, figures, _ := strings.Cut(now[i], ",")
			switch name {
			case "random", "p2c", "least_time":
				var is, was float64
				fmt.Sscanf(figures, "%f", &is)
				_, figures, _ = strings.Cut(drawn[i], ",")
				fmt.Sscanf(figures, "%f", &was)
				if math.Abs(is-was) > 0.05 {
					t.Errorf("%s: the plot has %s, the simulation now makes %s: run `make plots`", file,
						drawn[i], now[i])
				}
			default:
				if now[i] != drawn[i] {
					t.Errorf("%s: the plot has %s, the simulation now makes %s: run `make plots`", file,
						drawn[i], now[i])
				}
			}
		}
	}
}
