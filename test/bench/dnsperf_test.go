package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dnsperfOutput is what dnsperf 2.10.0 prints with -v, less most of its lines.
const dnsperfOutput = `DNS Performance Testing Tool
Version 2.10.0

[Status] Command line: dnsperf -s 127.0.0.1 -p 21000 -d questions -l 1 -v
[Status] Sending queries (to 127.0.0.1:21000)
> NOERROR h0.bench.test. A 0.000100
> NOERROR h1.bench.test. A 0.000300
[Timeout] Query timed out: msg id 7
> NOERROR h2.bench.test. A 0.000200
[Status] Testing complete (time limit)

Statistics:

  Queries sent:         4
  Queries completed:    3 (75.00%)
  Queries lost:         1 (25.00%)

  Response codes:       NOERROR 3 (100.00%)
  Average packet size:  request 31, response 100
  Run time (s):         1.500000
  Queries per second:   2.000000

  Average Latency (s):  0.000200 (min 0.000100, max 0.000300)
  Latency StdDev (s):   0.000100

`

func TestParseDNSPerf(t *testing.T) {
	got, err := parseDNSPerf([]byte(dnsperfOutput))
	want := loadResult{
		Requests: 3, Lost: 1, Elapsed: 1500 * time.Millisecond,
		P50: 200 * time.Microsecond, P99: 300 * time.Microsecond, Max: 300 * time.Microsecond,
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for name, text := range map[string]string{
		"nothing": "",
		"cut off": dnsperfOutput[:strings.Index(dnsperfOutput, "Run time")],
		"an answer that failed": strings.Replace(dnsperfOutput, "NOERROR 3 (100.00%)",
			"NOERROR 2 (66.67%), SERVFAIL 1 (33.33%)", 1),
		"no answer":           strings.Replace(dnsperfOutput, "completed:    3", "completed:    0", 1),
		"a time that is none": strings.Replace(dnsperfOutput, "A 0.000300", "A soon", 1),
	} {
		if r, err := parseDNSPerf([]byte(text)); err == nil {
			t.Errorf("%s is taken for %+v", name, r)
		}
	}
}

func TestDNSPerfArguments(t *testing.T) {
	j := job{Targets: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:21000")}, Connections: 64, Depth: 200}
	d, err := newDNSPerf(program{}, j, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const want = "-s 127.0.0.1 -p 21000 -d FILE -l 2 -c 64 -q 200 -t 1"
	args := func() string {
		return strings.Replace(strings.Join(d.args(1500*time.Millisecond), " "), d.questions, "FILE", 1)
	}
	if got := args(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	d.job.Rate = 1000
	if got := args(); got != want+" -Q 1000 -v" {
		t.Errorf("%q, want %q and a rate", got, want)
	}
	questions, err := os.ReadFile(filepath.Join(filepath.Dir(d.questions), "questions"))
	if err != nil || strings.Count(string(questions), "\n") != questionCount || !strings.Contains(string(questions),
		"h7.bench.test. A\n") {
		t.Errorf("questions are %.100q, %v", questions, err)
	}
	if _, err := newDNSPerf(program{}, job{}, t.TempDir()); err == nil {
		t.Error("nobody to ask, and no error")
	}
}
