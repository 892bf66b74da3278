package main

import (
	"bufio"
	"io"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLimeloadLimits(t *testing.T) {
	s := testSetup()
	s.denied = "/tmp/b/denied"
	s.limits = limitation{
		ClientRate: rateLimit{10, 20}, Rate: rateLimit{1000, 5}, ClientSessions: 7, SessionBandwidth: 4 << 20,
		ClientBandwidth: 64 << 20, Prefix: 16, Over: "delay",
	}
	want := `pool = "bench"

[listener.bench.access]
deny_file = "/tmp/b/denied"

[listener.bench.limits]
client_rate = "10/s burst 20"
rate = "1000/s burst 5"
client_sessions = 7
session_bandwidth = "4MiB/s"
client_bandwidth = "64MiB/s"
client_prefix_v4 = 16
over_limit = "delay"

[pool.bench]
`
	if got := limeloadConfig(program{}, s); !strings.Contains(got, want) {
		t.Errorf("want\n%s\nin\n%s", want, got)
	}
}

func TestPeersLimits(t *testing.T) {
	client := limitation{ClientRate: rateLimit{10, 20}, Prefix: 16}
	for _, c := range []struct {
		name   string
		config func(program, setup) string
		limits limitation
		has    string
	}{
		{"haproxy", haproxyConfig, client, "    tcp-request connection reject if { sc0_conn_rate gt 20 }\n"},
		{"haproxy", haproxyConfig, limitation{Rate: rateLimit{1000, 5}, Over: "delay"}, "    rate-limit sessions 1000\n"},
		{"nginx", nginxConfig, client, "    limit_conn_zone $client zone=clients:10m;\n"},
		{"nginx", nginxConfig, client, "        limit_conn clients 20;\n"},
		{"nginx", nginxConfig, limitation{SessionBandwidth: 4 << 20}, "        proxy_download_rate 4194304;\n"},
		{"dnsdist", dnsdistConfig, client, "addAction(MaxQPSIPRule(10, 16, 64, 20), DropAction())\n"},
	} {
		s := testSetup()
		s.limits = c.limits
		if got := c.config(program{}, s); !strings.Contains(got, c.has) {
			t.Errorf("%s: want %q in\n%s", c.name, c.has, got)
		}
	}
}

// The programs themselves check the configurations with limits.
func TestLimitConfigsAreValid(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		contender contender
		path      string
		args      []string
	}{
		{haproxy(), "haproxy", []string{"-c", "-f"}},
		{nginx(), "nginx", []string{"-p", dir, "-e", "stderr", "-t", "-c"}},
		{dnsdist(), "dnsdist", []string{"--check-config", "-C"}},
	} {
		p, err := c.contender.find(t.Context(), c.path)
		if err != nil {
			t.Fatal(err)
		}
		checked := map[string]bool{}
		for _, s := range limitScenarios() {
			if !c.contender.does(s) {
				continue
			}
			set := testSetup()
			set.dir, set.traffic, set.limits = dir, s.traffic, s.limits
			text := c.contender.config(p, set)
			if checked[text] {
				continue
			}
			checked[text] = true
			file := filepath.Join(dir, c.path+".conf")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), p.path, append(c.args, file)...).CombinedOutput()
			if err != nil || strings.Contains(strings.ToLower(string(out)), "warn") {
				t.Errorf("%s, %s: %v\n%s\n%s", c.path, s.name, err, out, text)
			}
		}
		if len(checked) < 2 {
			t.Errorf("%s has %d configurations", c.path, len(checked))
		}
	}
}

func TestWriteDenied(t *testing.T) {
	const n = 10_000
	name, err := writeDenied(t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[netip.Prefix]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		p, err := netip.ParsePrefix(lines.Text())
		if err != nil || p != p.Masked() || p.Overlaps(netip.MustParsePrefix("127.0.0.0/8")) {
			t.Fatalf("prefix %s, %v", p, err)
		}
		seen[p] = true
	}
	if len(seen) != n {
		t.Errorf("%d prefixes, want %d", len(seen), n)
	}
}

// Every scenario about limits, but with nothing that limits.
func TestLimitScenarios(t *testing.T) {
	all := benchOf(t, "direct", "200ms", "rates-client-1000,rates-delay-1000,rates-flows-1000,rates-dns-20k,"+
		"bandwidth-s10-in,bandwidth-c10-out,limits-off,floodudp-flows,floodudp-dns")
	if len(all) != 13 {
		t.Errorf("%d measurements, want 13", len(all))
	}
	for _, m := range all {
		f := m.Limits
		if m.Error != "" || f == nil || m.Units <= 0 {
			t.Errorf("%+v", m)
			continue
		}
		flooded := strings.HasSuffix(m.Scenario, "-open") || strings.HasSuffix(m.Scenario, "-limit")
		switch {
		case strings.HasPrefix(m.Scenario, "rates-"):
			if f.Exact <= 1 || f.Offered <= 0 {
				t.Errorf("%s: %+v", m.Scenario, f)
			}
		case strings.HasPrefix(m.Scenario, "bandwidth-"):
			if f.Exact <= 1 || f.Least <= 0 || f.Most < f.Least || f.Burst < f.Exact {
				t.Errorf("%s: %+v", m.Scenario, f)
			}
		case strings.HasPrefix(m.Scenario, "floodudp-"):
			if m.P99 <= 0 || (f.Offered > 0) != flooded || (f.P99Ratio > 0) != flooded {
				t.Errorf("%s: %+v, %+v", m.Scenario, m, f)
			}
		}
	}
}

