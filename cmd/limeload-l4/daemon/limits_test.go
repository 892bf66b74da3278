package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool/rate"
)

// limited returns a configuration with a table limits of one line.
func limited(line string) (*conf.Config, error) {
	return conf.Parse("lb.toml", fmt.Appendf(nil, "[listener.a]\naddress = ':1'\npool = 'p'\nprofile = 'redis'\n"+
		"[listener.a.limits]\n%s\n[pool.p]\nbackends = ['10.0.0.1:1']\n", line))
}

// TestLimitSettings holds what the table limits means for the data plane.
func TestLimitSettings(t *testing.T) {
	cfg, err := limited("client_sessions = 5\nclient_rate = '100/s burst 200'\nrate = '600/m'\n" +
		"session_bandwidth = '1MiB/s'\nclient_bandwidth = '2MiB/s'\nclient_prefix_v4 = 24\nclient_prefix_v6 = 56\ntracked_clients = 8192\n" +
		"over_limit = 'protocol'\ndry_run = true")
	if err != nil {
		t.Fatal(err)
	}
	got := limitSettings(&cfg.Listeners[0].Limits)
	want := l4.Limits{ClientSessions: 5, ClientRate: rate.Limit{Every: 10 * time.Millisecond, Burst: 200},
		Rate: rate.Limit{Every: 100 * time.Millisecond, Burst: 10}, SessionBandwidth: 1 << 20, ClientBandwidth: 2 << 20,
		Prefix4: 24, Prefix6: 56, Tracked: 8192, Track: true, Over: l4.OverTell, DryRun: true}
	if got != want || got.Validate() != nil {
		t.Errorf("got %+v, %v; want %+v", got, got.Validate(), want)
	}
	d := testDaemon(t, cfg)
	if spec := d.buildListener(cfg, &cfg.Listeners[0], "tcp", d.poolsByName(), d.secured); spec.Limits != want ||
		spec.OverFarewell != l4.Redis || spec.Access != nil {
		t.Errorf("the listener has %+v, farewell %v, access %v", spec.Limits, spec.OverFarewell, spec.Access)
	}
	for text, over := range map[string]l4.Over{"": l4.OverRefuse, "reset": l4.OverReset, "close": l4.OverClose,
		"drop": l4.OverDrop, "delay": l4.OverDelay} {
		if got := limitSettings(&conf.Limits{OverLimit: text}); got != (l4.Limits{Over: over}) {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

// TestLimitBounds holds that a configuration allows what the data plane allows, and no more.
func TestLimitBounds(t *testing.T) {
	bandwidth := func(n int64) string { return fmt.Sprintf("'%v'", conf.Bandwidth(n)) }
	for _, tt := range []struct {
		key  string
		text func(n int64) string
		set  func(l *l4.Limits, n int64)
		from int64
		to   int64
	}{
		{"client_sessions", nil, func(l *l4.Limits, n int64) { l.ClientSessions = int(n) }, 0, l4.MaxClientSessions},
		{"session_bandwidth", bandwidth, func(l *l4.Limits, n int64) { l.SessionBandwidth = n }, l4.MinBandwidth, l4.MaxBandwidth},
		{"client_bandwidth", bandwidth, func(l *l4.Limits, n int64) { l.ClientBandwidth = n }, l4.MinBandwidth, l4.MaxBandwidth},
		{"client_prefix_v4", nil, func(l *l4.Limits, n int64) { l.Prefix4 = int(n) }, 1, 32}, // there 0 is the default
		{"client_prefix_v6", nil, func(l *l4.Limits, n int64) { l.Prefix6 = int(n) }, 1, 128},
		{"tracked_clients", nil, func(l *l4.Limits, n int64) { l.Tracked = int(n) }, l4.MinTracked, l4.MaxTracked},
		{"rate", func(n int64) string { return fmt.Sprintf("'%d/s burst 1'", n) },
			func(l *l4.Limits, n int64) { l.Rate = rateLimit(conf.Rate{Count: int(n), Per: time.Second, Burst: 1}) },
			1, int64(rate.MaxCount)},
		{"client_rate", func(n int64) string { return fmt.Sprintf("'1/h burst %d'", n) },
			func(l *l4.Limits, n int64) {
				l.ClientRate = rateLimit(conf.Rate{Count: 1, Per: time.Hour, Burst: int(n)})
			},
			1, rate.MaxBurst},
	} {
		if tt.text == nil {
			tt.text = func(n int64) string { return fmt.Sprint(n) }
		}
		for n, allowed := range map[int64]bool{tt.from - 1: false, tt.from: true, tt.to: true, tt.to + 1: false} {
			_, err := limited(tt.key + " = " + tt.text(n))
			if (err == nil) != allowed {
				t.Errorf("%s of %d: error %v", tt.key, n, err)
			}
			var l l4.Limits
			tt.set(&l, n)
			if err := l.Validate(); allowed && err != nil || n > tt.to && err == nil {
				t.Errorf("%s of %d in the data plane: error %v", tt.key, n, err)
			}
		}
	}
}
