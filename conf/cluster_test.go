package conf

import (
	"strings"
	"testing"
)

func TestPatroniMistakes(t *testing.T) {
	const head = "listener.a = { pool = 'p', address = ':1' }\n[pool.p.discovery]\ntype = 'patroni'\n"
	const good = "endpoints = ['https://10.0.0.1:2379']\nscope = 'main'\n"
	const needs = `needs a URL with a host and a port, such as "https://10.0.0.1:2379"`
	for _, tt := range []struct {
		doc  string
		want []string // each behind its line
	}{
		{good, nil},
		{good + "namespace = 'db'\nrest = true\nmax_lag = '16MiB'\nuser = 'u'\npassword_file = 'p'\nverify = false\n" +
			"server_name = 'etcd.internal'\nca = 'ca.pem'\ncert = 'c.pem'\nkey = 'k.pem'\n", nil},
		{"endpoints = ['http://etcd-1.internal:2379', 'http://[2001:db8::1]:2379/']\nscope = 'main/0'\n", nil},
		{"", []string{`2: endpoints: missing; needs the addresses to ask, such as ["https://10.0.0.1:2379"] or ["10.0.0.1:26379"]`,
			`2: scope: missing; needs the name of the cluster, as scope in Patroni's configuration`}},
		{"scope = 'main'\nendpoints = ['10.0.0.1:2379', 'https://10.0.0.1', 'ftp://h:1', 'https://u:p@h:1', 'https://h:0', " +
			"'https://:1', 'https://a..b:1', 'https://h:1/v3', 'https://0.0.0.0:1']\n", []string{
			`5: endpoints[0]: found "10.0.0.1:2379"; ` + needs,
			`5: endpoints[1]: found "https://10.0.0.1"; the port is missing; ` + needs,
			`5: endpoints[2]: found "ftp://h:1"; the scheme is "ftp"; ` + needs,
			`5: endpoints[3]: found "https://u:xxxxx@h:1"; a user does not belong here; needs user and password_file beside endpoints`,
			`5: endpoints[4]: found "https://h:0"; the port is "0"; allowed is 1 to 65535`,
			`5: endpoints[5]: found "https://:1"; the host is missing; ` + needs,
			`5: endpoints[6]: found "https://a..b:1"; "a..b" is neither an IP address nor a host name; ` + needs,
			`5: endpoints[7]: found "https://h:1/v3"; only host and port belong behind the scheme; ` + needs,
			`5: endpoints[8]: found "https://0.0.0.0:1"; this address can be listened on but not connected to`}},
		{"scope = 'main'\nendpoints = ['http://10.0.0.1:1', 'https://10.0.0.2:1', 'http://10.0.0.1:1']\nca = 'x'\n", []string{
			`5: endpoints[1]: found "https://10.0.0.2:1"; another endpoint is "http://10.0.0.1:1"; needs endpoints that all begin with "https://", or all with "http://"`,
			`5: endpoints[2]: found "http://10.0.0.1:1"; endpoints[0] is the same`}},
		{"scope = 'main'\nendpoints = ['http://10.0.0.1:1']\nca = 'x'\nverify = false\n", []string{
			`6: ca: found "x"; the discovery does not speak TLS; needs endpoints that begin with "https://"`,
			`7: verify: found false; the discovery does not speak TLS; needs endpoints that begin with "https://"`}},
		{"scope = ''\nendpoints = ['http://10.0.0.1:1']\nnamespace = '//'\n", []string{
			`4: scope: found ""; needs the name of the cluster, as scope in Patroni's configuration; of a Citus cluster with its group, such as "main/0"`,
			`6: namespace: found "//"; needs the namespace as in Patroni's configuration, such as "/service/"`}},
		{good + "user = 'u'\ncert = 'c'\n", []string{
			`6: user: found "u"; its password_file is missing; needs both user and password_file, or none`,
			`7: cert: found "c"; its key is missing; needs both cert and key, or none`}},
		{good + "password_file = 'u'\nkey = 'c'\nserver_name = 'a b'\n", []string{
			`6: password_file: found "u"; its user is missing; needs both user and password_file, or none`,
			`7: key: found "c"; its cert is missing; needs both cert and key, or none`,
			`8: server_name: found "a b"; this is neither an IP address nor a host name`}},
		{good + "name = 'h'\nmaster = 'm'\n", []string{
			`6: name: found the string "h"; type is "patroni"; allowed if type is "dns" or "srv"`,
			`7: master: found the string "m"; type is "patroni"; allowed if type is "sentinel"`}},
	} {
		var want []string
		for _, w := range tt.want {
			line, rest, _ := strings.Cut(w, " ")
			want = append(want, "lb.toml:"+line+" pool.p.discovery."+strings.NewReplacer(
				"; endpoints[0] is", "; pool.p.discovery.endpoints[0] is").Replace(rest))
		}
		wantErrors(t, head+tt.doc, want...)
	}
}

func TestPatroniWarnings(t *testing.T) {
	const doc = "listener.a = { pool = 'p', address = ':1' }\n[pool.p.discovery]\ntype = 'patroni'\nscope = 'main'\n"
	for _, tt := range []struct {
		doc  string
		want []string
	}{
		{"endpoints = ['https://10.0.0.1:1']\n[pool.p.health]\ntype = 'postgres'\nuser = 'u'\nrole = 'primary'\n", nil},
		{"endpoints = ['https://10.0.0.1:1']\n[pool.p.health]\ntype = 'all_of'\nchecks = [{ type = 'tcp' }, " +
			"{ type = 'postgres', user = 'u', role = 'replica' }]\n", nil},
		{"endpoints = ['https://10.0.0.1:1']\nverify = false\n[pool.p.health]\ntype = 'postgres'\nuser = 'u'\n", []string{
			`6: pool.p.discovery.verify: found false; the discovery accepts any certificate: whoever answers in place of the endpoints decides where clients go`,
			`7: pool.p.health.role: found "any"; clients reach the primary and the replicas alike, and writes fail on a replica: needs a check with role "primary" or "replica"`}},
		{"endpoints = ['http://10.0.0.1:1']\nuser = 'u'\npassword_file = 'p'\n", []string{
			`2: pool.p.discovery: found "patroni"; the pool has no table health, whose role says which members serve: clients reach the primary and the replicas alike, and writes fail on a replica`,
			`6: pool.p.discovery.user: found "u"; the password is sent without TLS: everybody on the way can read it`}},
	} {
		var got []string
		for _, w := range mustParse(t, doc+tt.doc).Warnings() {
			got = append(got, strings.TrimPrefix(w, "lb.toml:"))
		}
		if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s\nwarnings\n%s\nwant\n%s", tt.doc, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}
