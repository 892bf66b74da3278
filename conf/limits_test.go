package conf

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLimits reads all keys of the table.
func TestLimits(t *testing.T) {
	doc, _ := with("listener.a", `limits = { client_sessions = 5, client_rate = "100/s burst 200", rate = "600/m", `+
		`session_bandwidth = "10MiB/s", client_bandwidth = "1GB/s", client_prefix_v4 = 24, client_prefix_v6 = 56, `+
		`tracked_clients = 8192, over_limit = "drop", dry_run = true }`)
	want := Limits{ClientSessions: 5, ClientRate: Rate{100, time.Second, 200}, Rate: Rate{600, time.Minute, 10},
		SessionBandwidth: 10 << 20, ClientBandwidth: 1e9, ClientPrefix4: 24, ClientPrefix6: 56, TrackedClients: 8192,
		OverLimit: "drop", DryRun: true}
	c := mustParse(t, doc)
	if got := c.Listeners[0].Limits; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	again := mustParse(t, string(c.Effective()))
	if d := c.Compare(again); len(d) > 0 || again.Listeners[0].Limits != want {
		t.Errorf("the effective configuration differs: %v", d)
	}
	none := Limits{ClientPrefix4: 32, ClientPrefix6: 64}
	for _, table := range []string{"{}",
		`{ rate = "", client_rate = "", session_bandwidth = "", client_bandwidth = "" }`} {
		doc, _ = with("listener.a", "limits = "+table)
		if got := mustParse(t, doc).Listeners[0].Limits; got != none {
			t.Errorf("%s: got %+v", table, got)
		}
	}
	next := mustParse(t, strings.Replace(string(c.Effective()), "10MiB/s", "20MiB/s", 1))
	want10to20 := `{[listener a limits session_bandwidth] "10MiB/s" "20MiB/s"}`
	if d := c.Compare(next); len(d) != 1 || fmt.Sprint(d[0]) != want10to20 {
		t.Errorf("differences %v", d)
	}
}

// TestLimitsMistakes holds what is said about mistakes in the table.
func TestLimitsMistakes(t *testing.T) {
	const (
		rates      = `needs a rate with a unit, such as "100/s" or "600/m burst 20"`
		rateBounds = `allowed is 1 or more, up to 1000000 a second, with a burst of 1 to 10000000`
		bandwidths = `needs bytes a second, such as "10MiB/s", or ""`
		bounds     = `allowed is 1KiB/s to 1TiB/s, or ""`
		language   = `profile is "", so it is not known what clients understand; needs profile = "postgres", "redis" or ` +
			`"dns" in the listener, or clients that begin with TLS: routes, or a table tls without starttls`
	)
	for _, tt := range []struct{ more, line, want string }{
		{``, `client_sessions = 1_000_001`, `found 1000001; allowed is 0 to 1000000`},
		{``, `client_sessions = -1`, `found -1; allowed is 0 to 1000000`},
		{``, `client_rate = "100"`, `found the string "100"; ` + rates},
		{``, `client_rate = 100`, `found the integer 100; ` + rates},
		{``, `client_rate = "100/s burst 0"`, `found "100/s burst 0"; ` + rateBounds},
		{``, `rate = "0/s"`, `found "0/s"; ` + rateBounds},
		{``, `session_bandwidth = "10MiB"`, `found the string "10MiB"; ` + bandwidths + `, did you mean "10MiB/s"?`},
		{``, `session_bandwidth = "10 MBps"`, `found the string "10 MBps"; ` + bandwidths + `, did you mean "10MB/s"?`},
		{``, `session_bandwidth = 1048576`, `found the integer 1048576; ` + bandwidths + `, did you mean "1MiB/s"?`},
		{``, `session_bandwidth = "1000"`, `found the string "1000"; ` + bandwidths + `, did you mean "1kB/s"?`},
		{``, `session_bandwidth = "10Mbit/s"`, `found the string "10Mbit/s"; ` + bandwidths},
		{``, `session_bandwidth = "0B/s"`, `found the string "0B/s"; ` + bandwidths},
		{``, `session_bandwidth = true`, `found true; ` + bandwidths},
		{``, `client_bandwidth = "1023B/s"`, `found "1023B/s"; ` + bounds},
		{``, `client_bandwidth = "2TiB/s"`, `found "2TiB/s"; ` + bounds},
		{``, `client_bandwidth = "1KiB/s"`, ``},
		{``, `client_prefix_v4 = 0`, `found 0; allowed is 1 to 32`},
		{``, `client_prefix_v6 = 129`, `found 129; allowed is 1 to 128`},
		{``, `tracked_clients = 8191`, `found 8191; allowed is 8192 to 10000000, or 0`},
		{``, `over_limit = "refuse"`, `found "refuse"; allowed is "", "reset", "close", "drop", "delay" or "protocol"`},
		{``, `over_limit = "protocol"`, `found "protocol"; ` + language},
		{`profile = "redis"`, `over_limit = "protocol"`, ``},
		{`protocol = "udp"`, `over_limit = "reset"`,
			`found "reset"; protocol is "udp", and datagrams over a limit are dropped; needs "drop" or ""`},
		{`protocol = "udp"`, `over_limit = "drop"`, ``},
		{`protocol = "udp"`, `client_sessions = 5`, `found 5; protocol is "udp"; needs client_flows of the listener instead`},
		{`protocol = "udp"`, `client_sessions = 0`, ``},
		{"protocol = \"tcp+udp\"\nprofile = \"dns\"\ncache = {}", "client_sessions = 5\nover_limit = \"protocol\"", ``},
	} {
		doc := profiled(tt.more, "[listener.a.limits]", tt.line)
		key, _, _ := strings.Cut(tt.line, " ")
		if tt.want == "" {
			wantErrors(t, doc)
			continue
		}
		wantErrors(t, doc, fmt.Sprintf("lb.toml:6: listener.a.limits.%s: %s", key, tt.want))
	}
}

