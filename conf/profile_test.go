package conf

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// profiled returns a configuration with one listener that has these lines.
func profiled(lines ...string) string {
	return "[listener.a]\naddress = \":1\"\npool = \"p\"\n" + strings.Join(lines, "\n") +
		"\n[pool.p]\nbackends = [\"10.0.0.1:1\"]\n"
}

// TestProfile holds which defaults a profile sets, and that keys of the file win, one by one.
func TestProfile(t *testing.T) {
	s := Duration(time.Second)
	plain := Listener{RefuseWith: "reset", HalfCloseTimeout: 60 * s, UserTimeout: 120 * s,
		Keepalive: Keepalive{Idle: 60 * s, Interval: 10 * s, Count: 6}}
	database := Listener{RefuseWith: "protocol", HalfCloseTimeout: 10 * s, UserTimeout: 60 * s,
		Keepalive: Keepalive{Idle: 30 * s, Interval: 10 * s, Count: 3}}
	dns := plain
	dns.RefuseWith = "protocol"
	changed := database
	changed.RefuseWith, changed.UserTimeout, changed.Keepalive.Idle = "close", 0, 5*s
	for _, tc := range []struct {
		lines []string
		want  Listener
	}{
		{nil, plain},
		{[]string{`profile = "postgres"`}, database},
		{[]string{`profile = "redis"`}, database},
		{[]string{`profile = "dns"`}, dns},
		{[]string{`profile = "dns"`, `protocol = "udp"`}, plain}, // none of these keys is for UDP
		{[]string{`profile = "redis"`, `refuse_with = "close"`, `user_timeout = "0s"`, `keepalive = { idle = "5s" }`},
			changed},
	} {
		c, err := Parse("lb.toml", []byte(profiled(tc.lines...)))
		if err != nil {
			t.Fatal(err)
		}
		l := c.Listeners[0]
		got := Listener{RefuseWith: l.RefuseWith, HalfCloseTimeout: l.HalfCloseTimeout, UserTimeout: l.UserTimeout,
			Keepalive: l.Keepalive}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: got %+v, expected %+v", tc.lines, got, tc.want)
		}
	}
}

// TestProfileMistakes holds what is wrong with a profile, and with a refusal that needs one.
func TestProfileMistakes(t *testing.T) {
	for _, tc := range []struct{ lines, want string }{
		{`refuse_with = "protocol"`,
			`lb.toml:4: listener.a.refuse_with: found "protocol"; profile is "", so it is not known what clients understand; needs profile = "postgres", "redis" or "dns" beside it, or clients that begin with TLS: routes, or a table tls without starttls`},
		{"profile = \"postgres\"\nprotocol = \"udp\"",
			`lb.toml:4: listener.a.profile: found "postgres"; protocol is "udp"; needs protocol = "tcp", or another profile`},
		{"profile = \"dns\"\nprotocol = \"udp\"\nrefuse_with = \"protocol\"",
			`lb.toml:6: listener.a.refuse_with: found the string "protocol"; protocol is "udp"; allowed if protocol is "tcp"`},
		{"profile = \"pg\"\nrefuse_with = \"protocol\"",
			`lb.toml:4: listener.a.profile: found "pg"; allowed is "", "postgres", "redis" or "dns"`},
	} {
		_, err := Parse("lb.toml", []byte(profiled(tc.lines)))
		if err == nil || err.Error() != tc.want {
			t.Errorf("%q: got %v, expected %s", tc.lines, err, tc.want)
		}
	}
}

// TestEffective holds that Effective means the same as the file, and says where each value is from.
func TestEffective(t *testing.T) {
	names := "[listener.\"a.b\"]\naddress = \":2\"\npool = \"p\"\n" +
		"[pool.e]\nbackends = []\n[pool.e.discovery]\ntype = \"file\"\nfile = \"a\\\\b\\\".json\"\n"
	for _, text := range []string{string(Reference), profiled(`profile = "postgres"`), profiled() + names} {
		c, err := Parse("lb.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		effective := c.Effective()
		again, err := Parse("lb.toml", effective)
		if err != nil {
			t.Fatalf("%v in\n%s", err, effective)
		}
		if d := c.Compare(again); len(d) > 0 {
			t.Errorf("differences %v in\n%s", d, effective)
		}
		if strings.Contains(string(again.Effective()), "# default") {
			t.Errorf("keys are missing in\n%s", effective)
		}
	}
	c, err := Parse("lb.toml", []byte(profiled(`profile = "postgres"`, `user_timeout = "5m"`)))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"[listener.a]\naddress = \":1\"\n", "\nbacklog = 4096 # default\n", "\nuser_timeout = \"5m\"\n",
		"\nrefuse_with = \"protocol\" # profile \"postgres\"\n", "\nidle = \"30s\" # profile \"postgres\"\n",
		"\nbackends = [\n  { name = \"10.0.0.1:1\", address = \"10.0.0.1:1\", weight = 1,",
	} {
		if !strings.Contains(string(c.Effective()), want) {
			t.Errorf("no %q in\n%s", want, c.Effective())
		}
	}
}

// TestProfileWantsCheck holds that a check without a type is warned about where a profile says what clients speak, and
// that its type stays.
func TestProfileWantsCheck(t *testing.T) {
	const warning = `lb.toml:7: pool.p.health.type: missing, so the check only makes a connection; listener.a has the profile "redis", and a check of that type sees whether a backend serves its clients`
	for _, tc := range []struct{ profile, health, want string }{
		{"redis", "", warning},
		{"", "", ""},
		{"redis", `type = "tcp"`, ""},
		{"redis", `type = "redis"`, ""},
		{"redis", `steps = [{ send = "PING\r\n" }]`, ""},
	} {
		c := mustParse(t, profiled(`profile = "`+tc.profile+`"`)+"[pool.p.health]\n"+tc.health+"\n")
		got := strings.Join(c.Warnings(), "\n")
		if !strings.Contains(got, tc.want) || tc.want == "" && got != "" {
			t.Errorf("profile %q, %s: warnings %q", tc.profile, tc.health, got)
		}
		if got := c.Pools[0].Health.Type; got != "tcp" && !strings.Contains(tc.health, got) {
			t.Errorf("profile %q, %s: the type is %q", tc.profile, tc.health, got)
		}
	}
}
