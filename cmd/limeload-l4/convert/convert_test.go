package convert

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// kindOf returns the kind of a file of testdata by its name.
func kindOf(file string) Kind {
	if strings.Contains(file, ".nginx.") {
		return Nginx
	}
	return HAProxy
}

// configurations returns the files of testdata that are converted.
func configurations(t testing.TB) []string {
	t.Helper()
	haproxy, err := filepath.Glob("testdata/*.haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	nginx, err := filepath.Glob("testdata/*.nginx.conf")
	if err != nil || len(haproxy) != 6 || len(nginx) != 4 {
		t.Fatalf("%d and %d configurations, %v", len(haproxy), len(nginx), err)
	}
	return append(haproxy, nginx...)
}

// list writes notes as the command lists them.
func list(r *Result) string {
	var b strings.Builder
	for _, n := range r.Notes {
		sign := "differs"
		if n.Left {
			sign = "left"
		}
		fmt.Fprintf(&b, "%s: %s\n", sign, n.String())
	}
	return b.String()
}

// TestConvertGolden converts the configurations of testdata: each gives the lb.toml and the notes beside it.
func TestConvertGolden(t *testing.T) {
	for _, file := range configurations(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if kind := Detect(text); kind != kindOf(file) {
				t.Errorf("it is taken for %q", kind)
			}
			r, err := Convert(text, Options{Kind: kindOf(file), File: filepath.Base(file),
				Read: func(string) (map[string][]byte, error) { return nil, nil }})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file+".toml", string(r.TOML))
			golden(t, file+".notes", list(r))
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v; got\n%s", file, err, got)
	}
}

// convertText converts a text without includes.
func convertText(t testing.TB, kind Kind, text string) *Result {
	t.Helper()
	r, err := Convert([]byte(text), Options{Kind: kind, File: "x"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestConvertDropsNothing: a word that is not known is noted with its line, wherever it stands.
func TestConvertDropsNothing(t *testing.T) {
	for _, file := range configurations(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		for i := 1; i <= len(lines); i++ {
			words := "frobnicate yes"
			if kindOf(file) == Nginx {
				before := strings.TrimSpace(lines[i-1])
				if inMap(lines[:i]) || !strings.HasSuffix(before, ";") && !strings.HasSuffix(before, "{") {
					continue
				}
				words += ";"
			}
			changed := strings.Join(append(append(append([]string{}, lines[:i]...), words), lines[i:]...), "\n")
			r := convertText(t, kindOf(file), changed)
			want := fmt.Sprintf("x:%d: frobnicate yes: ", i+1)
			if section := lastSection(lines[:i]); section == "resolvers" || section == "peers" || section == "disabled" {
				continue // of these, the section as a whole is noted or read
			}
			if !strings.Contains(list(r), want) {
				t.Errorf("%s: nothing is said about an unknown word on line %d:\n%s", file, i+1, list(r))
			}
		}
	}
}

// inMap reports whether the lines end inside a block whose lines are no directives.
func inMap(lines []string) bool {
	depth, in := 0, 0
	for _, l := range lines {
		if strings.Contains(l, "map $") || strings.HasPrefix(l, "http {") {
			in = depth + 1
		}
		depth += strings.Count(l, "{") - strings.Count(l, "}")
		if depth < in {
			in = 0
		}
	}
	return in > 0
}

// lastSection returns the section of HAProxy that the lines end in.
func lastSection(lines []string) (section string) {
	for _, l := range lines {
		if l != "" && l[0] != ' ' && l[0] != '#' {
			section = strings.Fields(l)[0]
		}
		if strings.TrimSpace(l) == "disabled" {
			section = "disabled"
		}
	}
	return section
}

// TestConvertWords: one case a line, with what the result must have and what a note must say.
func TestConvertWords(t *testing.T) {
	haproxy := func(lines string) string {
		return "listen a\n  mode tcp\n  bind :1\n  server s 10.0.0.1:2\n  " + strings.ReplaceAll(lines, ";", "\n  ")
	}
	const tooFast = "tcp-request connection track-sc0 src table t;tcp-request connection reject if { sc0_conn_rate gt 9 }"
	nginx := func(lines string) string {
		return "stream { upstream u { server 10.0.0.1:2; } server { listen 1; proxy_pass u; " + lines + " } }"
	}
	for _, test := range []struct {
		kind       Kind
		text, want string
		note       string // "" for none
	}{
		{HAProxy, haproxy("timeout client 1d"), `idle_timeout = "24h"`, ""},
		{HAProxy, haproxy("timeout client 90000"), `idle_timeout = "1m30s"`, ""},
		{HAProxy, haproxy("timeout client soon"), ``, "needs a time"},
		{HAProxy, haproxy("timeout typo 5s"), ``, "does not know"},
		{HAProxy, haproxy("balance leastconn"), `algorithm = "least_conn"`, ""},
		{HAProxy, haproxy("balance hdr(host)"), `algorithm = "least_conn"`, "nothing of a request is read"},
		{HAProxy, haproxy("balance source;hash-type consistent"), `algorithm = "ring_hash"`, ""},
		{HAProxy, haproxy("server t 10.0.0.1:2"), ``, "this address already"},
		{HAProxy, haproxy("server t abns@x"), ``, "no address of a backend"},
		{HAProxy, haproxy("server t unix@/run/x.sock"), `address = "unix:/run/x.sock"`, ""},
		{HAProxy, haproxy("server t 10.0.0.3:2 weight 10 flux 3"), `weight = 10`, "flux"},
		{HAProxy, haproxy("server t 10.0.0.3:2 backup;server u 10.0.0.4:2 backup"), `tier = 2`, ""},
		{HAProxy, haproxy("option allbackups;server t 10.0.0.3:2 backup;server u 10.0.0.4:2 backup"),
			`"10.0.0.4:2", tier = 1`, ""},
		{HAProxy, haproxy("bind fd@3"), ``, "no address that limeload-l4 can listen at"},
		{HAProxy, haproxy("bind :443 ssl crt /x/ "), ``, "crt names a folder"},
		{HAProxy, haproxy("bind :3 interface eth0"), ``, `"interface" has no counterpart`},
		{HAProxy, haproxy("bind :::1 v6only"), `"[::]:1"`, ""},
		{HAProxy, haproxy("tcp-request connection accept if { src 10.0.0.0/8 };tcp-request connection reject"),
			`allow = ["10.0.0.0/8"]`, ""},
		{HAProxy, haproxy("tcp-request content reject if { req.len gt 5 }"), ``, "no such rule"},
		{HAProxy, haproxy("option tcp-check;tcp-check send QUIT;server t 10.0.0.3:2 check"), `{ send = "QUIT" }`, ""},
		{HAProxy, haproxy("option tcp-check;tcp-check expect ! string x;server t 10.0.0.3:2 check"), ``, "and nothing else"},
		{HAProxy, haproxy("option mystery"), ``, "does not know"},
		{HAProxy, haproxy("server t 10.0.0.3:2 ssl verify none;server u 10.0.0.4:2 ssl verify required ca-file /ca"),
			`mode = "verify"`, "another one"},
		{HAProxy, haproxy("server t 10.0.0.3:2 weight $W"), ``, "a number for weight"},
		{HAProxy, haproxy("server t 10.0.0.3:2 ssl verify none ssl-min-ver TLSv1.3"), ``, "ssl-min-ver"},
		{HAProxy, "listen a\n bind :1\n default-server ssl verify required\n server s 10.0.0.1:2\n" +
			" default-server verify none\n",
			`mode = "verify"`, ""},
		{HAProxy, haproxy("server-template t 3 b.example:80 disabled"), ``, "disabled: backends that discovery finds"},
		{HAProxy, "listen a\n bind :1\n option httpchk\n server s 10.0.0.1:2 ssl verify none check port 8008",
			`type = "http"`, ""},
		{HAProxy, "listen a\n bind :1\n server s 10.0.0.1:2 ssl verify none check no-check-ssl", `type = "tcp"`, ""},
		{HAProxy, "listen a\n bind :1\n option httpchk\n http-check connect port 8443 ssl\n server s 10.0.0.1:2 check",
			`type = "https"`, ""},
		{HAProxy, "listen a\n bind :1\n option httpchk\n http-check expect status 200\n http-check expect string ok\n" +
			" server s 10.0.0.1:2 check", `status = ["200"]`, "expects one thing"},
		{HAProxy, "listen a\n bind :1\n option tcp-check\n tcp-check send PING\\r\\n\n tcp-check expect string +PONG\n" +
			" tcp-check expect string connected_slaves:1\n server s 10.0.0.1:2 check",
			`type = "redis"`, "the role, the link"},
		{HAProxy, haproxy(tooFast), ``, "no such rule"},
		{HAProxy, haproxy(tooFast) +
			"\nbackend t\n stick-table type ip size 1k store conn_rate(1m)\n server s 10.0.0.1:2", `"9/m burst 9"`, ""},
		{HAProxy, haproxy("bind :3 ssl crt /x.pem ca-file /ca.pem"), `cert = "/x.pem"`, ""},
		{HAProxy, haproxy("stick-table type ip size 1k expire 5m;stick on src"), `ttl = "5m", max_entries = 1024`, ""},
		{HAProxy, haproxy("stick on req.cook(a)"), ``, "known by its address"},
		{HAProxy, haproxy("default_backend gone"), ``, `there is no backend "gone"`},
		{HAProxy, "server s 10.0.0.1:1", ``, "before the first section"},
		{HAProxy, "listen a b\n bind :1", ``, "there is no pool"},
		{HAProxy, "backend \"\u202e${\"\n server \"$PATH\" 10.0.0.1:1", "", ""},

		{Nginx, nginx("proxy_timeout 1w;"), `idle_timeout = "168h"`, ""},
		{Nginx, nginx("proxy_timeout 2h30m;"), `idle_timeout = "150m"`, ""},
		{Nginx, nginx("deny 10.0.0.0/8;"), `deny = ["10.0.0.0/8"]`, ""},
		{Nginx, nginx("allow 10.0.0.0/8; deny all;"), `allow = ["10.0.0.0/8"]`, ""},
		{Nginx, nginx("deny all;"), `deny = ["0.0.0.0/0", "::/0"]`, ""},
		{Nginx, nginx("deny 10.0.0.0/8; allow 10.1.0.0/16;"), `deny = ["10.0.0.0/8"]`, "has no effect"},
		{Nginx, nginx("allow 10.1.0.0/16; deny 10.0.0.0/8;"), `allow = ["10.1.0.0/16", "0.0.0.0/0", "::/0"]`, ""},
		{Nginx, "stream { deny 10.0.0.5; allow all; server { listen 1; proxy_pass 10.0.0.1:1; } }",
			`deny = ["10.0.0.5"]`, ""},
		{Nginx, "stream { deny 10.0.0.5; allow 10.0.0.0/8; deny all; server { listen 1; proxy_pass 10.0.0.1:1; } }",
			`allow = ["10.0.0.0/8"] deny = ["10.0.0.5"]`, ""},
		{Nginx, "stream { upstream u { server a.b:1 resolve down; } server { listen 1; proxy_pass u; } }",
			``, "down: backends"},
		{Nginx, nginx("listen 2 proxy_protocol; allow 10.0.0.0/8; deny all;"), `address = "0.0.0.0:1"`, "are about the proxies"},
		{Nginx, nginx("listen 2 proxy_protocol; set_real_ip_from unix:;"), `address = "0.0.0.0:1"`, "no proxy is left"},
		{Nginx, nginx("listen 2 ssl;"), `address      = "0.0.0.0:1"`, "clients would meet no TLS"},
		{Nginx, nginx("listen $port;"), ``, "no address that limeload-l4 can listen at"},
		{Nginx, nginx("proxy_bind $remote_addr transparent;"), ``, "a source is one address"},
		{Nginx, nginx("proxy_upload_rate 5;"), ``, "1KiB/s or more"},
		{Nginx, "stream { server { listen 1; proxy_pass $x; } }", ``, "no upstream with this name"},
		{Nginx, "stream { upstream u { server 10.0.0.1; } }", ``, "no address of a backend"},
		{Nginx, "stream { upstream u { server a.b:1 resolve; } server { listen 1; proxy_pass u; } }", `type = "dns"`, ""},
		{Nginx, "stream { server { listen 1; proxy_pass 10.0.0.1:1;", `10.0.0.1:1`, "does not end"},
		{Nginx, "} stream { }", ``, "no block is open"},
		{Nginx, "include x.conf;", ``, "cannot be read"},
		{Nginx, strings.Repeat("a { ", 100), ``, "nested too deep"},
	} {
		r := convertText(t, test.kind, test.text)
		squeezed := strings.Join(strings.Fields(string(r.TOML)), " ")
		if !strings.Contains(squeezed, strings.Join(strings.Fields(test.want), " ")) {
			t.Errorf("%s: the result has no %s:\n%s", test.text, test.want, r.TOML)
		}
		if notes := list(r); test.note == "" && r.Left() > 0 || !strings.Contains(notes, test.note) {
			t.Errorf("%s: the notes are not about %q:\n%s", test.text, test.note, notes)
		}
	}
}

// TestConvertAccess: rules of which the first one decides become lists in which the longest prefix does.
func TestConvertAccess(t *testing.T) {
	for _, test := range []struct{ rules, want string }{
		{"accept if { src 10.0.0.5 };reject if { src 10.0.0.0/8 }",
			`allow = ["10.0.0.5", "0.0.0.0/0", "::/0"] deny = ["10.0.0.0/8"]`},
		{"reject if { src 10.0.0.0/8 };accept if { src 10.0.0.5 }", `deny = ["10.0.0.0/8"]`},
		{"accept if { src 10.0.0.5 }", ``},
		{"reject if !{ src 10.0.0.0/8 };reject if { src 10.0.0.5 }", `allow = ["10.0.0.0/8"] deny = ["10.0.0.5"]`},
		{"reject if !{ src 10.0.0.0/8 };reject if !{ src 10.1.0.0/16 192.0.2.1 }", `allow = ["10.1.0.0/16"]`},
		{"reject if !{ src 10.0.0.0/8 };reject if !{ src 192.0.2.1 }", `deny = ["0.0.0.0/0", "::/0"]`},
		{"accept if { src 192.0.2.1 };reject unless { src 10.0.0.0/8 }", `allow = ["192.0.2.1", "10.0.0.0/8"]`},
		{"reject if !{ src 10.0.0.0/8 };accept if { src 192.0.2.1 }", `allow = ["10.0.0.0/8"]`},
		{"accept if { src 10.0.0.0/8 };reject;accept if { src 192.0.2.1 }", `allow = ["10.0.0.0/8"]`},
		{"reject if { src -f /a };reject if { src -f /b }", `deny_file = "/a"`},
		{"reject if !{ src -f /a };reject if { src -f /b }", `allow_file = "/a"`},
		{"reject if { src -f /b };reject if !{ src 10.0.0.0/8 }", `allow = ["10.0.0.0/8"] deny_file = "/b"`},
	} {
		text := "listen a\n bind :1\n server s 10.0.0.1:2\n tcp-request connection " +
			strings.ReplaceAll(test.rules, ";", "\n tcp-request connection ")
		_, access, _ := strings.Cut(string(convertText(t, HAProxy, text).TOML), "[listener.a.access]")
		access, _, _ = strings.Cut(access, "\n\n")
		if got := strings.Join(strings.Fields(access), " "); got != test.want {
			t.Errorf("%s: got %s, expected %s", test.rules, got, test.want)
		}
	}
	phases := "listen a\n bind :1\n server s 10.0.0.1:2\n tcp-request connection accept if { src 10.0.0.5 }\n" +
		" tcp-request content reject if { src 10.0.0.0/8 }"
	if r := convertText(t, HAProxy, phases); r.Left() != 1 {
		t.Errorf("an accept of one phase and a reject of another one:\n%s%s", r.TOML, list(r))
	}
}

// TestConvertCost: a large text costs little time and memory, whatever it repeats.
func TestConvertCost(t *testing.T) {
	full := func(line string) string { return strings.Repeat(line, MaxBytes/16/len(line)) }
	for name, text := range map[string]string{
		"sections":  full("listen a\n"),
		"backends":  "listen a\nbind :1\n" + full("server a 10.0.0.1:80\n"),
		"inherited": "defaults\n" + full("log x\n") + full("listen a\n"),
		"names":     "listen a\nbind :1\n" + full("server a h$X:80\n"),
	} {
		t.Run(name, func(t *testing.T) { _, _ = Convert([]byte(text), Options{Kind: HAProxy, File: "x"}) })
	}
	for name, text := range map[string]string{
		"servers": "stream {" + full("server{listen 1;proxy_pass 10.0.0.1:1;}"),
		"common":  "stream {" + full("a b;") + full("server{}"),
		"denied":  "stream { server { listen 1; proxy_pass 10.0.0.1:1; " + full("deny 10.0.0.1;"),
	} {
		t.Run(name, func(t *testing.T) { _, _ = Convert([]byte(text), Options{Kind: Nginx, File: "x"}) })
	}
}

func TestConvertBounds(t *testing.T) {
	if _, err := Convert(make([]byte, MaxBytes+1), Options{Kind: HAProxy}); err == nil {
		t.Error("a text of any size is converted")
	}
	if _, err := Convert(nil, Options{Kind: "caddy"}); err == nil {
		t.Error("any kind is converted")
	}
	r := convertText(t, HAProxy, "global\n"+strings.Repeat("x y\n", 5*maxNotes))
	if len(r.Notes) != maxNotes+1 || !strings.Contains(r.Notes[maxNotes].Why, "more notes") {
		t.Errorf("%d notes", len(r.Notes))
	}
	loop := func(string) (map[string][]byte, error) {
		return map[string][]byte{"a": []byte("include a; include a;"), "b": []byte("x;")}, nil
	}
	if r, err := Convert([]byte("include a;"), Options{Kind: Nginx, Read: loop}); err != nil || r.Left() == 0 {
		t.Error(err, "a file that includes itself is read without a note")
	}
	for text, want := range map[string]Kind{"": "", "[listener.a]\n": "", "http {\n}": Nginx, "frontend x\n": HAProxy,
		"global\r\n": HAProxy, "# global\n": ""} {
		if got := Detect([]byte(text)); got != want {
			t.Errorf("%q is taken for %q", text, got)
		}
	}
}
