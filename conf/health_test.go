package conf

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestHealthMistakes makes one mistake at a time, in the first line of a table health that ends with its
// type; want "" means that there is none. In want each line has its number, 8 for the table itself and 9 for
// its first key, and a path from there.
func TestHealthMistakes(t *testing.T) {
	const (
		ported    = `; allowed if type is "tcp", "tls", "http", "https", "grpc", "udp", "dns", "postgres", "redis", "mysql", "mongodb", "mqtt", "amqp", "smtp" or "ldap"`
		speaks    = `; allowed if type is "tls", "https", "tcp", "grpc", "postgres", "redis", "mysql", "mongodb", "mqtt", "amqp", "smtp" or "ldap"`
		noTLS     = `; the check does not speak TLS; needs tls = true`
		steps     = "\nsteps = [{ expect = 'x' }]"
		stepKeys  = `; needs exactly one of send, send_hex, expect, expect_hex, expect_regexp`
		hexNeeds  = `; needs pairs of hexadecimal digits, such as "0d0a"`
		status    = `; needs a status or a range of them from 100 to 599, such as "204" or "200-399"`
		method    = `; needs a method in upper case, such as "GET"`
		urlPath   = `; needs a path that begins with "/", with blanks and the like as %20`
		authority = `; needs "HOST" or "HOST:PORT", with an IPv6 address in brackets`
		query     = `; needs "NAME" or "NAME TYPE", such as "example.com A"`
		types     = `; allowed is "A", "AAAA", "NS", "SOA", "MX", "TXT", "SRV", "CNAME" or "PTR"`
		codes     = `"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP" or "REFUSED"`
		command   = `a program by its absolute path and its arguments, such as ["/usr/local/bin/check", "--fast"]`
		checks    = `a list of two checks or more, such as [{ type = "icmp" }, { type = "tcp" }]`
		noUser    = `8: user: missing; needs the user that the check logs in as, such as "limeload"`
	)
	for _, tt := range []struct{ lines, kind, want string }{
		{``, "tls", ``},
		{``, "https", ``},
		{``, "grpc", ``},
		{``, "icmp", ``},
		{``, "udp", ``},
		{``, "redis", ``},
		{`qurey = "h"`, "icmp", `9: qurey: unknown key, did you mean "query"?`},
		{`retries = 2`, "icmp",
			`9: retries: unknown key; allowed here: type, interval, fast_interval, timeout, rise, fall, jitter, initial, stale_after`},

		{`port = 1`, "redis", ``},
		{`port = 1`, "icmp", `9: port: found the integer 1; type is "icmp"` + ported},
		{`port = 0`, "exec\"\ncommand = ['/x']#", `9: port: found the integer 0; type is "exec"` + ported},

		{`steps = []`, "tcp", ``},
		{`steps = [{ send = "PING\r\n" }, { expect = "+PONG" }, { send_hex = "00fF" }, { expect_hex = "01" }, { expect_regexp = "^a+$" }]`, "tcp", ``},
		{`steps = [{ send = "x" }]`, "http", `9: steps: found a list; type is "http"; allowed if type is "tcp"`},
		{`steps = ["x"]`, "tcp", `9: steps[0]: found the string "x"; needs a table`},
		{`steps = "x"`, "tcp", `9: steps: found the string "x"; needs a list of tables`},
		{`steps = [{ send = "x" }, {}]`, "tcp", `9: steps[1]: found an empty table` + stepKeys},
		{`steps = [{ send = "x", expect = "y" }]`, "tcp", `9: steps[0]: found send, expect` + stepKeys},
		{`steps = [{ send = "", expect = "y" }]`, "tcp", "9: steps[0]: found send, expect" + stepKeys + "\n" +
			`9: steps[0].send: found ""; needs a text that is not empty`},
		{`steps = [{ sned = "x" }]`, "tcp", `9: steps[0].sned: unknown key, did you mean "send"?`},
		{`steps = [{ send = "" }]`, "tcp", `9: steps[0].send: found ""; needs a text that is not empty`},
		{`steps = [{ send = 5 }]`, "tcp", `9: steps[0].send: found the integer 5; needs a string`},
		{`steps = [{ expect_hex = "" }]`, "tcp", `9: steps[0].expect_hex: found ""; needs a text that is not empty`},
		{`steps = [{ send_hex = "abc" }]`, "tcp", `9: steps[0].send_hex: found "abc"` + hexNeeds},
		{`steps = [{ expect_hex = "0x0a" }]`, "tcp", `9: steps[0].expect_hex: found "0x0a"` + hexNeeds},
		{`steps = [{ expect_regexp = "a[b" }]`, "tcp",
			`9: steps[0].expect_regexp: found "a[b"; missing closing ]: "[b"; needs a regular expression in the syntax of RE2`},
		{`steps = [{ expect_regexp = "(" }]`, "tcp",
			`9: steps[0].expect_regexp: found "("; missing closing ); needs a regular expression in the syntax of RE2`},
		{`steps = [` + strings.Repeat("{},", 101) + `]`, "tcp", `9: steps: found a list of 101; allowed is 1 to 100`},

		{`tls = true` + steps, "tcp", ``},
		{`tls = false`, "tcp", ``},
		{`tls = true`, "tcp", `9: tls: found true; there are no steps; needs steps, or type "tls", which does without`},
		{"tls = true\nsteps = 5", "tcp", `10: steps: found the integer 5; needs a list of tables`},
		{`tls = true`, "https",
			`9: tls: found true; type is "https"; allowed if type is "tcp", "grpc", "postgres", "redis", "mysql", "mongodb", "mqtt", "amqp", "smtp" or "ldap"`},
		{"tls = true\nverify = false\nserver_name = 'h'\nca = '/ca'\ncert = '/c'\nkey = '/k'", "redis", ``},
		{`verify = true`, "redis", ``},
		{`verify = false`, "redis", `9: verify: found false` + noTLS},
		{`verify = false`, "http", `9: verify: found false; type is "http"` + speaks},
		{"verify = false\ntls = 1", "grpc", `10: tls: found the integer 1; needs true or false`},
		{`ca = "/ca"`, "tcp", `9: ca: found "/ca"` + noTLS},
		{"cert = '/c'\nkey = '/k'", "grpc", "9: cert: found \"/c\"" + noTLS + "\n10: key: found \"/k\"" + noTLS},
		{`server_name = "h"`, "grpc", `9: server_name: found "h"` + noTLS},
		{`server_name = "10.0.0.1"`, "tls", ``},
		{`server_name = "2001:db8::1"`, "tls", ``},
		{`server_name = "h:443"`, "tls",
			`9: server_name: found "h:443"; this is neither an IP address nor a host name`},
		{`cert = "/c"`, "tls", `9: cert: found "/c"; its key is missing; needs both cert and key, or none`},
		{`key = "/k"`, "https", `9: key: found "/k"; its cert is missing; needs both cert and key, or none`},
		{"cert = '/c'\nkey = 5", "https", `10: key: found the integer 5; needs a string`},
		{`alpn = ["h2", "http/1.1"]`, "tls", ``},
		{`alpn = ["h2", ""]`, "tls", `9: alpn[1]: found ""; needs 1 to 255 bytes, such as "h2"`},
		{`alpn = "h2"`, "tls", `9: alpn: found the string "h2"; needs a list of strings`},
		{`alpn = [1]`, "tls", `9: alpn[0]: found the integer 1; needs a string`},
		{`alpn = []`, "https", `9: alpn: found a list; type is "https"; allowed if type is "tls"`},
		{`min_days = 3650`, "tls", ``},
		{`min_days = 3651`, "tls", `9: min_days: found 3651; allowed is 0 to 3650`},

		{`method = "PROPFIND"`, "http", ``},
		{`method = "get"`, "http", `9: method: found "get"` + method},
		{`method = "GET /"`, "https", `9: method: found "GET /"` + method},
		{`method = ""`, "http", `9: method: found ""` + method},
		{`path = "/healthz?full=1&x=%20"`, "http", ``},
		{`path = "healthz"`, "http", `9: path: found "healthz"` + urlPath},
		{`path = ""`, "http", `9: path: found ""` + urlPath},
		{`path = "/a b"`, "http", `9: path: found "/a b"` + urlPath},
		{`path = "/\r\n"`, "http", `9: path: found "/\r\n"` + urlPath},
		{`path = "/%zz"`, "http", `9: path: found "/%zz"` + urlPath},
		{`path = "/ä"`, "http", `9: path: found "/ä"` + urlPath},
		{`host = "h.example:8080"`, "http", ``},
		{`host = "[::1]"`, "http", ``},
		{`host = "[::1]:80"`, "http", ``},
		{`host = "10.0.0.1:80"`, "http", ``},
		{`host = "::1"`, "http", `9: host: found "::1"` + authority},
		{`host = "[h]:80"`, "http", `9: host: found "[h]:80"` + authority},
		{`host = "[::1"`, "http", `9: host: found "[::1"` + authority},
		{`host = "[1.2.3.4]"`, "http", `9: host: found "[1.2.3.4]"` + authority},
		{`host = "h:0"`, "http", `9: host: found "h:0"` + authority},
		{`host = "h\r\nX: y"`, "http", `9: host: found "h\r\nX: y"` + authority},
		{`status = ["204", "301-302", "100-599"]`, "http", ``},
		{`status = []`, "http", `9: status: found an empty list; needs a list of strings, at least one`},
		{`status = [200]`, "http", `9: status[0]: found the integer 200; needs a string`},
		{`status = 200`, "http", `9: status: found the integer 200; needs a list of strings`},
		{`status = ["200", "2xx"]`, "http", `9: status[1]: found "2xx"` + status},
		{`status = ["99"]`, "http", `9: status[0]: found "99"` + status},
		{`status = ["600"]`, "http", `9: status[0]: found "600"` + status},
		{`status = ["0200"]`, "http", `9: status[0]: found "0200"` + status},
		{`status = ["300-299"]`, "http", `9: status[0]: found "300-299"` + status},
		{`status = ["200-"]`, "http", `9: status[0]: found "200-"` + status},
		{`status = ["200-300-400"]`, "http", `9: status[0]: found "200-300-400"` + status},
		{`body = "ok"`, "https", ``},
		{`body = "ok"`, "grpc", `9: body: found the string "ok"; type is "grpc"; allowed if type is "http" or "https"`},

		{"service = 'a.B'\nauthority = 'h:1'\ntls = true", "grpc", ``},
		{`authority = "h/x"`, "grpc", `9: authority: found "h/x"` + authority},

		{"payload = 'a'\nanswer = 'b'\nrequire_answer = true", "udp", ``},
		{"payload_hex = '00'\nanswer_hex = 'ff'", "udp", ``},
		{"payload_hex = '00'\npayload = 'a'", "udp",
			`9: payload_hex: found "00"; payload stands beside it; needs one of them alone`},
		{"answer_hex = '00'\nanswer = 'a'", "udp",
			`9: answer_hex: found "00"; answer stands beside it; needs one of them alone`},
		{`payload_hex = "0"`, "udp", `9: payload_hex: found "0"` + hexNeeds},
		{`payload = "` + strings.Repeat("x", 65507) + `"`, "udp", ``},
		{`payload = "` + strings.Repeat("x", 65508) + `"`, "udp",
			`9: payload: found 65508 bytes; needs what a datagram holds, 65507 or less`},
		{`expect = ["NOERROR"]`, "udp", `9: expect: found a list; type is "udp"; allowed if type is "dns"`},

		{``, "dns", `8: query: missing; needs what to ask for, "NAME" or "NAME TYPE", such as "example.com A"`},
		{`query = "example.com"`, "dns", ``},
		{`query = "_sip._udp.example.com.  SRV"`, "dns", ``},
		{`query = ". NS"`, "dns", ``},
		{`query = ""`, "dns", `9: query: found ""` + query},
		{`query = "a b c"`, "dns", `9: query: found "a b c"` + query},
		{`query = "a/b A"`, "dns", `9: query: found "a/b A"; "a/b" is not a host name`},
		{`query = "h ANY"`, "dns", `9: query: found "h ANY"; the type is "ANY"` + types},
		{`query = "h aaaa"`, "dns", `9: query: found "h aaaa"; the type is "aaaa"` + types + `, did you mean "AAAA"?`},
		{`query = 5`, "dns", `9: query: found the integer 5; needs what to ask for, "NAME" or "NAME TYPE", such as "example.com A"`},
		{"expect = ['NXDOMAIN', 'REFUSED']\nquery = 'h'\ntransport = 'tcp'", "dns", ``},
		{"expect = []\nquery = 'h'", "dns", `9: expect: found an empty list; needs a list of ` + codes +
			`, at least one`},
		{"expect = 'NOERROR'\nquery = 'h'", "dns", `9: expect: found the string "NOERROR"; needs a list of ` + codes},
		{"expect = ['NOERROR', 'NXDOMIAN']\nquery = 'h'", "dns", `9: expect[1]: found "NXDOMIAN"; allowed is ` + codes +
			`, did you mean "NXDOMAIN"?`},
		{"transport = 'tls'\nquery = 'h'", "dns", `9: transport: found "tls"; allowed is "udp" or "tcp"`},

		{``, "postgres", noUser},
		{`user = "u"`, "postgres", ``},
		{"user = 'u'\ndatabase = 'd'\npassword_file = '/p'\nrole = 'replica'\nmax_lag = '24h'\ntls = true", "postgres",
			``},
		{`user = 5`, "postgres", `9: user: found the integer 5; needs a string`},
		{`user = "a\u0000b"`, "postgres", `9: user: found "a\x00b"; needs a text without NUL`},
		{"database = ''\nuser = 'u'", "postgres", `9: database: found ""; needs the name of a database`},
		{`database = "d"`, "redis",
			`9: database: found the string "d"; type is "redis"; allowed if type is "postgres" or "mysql"`},
		{`role = "master"`, "redis",
			`9: role: found "master"; allowed is "any", "primary" or "replica", did you mean "primary"?`},
		{`max_lag = "1s"`, "redis", ``},
		{`max_lag = "25h"`, "redis", `9: max_lag: found "25h"; allowed is 0s to 24h`},
		{"max_lag = '0s'\nrole = 'primary'", "redis", ``},
		{"max_lag = '1s'\nrole = 'primary'", "redis",
			`9: max_lag: found "1s"; role "primary" has no lag; needs role "replica" or "any", or 0s`},
		{`role = "any"`, "tcp",
			`9: role: found the string "any"; type is "tcp"; allowed if type is "postgres", "redis", "mysql" or "mongodb"`},

		{``, "mysql", noUser},
		{"user = 'u'\ndatabase = 'd'\npassword_file = '/p'\nrole = 'replica'\nmax_lag = '5s'\nquery = 'SELECT 1'\nallow_donor = true\ntls = true", "mysql", ``},
		{"database = ''\nquery = ''\nuser = 'u'", "mysql", ``},
		{"query = '" + strings.Repeat("x", 4097) + "'\nuser = 'u'", "mysql", `9: query: found 4097 bytes; needs 4096 bytes or less`},
		{"query = 5\nuser = 'u'", "mysql", `9: query: found the integer 5; needs what to ask for, "NAME" or "NAME TYPE", such as "example.com A"`},
		{"query = 'SELECT 1'\nuser = 'u'", "postgres",
			`9: query: found the string "SELECT 1"; type is "postgres"; allowed if type is "dns" or "mysql"`},
		{`allow_donor = true`, "redis", `9: allow_donor: found true; type is "redis"; allowed if type is "mysql"`},
		{"max_lag = '1s'\nrole = 'primary'\nuser = 'u'", "mysql",
			`9: max_lag: found "1s"; role "primary" has no lag; needs role "replica" or "any", or 0s`},

		{"role = 'replica'\nfallback = 'primary'\nuser = 'u'", "postgres", ``},
		{"role = 'replica'\nfallback = 'primary'", "mongodb", ``},
		{"fallback = ''", "redis", ``},
		{"fallback = 'primary'", "redis", `9: fallback: found "primary"; role is "any"; needs role "replica", or ""`},
		{"fallback = 'primary'\nrole = 'primary'", "redis",
			`9: fallback: found "primary"; role is "primary"; needs role "replica", or ""`},
		{"fallback = 'replica'\nrole = 'replica'", "redis", `9: fallback: found "replica"; allowed is "" or "primary"`},
		{"fallback = 'primary'", "tcp", `9: fallback: found the string "primary"; type is "tcp"; allowed if type is "postgres", "redis", "mysql" or "mongodb"`},

		{``, "mongodb", ``},
		{"role = 'replica'\ntls = true\nport = 1", "mongodb", ``},
		{`user = "u"`, "mongodb",
			`9: user: found the string "u"; type is "mongodb"; allowed if type is "postgres", "redis", "mysql", "mqtt" or "ldap"`},
		{``, "mqtt", ``},
		{`user = "u"`, "mqtt", ``},
		{`password_file = "/p"`, "mqtt",
			`9: password_file: found "/p"; its user is missing; needs both user and password_file, or none`},
		{`tls = true`, "amqp", ``},
		{`tls = true`, "smtp", ``},
		{``, "ldap", ``},
		{"user = 'cn=check'\npassword_file = '/p'\ntls = true", "ldap", ``},
		{`password_file = "/p"`, "ldap",
			`9: password_file: found "/p"; its user is missing; needs both user and password_file, or none`},
		{`user = "cn=check"`, "ldap",
			`9: user: found "cn=check"; its password_file is missing; needs both user and password_file, or none`},

		{``, "exec", `8: command: missing; needs ` + command},
		{`command = ["/usr/bin/check", "", "-x"]`, "exec", ``},
		{`command = []`, "exec", `9: command: found an empty list; needs ` + command},
		{`command = "/usr/bin/check"`, "exec", `9: command: found the string "/usr/bin/check"; needs ` + command},
		{`command = [""]`, "exec", `9: command[0]: found ""; needs the absolute path of a program`},
		{`command = ["check"]`, "exec", `9: command[0]: found "check"; needs the absolute path of a program`},
		{`command = ["/x", 1, "\u0000"]`, "exec", "9: command[1]: found the integer 1; needs a string\n" +
			`9: command[2]: found "\x00"; needs a text without NUL`},

		{``, "all_of", `8: checks: missing; needs ` + checks},
		{`checks = []`, "any_of", `9: checks: found an empty list; needs ` + checks},
		{`checks = [{}]`, "any_of", `9: checks: found a list of 1; allowed is 2 to 32`},
		{`checks = [` + strings.Repeat("{},", 33) + `]`, "any_of", `9: checks: found a list of 33; allowed is 2 to 32`},
		{`checks = [{}, { type = "icmp" }]`, "all_of", ``},
		{`checks = [{}, {}]`, "tcp", `9: checks: found a list; type is "tcp"; allowed if type is "all_of" or "any_of"`},
		{`checks = [{}, 5]`, "all_of", `9: checks[1]: found the integer 5; needs a table`},
		{`checks = {}`, "all_of", `9: checks: found a table; needs ` + checks},
		{`checks = [{}, { type = "any_of" }]`, "all_of",
			`9: checks[1].type: found "any_of"; a check in checks cannot have checks of its own; needs any other type`},
		{`checks = [{}, { timeout = "1s" }]`, "all_of",
			`9: checks[1].timeout: unknown key; allowed here: type, port, steps, tls, verify, server_name, ca, cert, key`},
		{`checks = [{ type = "dns" }, { type = "http", path = "x" }, { type = "postgres" }]`, "all_of",
			`9: checks[0].query: missing; needs what to ask for, "NAME" or "NAME TYPE", such as "example.com A"` +
				"\n" +
				`9: checks[1].path: found "x"` + urlPath + "\n" +
				`9: checks[2].user: missing; needs the user that the check logs in as, such as "limeload"`},
		{`port = 5`, "any_of\"\nchecks = [{}, { port = 7 }]#", `9: port: found the integer 5; type is "any_of"` +
			ported},

		// A mistaken type decides nothing; the other keys are still checked.
		{"tls = true\nquery = 'a b c'\nverify = false", "dsn", `10: query: found "a b c"` + query + "\n" +
			`12: type: found "dsn"; allowed is "tcp", "tls", "http", "https", "grpc", "icmp", "udp", "dns", "postgres", "redis", "mysql", "mongodb", "mqtt", "amqp", "smtp", "ldap", "exec", "all_of" or "any_of", did you mean "dns"?`},
	} {
		doc, _ := with("pool.p.health", strings.TrimPrefix(tt.lines+"\ntype = \""+tt.kind+`"`, "\n"))
		var want []string
		for w := range strings.Lines(tt.want) {
			line, rest, _ := strings.Cut(strings.TrimSuffix(w, "\n"), " ")
			want = append(want, "lb.toml:"+line+" pool.p.health."+rest)
		}
		wantErrors(t, doc, want...)
	}
}

