package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const redisTitles = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms",` +
	`"p99_latency_ms","max_latency_ms"` + "\n"

func TestParseRedisBenchmark(t *testing.T) {
	text := redisTitles + `"GET","50000.00","12.712","0.744","8.975","30.799","39.711","59.839"` + "\n"
	got, err := parseRedisBenchmark(text, 20_000)
	if err != nil {
		t.Fatal(err)
	}
	want := loadResult{
		Requests: 20_000, Elapsed: 400 * time.Millisecond, P50: 8975 * time.Microsecond, P99: 39711 * time.Microsecond,
		Max: 59839 * time.Microsecond,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, c := range []struct{ text, want string }{
		{"", "printed 0 lines"},
		{redisTitles, "printed 1 lines"},
		{"\"test\",\"rps\"\n\"GET\",\"many\"\n", "redis-benchmark's rps"},
		{"\"test\",\"rps\"\n\"GET\",\"0.00\"\n", "printed no rate"},
		{"Error: Server closed the connection\n\"GET\n", "redis-benchmark's output"},
	} {
		if _, err := parseRedisBenchmark(c.text, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.text, err, c.want)
		}
	}
}

func TestRedisBenchmarkArgs(t *testing.T) {
	r, err := newRedisBenchmark(program{}, job{
		Connections: 50, Targets: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:21000")},
		Redis: &redisJob{Test: "set", Pipeline: 16},
	}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want := "-h 127.0.0.1 -p 21000 -t set -c 50 -n 7000 -P 16 --csv"
	if got := strings.Join(r.args(7000), " "); got != want {
		t.Errorf("arguments %q, want %q", got, want)
	}
	if _, err := newRedisBenchmark(program{}, job{}, t.TempDir()); err == nil {
		t.Error("a job without a target is taken")
	}
}