// TestLimitsWarnings holds which limits change nothing, or not what they seem to.
func TestLimitsWarnings(t *testing.T) {
	const (
		unix  = `clients of a Unix socket have no address, by which one could be told from another: this key changes nothing`
		alone = `there is no limit for one client: this key changes nothing`
	)
	for _, tt := range []struct{ address, line, want string }{
		{``, `client_sessions = 5`, ``},
		{`"unix:/run/a"`, `client_sessions = 5`, `client_sessions: ` + unix},
		{`["unix:/run/a", ":2"]`, `client_sessions = 5`, ``},
		{`"unix:/run/a"`, `rate = "1/s"`, ``},
		{``, "client_bandwidth = \"1MiB/s\"\nsession_bandwidth = \"512KiB/s\"", ``},
		{``, "session_bandwidth = \"1MiB/s\"\nclient_bandwidth = \"1MiB/s\"",
			`session_bandwidth: found "1MiB/s"; client_bandwidth, 1MiB/s, is not above it: this key changes nothing`},
		{``, `client_prefix_v4 = 24`, `client_prefix_v4: found 24; ` + alone},
		{``, `client_prefix_v6 = 48`, `client_prefix_v6: found 48; ` + alone},
		{``, "client_prefix_v4 = 24\ntracked_clients = 8192", ``},
		{``, "client_prefix_v4 = 24\nclient_rate = \"1/s\"", ``},
		{``, "over_limit = \"delay\"\nrate = \"1/s\"", ``},
		{``, "over_limit = \"delay\"\nclient_bandwidth = \"1MiB/s\"", ``},
		{``, "over_limit = \"delay\"\nclient_rate = \"1/s\"",
			`over_limit: found "delay"; clients over client_rate are reset: ` +
				`the kernel's queue cannot hold one client back, and let the next one pass`},
	} {
		doc := profiled("", "[listener.a.limits]", tt.line)
		if tt.address != "" {
			doc = strings.Replace(doc, `":1"`, tt.address, 1)
		}
		got := mustParse(t, doc).Warnings()
		want := "lb.toml:6: listener.a.limits." + tt.want
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || got[0] != want) {
			t.Errorf("%s, %s: got %q, want %q", tt.address, tt.line, got, tt.want)
		}
	}
}

func TestBandwidth(t *testing.T) {
	for text, want := range map[string]Bandwidth{
		"": 0, "1B/s": 1, "10MiB/s": 10 << 20, "1kB/s": 1000, "1TiB/s": 1 << 40,
	} {
		b := Bandwidth(7)
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want || b.String() != text {
			t.Errorf("%q gives %d (%q), %v", text, b, b, err)
		}
	}
	for _, text := range []string{"10MiB", "10", "/s", "MiB/s", "-1B/s", "1.5MiB/s", "1MiB/m", "1MiB/s/s", " 1B/s",
		"99999999TiB/s"} {
		b := Bandwidth(7)
		if err := b.UnmarshalText([]byte(text)); err == nil || b != 7 {
			t.Errorf("%q gives %d, %v", text, b, err)
		}
	}
}