// A flood of connects beside pgbench, with a balancer that refuses them.
func TestFlood(t *testing.T) {
	t.Parallel()
	all := benchOf(t, "haproxy", "1400ms", "flood-idle,flood-limit") // pgbench may need most of a second to begin
	if len(all) != 2 || all[0].Error != "" || all[1].Error != "" {
		t.Fatalf("%+v", all)
	}
	idle, limit := all[0].Limits, all[1].Limits
	if all[0].P99 <= 0 || *idle != (limitFigures{Switches: idle.Switches}) {
		t.Errorf("idle: %+v, %+v", all[0], idle)
	}
	if limit.Refused <= 0 || limit.Offered < limit.Refused || limit.P99Ratio <= 0 || limit.RateRatio <= 0 ||
		limit.CPUPerRefusal <= 0 {
		t.Errorf("limit: %+v, %+v", all[1], limit)
	}
}

// benchOf runs scenarios, briefly, with one contender, also with one that does not take part in them otherwise.
func benchOf(t *testing.T, contender, duration, only string) []measurement {
	t.Helper()
	o, err := parseOptions([]string{"-contenders", contender, "-only", only, "-rounds", "1", "-duration", duration,
		"-warmup", "50ms", "-flood-rate", "5000"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.scenarios {
		o.scenarios[i].who = nil
	}
	return runBench(t, o, 28_000)
}

func TestCompare(t *testing.T) {
	s := scenario{baseline: "idle", table: tableCost}
	earlier := []measurement{
		{Round: 1, Scenario: "idle", Contender: "nginx", Rate: 50, P99: 1, CPU: 1, CPUPerUnit: 5e-6},
		{Round: 2, Scenario: "idle", Contender: "haproxy", Rate: 50, P99: 1, CPU: 1, CPUPerUnit: 5e-6},
		{Round: 2, Scenario: "idle", Contender: "nginx", Rate: 100, P99: 2, CPU: 3, CPUPerUnit: 2e-6},
		{Round: 2, Scenario: "other", Contender: "nginx", Rate: 1, P99: 1, CPU: 1, CPUPerUnit: 1},
	}
	m := measurement{Round: 2, Contender: "nginx", Rate: 50, P99: 3, CPU: 5, CPUPerUnit: 3e-6, ElapsedSeconds: 10,
		Limits: &limitFigures{Refused: 1000}}
	m.compare(s, earlier)
	want := limitFigures{Refused: 1000, RateRatio: 0.5, P99Ratio: 1.5, CPUPerRefusal: 200e-6, CPUMore: 1e-6}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-12 })
	if diff := cmp.Diff(want, *m.Limits, near); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	lone := measurement{Round: 3, Contender: "nginx", Rate: 50, Limits: &limitFigures{}}
	lone.compare(s, earlier)
	if *lone.Limits != (limitFigures{}) {
		t.Errorf("without a baseline: %+v", *lone.Limits)
	}
}

func TestExactness(t *testing.T) {
	s := scenario{table: tableRate, limits: limitation{ClientRate: rateLimit{1000, 20}}}
	r := loadResult{Requests: 10_020, Flood: &floodResult{Offered: 20_580, Refused: 10_560, Elapsed: 10 * time.Second}}
	if got := newLimitFigures(s, r, view{}, view{}); *got != (limitFigures{Offered: 2058, Refused: 1056,
		Allowed: 1020, Exact: 1}) {
		t.Errorf("%+v", *got)
	}
	streams := &streamResult{Elapsed: 2 * time.Second, Bytes: 40 << 20, Least: 8 << 20, Most: 16 << 20, Burst: 1 << 20,
		BurstOfAll: 4 << 20}
	s = scenario{table: tableStreams, job: job{Connections: 4}, limits: limitation{SessionBandwidth: 5 << 20}}
	want := limitFigures{Exact: 1, Least: 0.8, Most: 1.6, Burst: 2}
	if got := newLimitFigures(s, loadResult{Stream: streams}, view{}, view{}); *got != want {
		t.Errorf("each: %+v, want %+v", *got, want)
	}
	s.limits = limitation{ClientBandwidth: 20 << 20}
	if got := newLimitFigures(s, loadResult{Stream: streams}, view{}, view{}); *got != want {
		t.Errorf("together: %+v, want %+v", *got, want)
	}
}

func TestMeasureStreams(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	a, b := newMeter(start), newMeter(start)
	for i := range 30 { // 10 bytes every 10 ms, and a burst
		at := start.Add(time.Duration(i)*meterTick + time.Millisecond)
		a.count(at, 10)
		if i == 15 {
			b.count(at, 500)
		}
	}
	got := measureStreams([]*meter{a, b}, start.Add(meterTick-1), start.Add(25*meterTick))
	want := streamResult{Elapsed: 24 * meterTick, Bytes: 740, Least: 240, Most: 500, Burst: 500, BurstOfAll: 600}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	late := measureStreams([]*meter{a}, start.Add(29*meterTick), start.Add(40*meterTick))
	if late.Bytes != 0 || late.SilentParts != 10 {
		t.Errorf("after the end: %+v", late)
	}
}

