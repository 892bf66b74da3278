package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// soon is a time that is printed as "1h30m" however slow the test is.
func soon() *time.Time {
	at := time.Now().Add(90*time.Minute + 30*time.Second)
	return &at
}

func fixtureRules() []admin.AccessRule {
	return []admin.AccessRule{
		{Prefix: "192.0.2.0/24", Action: "deny", Added: before(), Until: soon(), Comment: "scans us"},
		{Prefix: "2001:db8::/32", Action: "deny", Added: before()},
		{Prefix: "192.0.2.7/32", Action: "allow", Listener: "main", Added: before(), Comment: "monitor\u202e"},
		{Prefix: "10.0.0.0/8", Action: "allow", Listener: "old\x1b[2J", Gone: true, Added: before()},
	}
}

// addRule adds a rule.
func addRule(*http.Request) any {
	return admin.AccessRule{Prefix: "192.0.2.0/24", Action: "deny", Listener: "main", Added: time.Now(), Until: soon()}
}

// removeRule removes a rule of the fixture.
func removeRule(r *http.Request) any {
	q := r.URL.Query()
	if slices.ContainsFunc(fixtureRules(), func(a admin.AccessRule) bool {
		return a.Prefix == q.Get("prefix") && a.Listener == q.Get("listener")
	}) {
		return nil
	}
	return &admin.Problem{Type: "/problems/unknown-access-rule", Status: http.StatusNotFound,
		Detail: q.Get("prefix") + " at every listener: there is no such access rule"}
}

func fixtureAccess() admin.AccessCheck {
	rules := fixtureRules()
	return admin.AccessCheck{Address: "192.0.2.7", Listeners: []admin.AccessDecision{
		{Listener: "dns", DecidedBy: "rule", Prefix: rules[0].Prefix, Rule: &rules[0]},
		{Listener: "internal", Allowed: true, DecidedBy: "list", Prefix: "192.0.2.7/32"},
		{Listener: "main", Allowed: true, DecidedBy: "default"},
	}}
}

func fixtureClients() admin.ClientList {
	return admin.ClientList{
		Clients: []admin.TrackedClient{
			{Listener: "main", Protocol: "tcp", Client: "192.0.2.7/32", Sessions: 131, Rate: 220.4, BytesIn: 912,
				BytesOut: 20480, Refused: 7, Seen: before()},
			{Listener: "dns", Protocol: "udp", Client: "2001:db8:0:1::/64", Rate: 0.25, Seen: before()},
			{Listener: "both\x1b[2J", Protocol: "udp", Client: "198.51.100.0/24", Rate: 3, Seen: before()},
		},
		Tables: []admin.ClientTable{
			{Listener: "both\x1b[2J", Protocol: "tcp"}, {Listener: "both\x1b[2J", Protocol: "udp"},
			{Listener: "dns", Protocol: "udp", Tracked: true, Known: 1, Max: 1000},
			{Listener: "in.ternal", Protocol: "tcp"},
			{Listener: "main", Protocol: "tcp", Tracked: true, Known: 1, Max: 1000},
		},
	}
}

// TestAccessOutput checks what the commands print for people. Nothing in it controls the terminal.
func TestAccessOutput(t *testing.T) {
	startFake(t)
	for _, test := range []struct{ args, want string }{
		{"access", `
prefix         action  listener           expires in  comment
192.0.2.0/24   deny    every                   1h30m  scans us
2001:db8::/32  deny    every                       -  -
192.0.2.7/32   allow   main                        -  monitor\u202e
10.0.0.0/8     allow   old\x1b[2J (gone)           -  -
`},
		{"access deny 192.0.2.0/24 --listener main --for 90m", `
192.0.2.0/24 is denied at listener main, for 1h30m
`},
		{"access remove 192.0.2.0/24 2001:db8::/32", `
192.0.2.0/24 has no rule any more at every listener
2001:db8::/32 has no rule any more at every listener
`},
		{"access check 192.0.2.7", `
listener  access   decided by       prefix        expires in  comment
dns       denied   a rule           192.0.2.0/24       1h30m  scans us
internal  allowed  its access list  192.0.2.7/32           -  -
main      allowed  default          -                      -  -
`},
		{"clients", `
listener           client             sessions   rate     in       out  refused      seen
main               192.0.2.7/32            131  220/s  912 B  20.0 KiB        7  3d4h ago
dns                2001:db8:0:1::/64         0  0.2/s    0 B       0 B        0  3d4h ago
both\x1b[2J (udp)  198.51.100.0/24           0    3/s    0 B       0 B        0  3d4h ago
listener "both\x1b[2J" does not track clients: give it a [listener."both\x1b[2J".limits] table with a client limit or tracked_clients
listener "in.ternal" does not track clients: give it a [listener."in.ternal".limits] table with a client limit or tracked_clients
`},
	} {
		code, stdout, stderr := command(t, strings.Fields(test.args)...)
		if code != exitDone || stdout != strings.TrimPrefix(test.want, "\n") || stderr != "" {
			t.Errorf("%s: exit code %d\n%s%swant%s", test.args, code, stdout, stderr, test.want)
		}
	}
	allowed := admin.AccessRule{Prefix: "192.0.2.7/32", Action: "allow"}
	want := "192.0.2.7/32 is allowed at every listener, until the rule is removed"
	if got := ruleText(allowed); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestAccessStops: at the first prefix that fails, the command ends, and says how many were done before.
func TestAccessStops(t *testing.T) {
	f := startFake(t)
	code, stdout, stderr := command(t, "access", "remove", "192.0.2.0/24", "198.51.100.7", "2001:db8::/32")
	if code != exitFailed || stdout != "192.0.2.0/24 has no rule any more at every listener\n" ||
		stderr != "198.51.100.7 at every listener: there is no such access rule; "+
			"1 of 3 prefixes was done before; `limeload-l4 access` lists them\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if n := len(f.requests()); n != 2 {
		t.Errorf("%d requests", n)
	}
	refusing(t, &admin.Problem{Type: "/problems/unknown-listener", Status: http.StatusNotFound,
		Detail: `listener "mian": there is no such listener; there are dns, main`})
	code, _, stderr = command(t, "access", "deny", "192.0.2.7", "--listener", "mian")
	if code != exitFailed || !strings.Contains(stderr, "there are dns, main") {
		t.Errorf("an unknown listener: exit code %d, %s", code, stderr)
	}
}

// TestPerSecond checks how rates are printed.
func TestPerSecond(t *testing.T) {
	for rate, want := range map[float64]string{0: "0/s", 0.04: "0/s", 0.5: "0.5/s", 99.94: "99.9/s", 12345.6: "12346/s"} {
		if got := perSecond(rate); got != want {
			t.Errorf("%v: %s, want %s", rate, got, want)
		}
	}
	if fmt.Sprint(admin.ClientOrders()) != "[rate sessions bytes]" {
		t.Errorf("the help of --sort has other orders than %q", admin.ClientOrders())
	}
}
