package conf

import (
	"strings"
	"testing"
)

const fleetHead = "listener.a = { pool = 'p', address = ':1' }\npool.p = { backends = [{ address = '10.0.0.1:1' }] }\n[fleet]\n"

func TestFleetMistakes(t *testing.T) {
	const good = "name = 'edge'\nendpoints = ['https://10.0.0.1:2379']\n"
	const plain = "name = 'edge'\nendpoints = ['http://10.0.0.1:2379']\n"
	const needs = `needs a URL with a host and a port, such as "https://10.0.0.1:2379"`
	const names = `; needs 1 to 64 letters, digits, '_', '-' or '.'`
	for _, tt := range []struct {
		doc  string
		want []string // each behind its line
	}{
		{good, nil},
		{plain + "node = 'lb-1.internal'\nprefix = 'l4'\nuser = 'u'\npassword_file = 'p'\ncheck_share = 2\n" +
			"share_limits = 'traffic'\nticket_keys = false\n", nil},
		{good + "verify = false\nserver_name = 'etcd'\nca = 'ca.pem'\ncert = 'c.pem'\nkey = 'k.pem'\n", nil},
		{"", []string{
			`3: endpoints: missing; needs the members of etcd, such as ["https://10.0.0.1:2379"]`,
			`3: name: missing; needs the name of the fleet, the same on all of its nodes, such as "edge"`}},
		{"name = ''\nnode = 'a b'\nendpoints = []\n", []string{
			`4: name: found ""` + names, `5: node: found "a b"` + names,
			`6: endpoints: found an empty list; needs the members of etcd, such as ["https://10.0.0.1:2379"]`}},
		{"name = 'a/b'\nendpoints = ['10.0.0.1:2379']\nca = 'x'\n", []string{
			`4: name: found "a/b"` + names, `5: endpoints[0]: found "10.0.0.1:2379"; ` + needs}},
		{"name = 'edge'\nendpoints = ['https://10.0.0.1:1', 'http://10.0.0.2:1']\n", []string{
			`5: endpoints[1]: found "http://10.0.0.2:1"; another endpoint is "https://10.0.0.1:1"; needs endpoints that all begin with "https://", or all with "http://"`}},
		{plain + "ca = 'x'\nverify = false\n", []string{
			`6: ca: found "x"; the fleet does not speak TLS; needs endpoints that begin with "https://"`,
			`7: verify: found false; the fleet does not speak TLS; needs endpoints that begin with "https://"`}},
		{good + "prefix = '//'\nuser = 'u'\ncert = 'c'\n", []string{
			`6: prefix: found "//"; needs the beginning of keys in etcd, such as "/limeload/"`,
			`7: user: found "u"; its password_file is missing; needs both user and password_file, or none`,
			`8: cert: found "c"; its key is missing; needs both cert and key, or none`}},
		{good + "prefix = ''\npassword_file = 'p'\nkey = 'k'\nserver_name = 'a b'\n", []string{
			`6: prefix: found ""; needs the beginning of keys in etcd, such as "/limeload/"`,
			`7: password_file: found "p"; its user is missing; needs both user and password_file, or none`,
			`8: key: found "k"; its cert is missing; needs both cert and key, or none`,
			`9: server_name: found "a b"; this is neither an IP address nor a host name`}},
		{good + "check_share = 1\nshare_limits = 'node'\nticket_keys = 'yes'\n", []string{
			`6: check_share: found 1; allowed is 2 to 100, or 0`,
			`7: share_limits: found "node"; allowed is "nodes", "traffic" or "none", did you mean "nodes"?`,
			`8: ticket_keys: found the string "yes"; needs true or false`}},
		{good + "nodes = 3\n", []string{`6: nodes: unknown key, did you mean "node"?`}},
	} {
		var want []string
		for _, w := range tt.want {
			line, rest, _ := strings.Cut(w, " ")
			want = append(want, "lb.toml:"+line+" fleet."+rest)
		}
		wantErrors(t, fleetHead+tt.doc, want...)
	}
	wantErrors(t, strings.TrimSuffix(fleetHead, "[fleet]\n")+"fleet = 'edge'\n",
		`lb.toml:3: fleet: found the string "edge"; needs a table`)
}

func TestFleetWarnings(t *testing.T) {
	for _, tt := range []struct {
		doc  string
		want []string
	}{
		{"name = 'e'\nendpoints = ['https://10.0.0.1:1']\nuser = 'u'\npassword_file = 'p'\n", nil},
		{"name = 'e'\nendpoints = ['https://10.0.0.1:1']\nverify = false\n", []string{
			`6: fleet.verify: found false; this node accepts any certificate: whoever answers in place of the endpoints decides where clients go`}},
		{"name = 'e'\nendpoints = ['http://10.0.0.1:1']\nuser = 'u'\npassword_file = 'p'\n", []string{
			`6: fleet.user: found "u"; the password is sent without TLS: everybody on the way can read it`}},
		{"name = 'e'\nendpoints = ['https://10.0.0.1:1']\ncheck_share = 2\n", []string{
			`6: fleet.check_share: found 2; no pool has a table health, so there are no checks to share`}},
	} {
		var got []string
		for _, w := range mustParse(t, fleetHead+tt.doc).Warnings() {
			got = append(got, strings.TrimPrefix(w, "lb.toml:"))
		}
		if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s\nwarnings\n%s\nwant\n%s", tt.doc, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}
