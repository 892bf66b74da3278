package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/limeload/limeload-l4/healthcheck"
)

// said writes an answer for comparison.
func (a AgentAnswer) said() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if a.Mode != "" {
		add("mode %s", a.Mode)
	}
	if a.Health != "" {
		add("health %s", a.Health)
	}
	if a.Weight != nil {
		add("weight %d", *a.Weight)
	}
	if a.MaxSessions != nil {
		add("limit %d", *a.MaxSessions)
	}
	if a.Reason != "" {
		add("reason %s", a.Reason)
	}
	if a.Unknown != "" {
		add("unknown %s", a.Unknown)
	}
	return strings.Join(parts, ", ")
}

// TestParseAgent holds what words mean.
func TestParseAgent(t *testing.T) {
	for line, want := range map[string]string{
		"":                            "",
		"75%":                         "weight 75",
		"0%":                          "weight 0",
		"100% 20%":                    "weight 20",
		"99999999999%":                "weight 2147483647",
		"ready":                       "mode ready",
		"READY, Up 50%":               "mode ready, health up, weight 50",
		"drain\tmaxconn:30":           "mode drain, limit 30",
		"maint,drain":                 "mode drain",
		"MAXCONN:0":                   "limit 0",
		"down #  disk full, sorry":    "health down, reason disk full, sorry",
		"down#full":                   `unknown "down#full"`,
		"up # fine":                   "health up",
		"stopped":                     "health down",
		"fail failed":                 "health down",
		"down #\x1b[31mred":           `health down, reason \x1b[31mred`,
		"75 % maxconn:x maxconn: -5%": `unknown "75"`,
		" , ,ready , ":                "mode ready",
		"up down":                     "health down",
		"\xff":                        `unknown "\xff"`,
	} {
		if got := ParseAgent(line).said(); got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

// TestAskAgent holds what an agent on a socket is understood to say, and what is a failure.
func TestAskAgent(t *testing.T) {
	for name, tt := range map[string]struct {
		send   []string // in pieces
		want   string
		failed string
	}{
		"a line":           {[]string{"50% ready\n"}, "mode ready, weight 50", ""},
		"with CR":          {[]string{"up\r\nrest"}, "health up", ""},
		"in pieces":        {[]string{"dr", "ain", "\n"}, "mode drain", ""},
		"an empty line":    {[]string{"\n"}, "", ""},
		"nothing":          {nil, "", "closed before the answer"},
		"a line cut short": {[]string{"maxconn:10"}, "", `the agent's line has no end: "maxconn:10"`},
		"a long line":      {[]string{strings.Repeat("up ", 100) + "\n"}, "", "the agent's line has more than 256 bytes"},
		"the longest line": {[]string{strings.Repeat(" ", 253) + "up\n"}, "health up", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				for _, piece := range tt.send {
					_, _ = c.Write([]byte(piece))
					time.Sleep(2 * time.Millisecond)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			at := netip.MustParseAddrPort(l.Addr().String())
			a, err := AskAgent(ctx, healthcheck.Target{ID: "a", Addr: at, Exact: true})
			switch {
			case tt.failed != "" && (err == nil || err.Error() != tt.failed):
				t.Errorf("error %v, want %q", err, tt.failed)
			case tt.failed == "" && (err != nil || a.said() != tt.want):
				t.Errorf("%s, error %v, want %s", a.said(), err, tt.want)
			}
		})
	}
	refusing := netip.MustParseAddrPort("127.0.0.1:1")
	_, err := AskAgent(t.Context(), healthcheck.Target{ID: "a", Addr: refusing, Exact: true})
	if err == nil || errors.Is(err, healthcheck.ErrInconclusive) {
		t.Errorf("nobody listens: error %v", err)
	}
}

// FuzzAgent reads hostile lines: numbers are in range, and all texts are short and printable.
func FuzzAgent(f *testing.F) {
	for _, seed := range []string{"75% ready up maxconn:30 # ok", "down #x\n", "MAINT,drain\t0%", "%", "maxconn:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line, err := readAgentLine(strings.NewReader(text))
		if err != nil {
			return
		}
		a := ParseAgent(line)
		for _, n := range []*int{a.Weight, a.MaxSessions} {
			if n != nil && *n < 0 {
				t.Errorf("%q: a number is %d", text, *n)
			}
		}
		for _, words := range []string{a.Reason, a.Unknown} {
			if len(words) > maxAgentLine || !utf8.ValidString(words) || strings.ContainsFunc(words, func(r rune) bool {
				return r < ' ' || r > '~'
			}) {
				t.Errorf("%q: not printable: %q", text, words)
			}
		}
		if a.Reason != "" && a.Health != "down" {
			t.Errorf("%q: a reason of nothing", text)
		}
	})
}
