package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sample returns a report of three contenders in two rounds, the second on a slower machine, with one failure.
func sample(t *testing.T) report {
	t.Helper()
	ss, err := selectScenarios("request64,idle")
	if err != nil {
		t.Fatal(err)
	}
	work := func(round int, contender string, cpu float64) measurement {
		return measurement{Round: round, Scenario: "request64", Contender: contender, Rate: 1 / cpu, P50: cpu,
			P99: 2 * cpu, CPUPerUnit: cpu}
	}
	idle := func(contender string, bytes float64) measurement {
		return measurement{Round: 1, Scenario: "idle", Contender: contender, Rate: 1000,
			Idle: &idleFigures{MemoryPerSession: bytes, DescriptorsPerSession: 2, MemoryAfter: 5 << 20}}
	}
	all := []measurement{
		work(1, "limeload-l4", 8e-6), work(1, "haproxy", 16e-6), work(1, "nginx", 24e-6),
		work(2, "limeload-l4", 16e-6), work(2, "haproxy", 48e-6), work(2, "nginx", 32e-6),
		idle("limeload-l4", 600), idle("haproxy", 3000), idle("nginx", 9000),
		{Round: 3, Scenario: "request64", Contender: "nginx", Error: "it broke"},
	}
	cs := contenders()
	return report{
		Runs:       []runReport{{Flags: map[string]string{"rounds": "3"}, Scenarios: []string{"request64", "idle"}}},
		Scenarios:  map[string]string{"request64": "work", "idle": "rest"},
		Contenders: []contenderReport{{Name: "nginx", Version: "nginx/1.22.1"}},
		Summary:    summarize(ss, cs, all),
		Rounds:     all,
	}
}

func TestSummarize(t *testing.T) {
	type line struct {
		contender   string
		cpu         float64
		ratio       string
		rounds, bad int
	}
	var got []line
	for _, s := range sample(t).Summary {
		if s.Idle == nil {
			got = append(got, line{s.Contender, s.CPUPerUnit, formatRatio(s.CPURatio), s.Rounds, s.Failed})
		} else {
			got = append(got, line{s.Contender, s.Idle.Memory, formatRatio(s.Idle.MemoryRatio), s.Rounds, s.Failed})
		}
	}
	want := []line{
		{"limeload-l4", 12e-6, "0.50", 2, 0}, // 8/16 and 16/32
		{"haproxy", 32e-6, "1.25", 2, 0},     // 1 and 48/32
		{"nginx", 28e-6, "1.25", 2, 1},       // 24/16 and 1
		{"limeload-l4", 600, "0.20", 1, 0},
		{"haproxy", 3000, "1.00", 1, 0},
		{"nginx", 9000, "3.00", 1, 0},
	}
	equal := cmp.Options{cmp.AllowUnexported(line{}), cmp.Comparer(func(a, b float64) bool {
		return a-b < 1e-9 && b-a < 1e-9
	})}
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTables(t *testing.T) {
	var b strings.Builder
	if err := sample(t).writeTables(&b); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		"nginx: nginx/1.22.1",
		"request64 limeload-l4 93750 2.00 12us 24us 0.50 12us 0.50 request 2",
		"request64 nginx 36458 0.83 28us 56us 1.25 28us 1.25 request 2, 1 failed",
		"idle limeload-l4 600 B 0.20 2.00 5.0 MiB",
		"failed: round 3, request64, nginx: it broke",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), " \n") {
		t.Errorf("spaces at the end of a line:\n%q", b.String())
	}
}

// What connections negotiated, once for all scenarios in which it was the same, and how fast a flood was.
func TestRemarks(t *testing.T) {
	ss, err := selectScenarios("tls-bulk1,tls12-resume,pgbench")
	if err != nil {
		t.Fatal(err)
	}
	work := func(round int, scenario, contender, negotiated string, handshakes float64) measurement {
		return measurement{Round: round, Scenario: scenario, Contender: contender, Rate: 1, TLS: negotiated,
			Handshakes: handshakes}
	}
	r := report{Summary: summarize(ss, contenders(), []measurement{
		work(1, "tls-bulk1-in", "haproxy", "TLS 1.3, A", 0),
		work(2, "tls-bulk1-in", "haproxy", "TLS 1.3, A", 0),
		work(1, "tls-bulk1-out", "haproxy", "TLS 1.3, A", 0),
		work(1, "tls12-resume-ecdsa", "haproxy", "TLS 1.2, B", 0),
		work(1, "pgbench-beside-flood", "nginx", "", 100),
		work(2, "pgbench-beside-flood", "nginx", "", 300),
		work(1, "pgbench-alone", "nginx", "", 0),
	})}
	var b strings.Builder
	r.remarks(&b)
	want := `negotiated with haproxy: TLS 1.2, B (tls12-resume-ecdsa)
negotiated with haproxy: TLS 1.3, A (tls-bulk1-in, tls-bulk1-out)
pgbench-beside-flood, nginx: the flood did 200 handshakes/s
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJSONHoldsEveryRound(t *testing.T) {
	want := sample(t)
	file := filepath.Join(t.TempDir(), "bench.json")
	if err := want.writeJSON(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{formatSeconds(0), "-"},
		{formatSeconds(12.34e-6), "12.3us"},
		{formatSeconds(1.5e-3), "1.5ms"},
		{formatSeconds(2), "2s"},
		{formatBytes(812), "812 B"},
		{formatBytes(-812), "-812 B"},
		{formatBytes(2048), "2.0 KiB"},
		{formatBytes(3 << 20), "3.0 MiB"},
		{formatRate(12345.6, "request"), "12346"},
		{formatRate(1.234, "GB"), "1.23 GB"},
		{formatRate(0, "GB"), "-"},
		{formatRatio(nil), "-"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