// TestParseHealth: what Parse makes of the texts, and that a key left out has its default in each check.
func TestParseHealth(t *testing.T) {
	c := mustParse(t, `listener.a = { pool = "p", address = ":1" }
[pool.p]
backends = [{ address = "h:1" }]
[pool.p.health]
type = "any_of"
interval = "5s"
checks = [
  { steps = [{ send = "a" }, { expect = "b" }, { send_hex = "63" }, { expect_hex = "64" }, { expect_regexp = "e+" }] },
  { type = "https", status = ["204", "300-302"], port = 443 },
  { type = "udp", payload = "a", answer_hex = "62ff" },
  { type = "udp", payload_hex = "61", answer = "b" },
  { type = "dns", query = "example.com", expect = ["NOERROR", "NXDOMAIN"] },
  { type = "dns", query = " example.com  MX " },
  { type = "redis", tls = true, verify = false },
]
`)
	defaults := Check{Type: "tcp", Verify: true, Method: "GET", Path: "/", Status: []string{"200-399"},
		Expect: []string{"NOERROR"}, Transport: "udp",
		Database: "postgres", Role: "any", Statuses: []StatusRange{{200, 399}}}
	of := func(kind string, change func(*Check)) Check {
		one := defaults
		one.Type = kind
		change(&one)
		return one
	}
	h := c.Pools[0].Health
	want := []Check{
		of("tcp", func(c *Check) {
			c.Steps = []Step{{Send: "a", Bytes: []byte("a")}, {Expect: "b", Bytes: []byte("b")},
				{SendHex: "63", Bytes: []byte("c")},
				{ExpectHex: "64", Bytes: []byte("d")}, {ExpectRegexp: "e+", Regexp: regexp.MustCompile("e+")}}
		}),
		of("https", func(c *Check) {
			c.Port, c.Status, c.Statuses = 443, []string{"204", "300-302"}, []StatusRange{{204, 204}, {300, 302}}
		}),
		of("udp", func(c *Check) {
			c.Payload, c.PayloadBytes, c.AnswerHex, c.AnswerBytes = "a", []byte("a"), "62ff", []byte("b\xff")
		}),
		of("udp", func(c *Check) {
			c.PayloadHex, c.PayloadBytes, c.Answer, c.AnswerBytes = "61", []byte("a"), "b", []byte("b")
		}),
		of("dns", func(c *Check) {
			c.Query, c.QueryName, c.QueryType, c.Expect = "example.com", "example.com", "A",
				[]string{"NOERROR", "NXDOMAIN"}
		}),
		of("dns", func(c *Check) { c.Query, c.QueryName, c.QueryType = " example.com  MX ", "example.com", "MX" }),
		of("redis", func(c *Check) { c.TLS, c.Verify = true, false }),
	}
	sameRegexp := cmp.Comparer(func(a, b *regexp.Regexp) bool {
		return a == b || a != nil && b != nil && a.String() == b.String()
	})
	if diff := cmp.Diff(want, h.Checks, sameRegexp, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(of("any_of", func(*Check) {}), h.Check, sameRegexp, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for i, one := range h.Checks {
		if speaks := i == 1 || i == 6; one.UsesTLS() != speaks {
			t.Errorf("check %d: UsesTLS is %v", i, one.UsesTLS())
		}
	}
	if !(&Check{Type: "tls"}).UsesTLS() {
		t.Error("type tls does not use TLS")
	}
	if got := c.lines["pool.p.health.checks[1].port"]; got != 9 {
		t.Errorf("the port of a check is on line %d", got)
	}
}

// TestOnUnhealthyOfPrimaries holds the default of on_unhealthy, and that a written value stays.
func TestOnUnhealthyOfPrimaries(t *testing.T) {
	const pg = `type = "postgres", user = "u"`
	for _, tt := range []struct{ line, health, want string }{
		{``, ``, "keep"},
		{``, `health = { type = "tcp" }`, "keep"},
		{``, `health = { ` + pg + ` }`, "keep"},
		{``, `health = { ` + pg + `, role = "replica" }`, "keep"},
		{``, `health = { ` + pg + `, role = "primary" }`, "close"},
		{``, `health = { type = "redis", role = "primary" }`, "close"},
		{``, `health = { type = "all_of", checks = [{ type = "tcp" }, { type = "redis", role = "primary" }] }`,
			"close"},
		{`on_unhealthy = "keep"`, `health = { type = "redis", role = "primary" }`, "keep"},
		{`on_unhealthy = "close"`, `health = { type = "tcp" }`, "close"},
	} {
		c := mustParse(t, "listener.a = { pool = 'p', address = ':1' }\n[pool.p]\nbackends = [{ address = \"h:1\" }]\n"+
			tt.line+"\n"+tt.health)
		if got := c.Pools[0].OnUnhealthy; got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.line, tt.health, got, tt.want)
		}
	}
	c := mustParse(t, "listener.a = { pool = 'p', address = ':1' }\npool.p = { backends = [{ address = \"h:1\" }], on_unhealthy = \"keep\", health = { type = \"redis\", role = \"primary\" } }")
	if got := c.Pools[0].OnUnhealthy; got != "keep" {
		t.Errorf("in an inline table: %q", got)
	}
}