func TestDatagrams(t *testing.T) {
	for kind, bits := range map[datagramKind]uint64{datagramTrain: 64, datagramQuestion: 16} {
		d, err := newDatagrams(kind)
		if err != nil {
			t.Fatal(err)
		}
		const sequence = 3<<40 | 0x1234
		b := slices.Clone(d.next(sequence))
		if kind == datagramQuestion {
			if _, ok := d.answers(b); ok {
				t.Error("a question is taken for an answer")
			}
			b[2] |= 0x80
		}
		got, ok := d.answers(b)
		if want := uint64(sequence) & (1<<bits - 1); bits == 16 && got != want || bits == 64 && got != sequence || !ok {
			t.Errorf("%s: %#x, %v", kind, got, ok)
		}
		if b[3] |= 2; kind == datagramQuestion { // SERVFAIL
			if _, ok := d.answers(b); ok {
				t.Error("an answer without success counts")
			}
		}
	}
	junk, err := newDatagrams(datagramJunk)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := parseTrain(junk.next(1)); ok {
		t.Error("a backend would answer junk")
	}
}

func TestPace(t *testing.T) {
	p := newPace(1000, 2) // of two senders, one each 2 ms
	if !p.due(0, 0) || p.due(1, time.Millisecond) || !p.due(1, 2*time.Millisecond) {
		t.Error("not every 2 ms")
	}
	if got := p.wait(1, 500*time.Microsecond); got != 1500*time.Microsecond {
		t.Errorf("wait %s", got)
	}
	if p := newPace(0, 2); !p.due(1<<40, 0) || p.wait(1<<40, 0) != 0 {
		t.Error("without a rate something is not due")
	}
}

func TestPGBenchLogSpan(t *testing.T) {
	const text = "0 1 351 0 1669000000 123 17\n3 2 1024 0 1669000002 456 0\n"
	got, err := parsePGBenchLog(text, span{time.Unix(1669000001, 0), time.Unix(1669000003, 0)})
	if err != nil || len(got) != 1 || got[0] != 1024*time.Microsecond {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParseSwitches(t *testing.T) {
	got, err := parseSwitches("Name:\tx\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n")
	if err != nil || got != 42 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parseSwitches("nonvoluntary_ctxt_switches:\t7\n"); err == nil {
		t.Error("no error without the line")
	}
}

func TestLimitTables(t *testing.T) {
	ss, err := selectScenarios("flood-limit,rates-client-10,rates-client-20k,bandwidth-s1-in,limits-on,request1")
	if err != nil {
		t.Fatal(err)
	}
	m := func(scenario string, m measurement, f *limitFigures) measurement {
		m.Round, m.Scenario, m.Contender, m.Limits = 1, scenario, "nginx", f
		return m
	}
	r := report{Summary: summarize(ss, contenders(), []measurement{
		m("flood-limit", measurement{Rate: 300, P50: 1e-3, P99: 2e-3},
			&limitFigures{Offered: 9000, Refused: 8990, RateRatio: 1, P99Ratio: 1.25, CPUPerRefusal: 9e-6}),
		m("rates-client-10", measurement{Rate: 10}, &limitFigures{Offered: 21, Exact: 0.995, Allowed: 10}),
		m("rates-client-20k", measurement{Rate: 12_000}, &limitFigures{Offered: 12_000, Exact: 0.6, Allowed: 20_000}),
		m("bandwidth-s1-in", measurement{Rate: 0.5, CPUPerUnit: 0.2},
			&limitFigures{Exact: 1.01, Least: 0.9, Most: 1.1, Burst: 1.2, Switches: 55}),
		m("limits-on", measurement{Rate: 9000, CPUPerUnit: 70e-6}, &limitFigures{CPUMore: 0.6e-6}),
		m("request1", measurement{Rate: 9000, CPUPerUnit: 9e-6}, nil),
	})}
	var b strings.Builder
	if err := r.writeTables(&b); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		"flood-limit nginx 300 1.00 1ms 2ms 1.25 0 transaction 9000 8990 9us 1",
		"rates-client-10 nginx 21 10 session 99.50% 1",
		"bandwidth-s1-in nginx 0.50 GB 101.00% 90.00% 110.00% 120.00% 200ms 55 1",
		"rates-client-20k, nginx: only 12000/s came",
		"limits-on nginx 9000 70us connection 0.6us 1",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q is not once in\n%s", want, b.String())
		}
	}
	if strings.Contains(got, "rates-client-10, nginx") {
		t.Errorf("a limit that was reached is called short:\n%s", b.String())
	}
	if strings.Count(got, "limits-on") != 1 || strings.Count(got, "request1") != 1 {
		t.Errorf("a scenario is in two tables:\n%s", b.String())
	}
}
