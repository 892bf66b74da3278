package conf

import (
	"strings"
	"testing"
)

func TestSentinelMistakes(t *testing.T) {
	const (
		head      = "listener.a = { pool = 'p', address = ':1' }\n[pool.p.discovery]\n"
		good      = "type = 'sentinel'\nendpoints = ['s1:26379', '[2001:db8::1]:26379', '10.0.0.3:26379']\nmaster = 'mymaster'\n"
		needs     = `; needs "HOST:PORT" or "[IPV6]:PORT" of a Sentinel, such as "10.0.0.1:26379"`
		noTLS     = `; the discovery does not speak TLS; needs tls = true`
		badMaster = `; needs the name after "sentinel monitor" in the Sentinels' configuration: letters, digits, '.', '-' or '_'`
	)
	endpoints := func(list string) string { return "type = 'sentinel'\nmaster = 'm'\nendpoints = [" + list + "]\n" }
	for _, tt := range []struct {
		doc  string
		want []string
	}{
		{good, nil},
		{good + "user = 'u'\npassword_file = '/p'\n", nil},
		{good + "password_file = '/p'\n", nil},
		{good + "tls = true\nverify = false\nserver_name = 'x'\nca = '/ca'\ncert = '/c'\nkey = '/k'\n", nil},
		{"type = 'sentinel'\n", []string{
			`2: endpoints: missing; needs the addresses to ask, such as ["https://10.0.0.1:2379"] or ["10.0.0.1:26379"]`,
			`2: master: missing; needs the name of the master that the sentinels watch, such as "mymaster"`}},
		{endpoints(""), []string{"5: endpoints: found an empty list; needs the addresses to ask, such as [\"https://10.0.0.1:2379\"] or [\"10.0.0.1:26379\"]"}},
		{endpoints("'s1'"), []string{`5: endpoints[0]: found "s1"; the port is missing` + needs}},
		{endpoints("'s1:26379', 'redis://s2:1'"), []string{
			`5: endpoints[1]: found "redis://s2:1"; this is a URL` + needs + `, and tls = true for TLS`}},
		{endpoints("'S1:1', 's2:1', 's1:1'"), []string{
			`5: endpoints[2]: found "s1:1"; pool.p.discovery.endpoints[0] is the same`}},
		{endpoints("'[::1]:1', '[0::1]:1'"), []string{`5: endpoints[1]: found "[0::1]:1"; pool.p.discovery.endpoints[0] is the same`}},
		{endpoints("'unix:/s'"), []string{`5: endpoints[0]: found "unix:/s"; a Sentinel has no Unix socket` + needs}},
		{endpoints("':26379'"), []string{`5: endpoints[0]: found ":26379"; the host is missing` + needs}},
		{endpoints("'0.0.0.0:1'"), []string{
			`5: endpoints[0]: found "0.0.0.0:1"; this address can be listened on but not connected to`}},
		{endpoints("'s1:0'"), []string{`5: endpoints[0]: found "s1:0"; the port is "0"; allowed is 1 to 65535`}},
		{strings.Replace(good, "mymaster", "my master", 1), []string{`5: master: found "my master"` + badMaster}},
		{strings.Replace(good, "mymaster", "", 1), []string{`5: master: found ""` + badMaster}},
		{good + "user = 'u'\n", []string{`6: user: found "u"; its password_file is missing; needs both user and ` +
			`password_file, or only password_file, or none`}},
		{good + "verify = false\nserver_name = 'x'\nca = '/ca'\n", []string{
			`6: verify: found false` + noTLS, `7: server_name: found "x"` + noTLS, `8: ca: found "/ca"` + noTLS}},
		{good + "tls = true\ncert = '/c'\n", []string{
			`7: cert: found "/c"; its key is missing; needs both cert and key, or none`}},
		{good + "scope = 'x'\n", []string{`6: scope: found the string "x"; type is "sentinel"; allowed if type is "patroni"`}},
	} {
		var want []string
		for _, w := range tt.want {
			line, rest, _ := strings.Cut(w, " ")
			want = append(want, "lb.toml:"+line+" pool.p.discovery."+rest)
		}
		wantErrors(t, head+tt.doc, want...)
	}
}

func TestSentinelWarnings(t *testing.T) {
	for endpoints, want := range map[string]string{
		"'s1:1'": "lb.toml:6: pool.p.discovery.endpoints: found 1 of them; more than half must agree: with fewer than 3, " +
			"nobody names the master while one is down",
		"'s1:1', 's2:1', 's3:1'": "",
	} {
		c := mustParse(t, "listener.a = { pool = 'p', address = ':1' }\npool.p.health = { type = 'redis', role = 'primary' }\n"+
			"[pool.p.discovery]\ntype = 'sentinel'\nmaster = 'm'\nendpoints = ["+endpoints+"]\n")
		if got := strings.Join(c.Warnings(), "\n"); got != want {
			t.Errorf("%s: warnings\n%s, want\n%s", endpoints, got, want)
		}
	}
}
