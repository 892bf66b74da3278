package admin

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestToken calls every route with wrong tokens and with the right one.
func TestToken(t *testing.T) {
	t.Parallel()
	w := start(t, "secret")
	wrong := []string{"", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secretx", "Bearer  secret",
		"Bearer SECRET", "Basic secret", "Basic c2VjcmV0"}
	targets := strings.NewReplacer("{$}", "", "{file}", "app.js")
	for _, r := range routes() {
		for _, given := range wrong {
			got := w.do(t, request{method: r.method, target: targets.Replace(r.path),
				header: map[string]string{"Authorization": given}})
			if r.open {
				if got.status != 200 {
					t.Errorf("%s %s with %q: %d", r.method, r.path, given, got.status)
				}
				continue
			}
			if p := got.problem(t); p.Type != problemUnauthorized || got.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %s with %q: %s", r.method, r.path, given, p.Type)
			}
		}
	}
	if p := w.do(t, request{method: "GET", target: "/none"}).problem(t); p.Type != problemUnauthorized {
		t.Errorf("a stranger is told which routes there are: %s", p.Type)
	}
	for _, given := range []string{"Bearer secret", "bearer secret"} {
		if got := w.do(t, request{method: "GET", target: "/v1/log",
			header: map[string]string{"Authorization": given}}); got.status != 200 {
			t.Errorf("with %q: %d %s", given, got.status, got.body)
		}
	}
	if _, err := w.client(t, "").Status(t.Context()); err == nil {
		t.Error("the Unix socket asks for no token")
	}
	if _, err := w.client(t, "secret").Status(t.Context()); err != nil {
		t.Errorf("over the Unix socket with the token: %v", err)
	}
	if done := w.fake.done(); len(done) > 0 {
		t.Errorf("the daemon did %q", done)
	}
	if log := w.log.String(); strings.Contains(log, "secret") || strings.Contains(log, "c2VjcmV0") {
		t.Errorf("the log has a token: %s", log)
	}
}

// TestOrigin calls every route as pages from elsewhere would, with the token and without.
func TestOrigin(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "secret"} {
		w := start(t, token)
		_, port, _ := strings.Cut(w.tcp, ":")
		for _, c := range []struct {
			host   string
			header map[string]string
			kind   string // "" if it is not refused
		}{
			{"", map[string]string{"Sec-Fetch-Site": "cross-site"}, problemCrossOrigin},
			{"", map[string]string{"Sec-Fetch-Site": "same-site"}, problemCrossOrigin},
			{"", map[string]string{"Origin": "https://evil.example"}, problemCrossOrigin},
			{"", map[string]string{"Origin": "null"}, problemCrossOrigin},
			{"", map[string]string{"Origin": "http://127.0.0.1:1"}, problemCrossOrigin},
			{"evil.example", nil, problemWrongHost},
			{"evil.example:" + port, map[string]string{"Origin": "http://evil.example:" + port,
				"Sec-Fetch-Site": "same-origin"}, problemWrongHost},
			{"localhost.evil.example", nil, problemWrongHost},
			{"127.0.0.1.evil.example", nil, problemWrongHost},
			{"127.1", nil, problemWrongHost},
			{"localhost", nil, ""},
			{"LocalHost:1", nil, ""},
			{"[::1]:80", nil, ""},
			{"[::1]", nil, ""},
			{"192.0.2.1", nil, ""},
			{"", map[string]string{"Sec-Fetch-Site": "none"}, ""},
			{"", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://" + w.tcp}, ""},
			{"", map[string]string{"Origin": "http://" + w.tcp}, ""},
		} {
			for _, r := range routes() {
				if c.kind == "" && r.method+r.path != "GET/v1/status" {
					continue
				}
				header := http.Header{}
				for name, value := range c.header {
					header.Set(name, value)
				}
				if token != "" {
					header.Set("Authorization", "Bearer "+token)
				}
				flat := make(map[string]string)
				for name := range header {
					flat[name] = header.Get(name)
				}
				got := w.overTCP(t, request{method: r.method, target: strings.TrimSuffix(r.path, "{$}"), host: c.host,
					header: flat})
				if c.kind == "" {
					if got.status != 200 {
						t.Errorf("%s %s, Host %q, %v: %d %s", r.method, r.path, c.host, c.header, got.status, got.body)
					}
				} else if p := got.problem(t); p.Type != c.kind {
					t.Errorf("%s %s, Host %q, %v: %s, expected %s", r.method, r.path, c.host, c.header, p.Type, c.kind)
				}
			}
		}
		if done := w.fake.done(); len(done) > 0 {
			t.Errorf("the daemon did %q", done)
		}
	}
}

// TestUnixHost sends requests over the Unix socket as a browser does whose port is forwarded to it. A name with a dot
// may be anybody's, who then has the same origin as the page; without a token it is refused.
func TestUnixHost(t *testing.T) {
	t.Parallel()
	open, secret := start(t, ""), start(t, "secret")
	bearer := map[string]string{"Authorization": "Bearer secret"}
	for _, c := range []struct {
		host    string
		refused bool
	}{
		{"localhost:9180", false}, {"127.0.0.1:9180", false}, {"[::1]:9180", false}, {"::1", false}, {"limeload", false},
		{"limeload:80", false}, {"evil.example", true}, {"evil.example:9180", true}, {"localhost.evil.example", true},
		{"127.0.0.1.evil.example:80", true}, {"evil.:80", true},
	} {
		for _, target := range []string{"/", "/page/app.js", "/v1/status"} {
			got := open.do(t, request{method: "GET", target: target, host: c.host})
			if (got.status != 200) != c.refused || c.refused && got.problem(t).Type != problemWrongHost {
				t.Errorf("%s of %s: %d %.200s", target, c.host, got.status, got.body)
			}
			got = secret.do(t, request{method: "GET", target: target, host: c.host, header: bearer})
			if got.status != 200 {
				t.Errorf("%s of %s with the token: %d %.200s", target, c.host, got.status, got.body)
			}
		}
	}
}

// TestNoCORS: there is no CORS, so no browser lets another page read an answer.
func TestNoCORS(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	for _, method := range []string{"GET", "OPTIONS"} {
		got := w.do(t, request{method: method, target: "/v1/status", header: map[string]string{
			"Origin": (&url.URL{Scheme: "http", Host: w.tcp}).String(), "Access-Control-Request-Method": "PUT",
		}})
		for name := range got.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s answers with %s", method, name)
			}
		}
	}
}

// TestReadOnlyWithoutToken calls every route without a token. On loopback, routes that change something, parse input or
// are expensive are refused; on the Unix socket, none is.
func TestReadOnlyWithoutToken(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	refused := 0
	for _, r := range routes() {
		if r.path == "/v1/events" || r.path == tracePath || strings.HasSuffix(r.path, "/profile") {
			continue // they go on until the client leaves
		}
		q := request{method: r.method, target: strings.TrimSuffix(r.path, "{$}")}
		got := w.overTCP(t, q)
		if r.method == http.MethodGet && !strings.HasPrefix(r.path, "/debug/") {
			if got.status == http.StatusForbidden {
				t.Errorf("%s %s: %d %s", r.method, r.path, got.status, got.body)
			}
			continue
		}
		refused++
		if p := got.problem(t); p.Type != problemReadOnly || !strings.Contains(p.Detail, "admin.token_file") {
			t.Errorf("%s %s: %s %q", r.method, r.path, p.Type, p.Detail)
		}
		if got := w.do(t, q); got.status == http.StatusForbidden {
			t.Errorf("%s %s on the Unix socket: %d %s", r.method, r.path, got.status, got.body)
		}
	}
	if refused < 10 {
		t.Errorf("%d routes refused", refused)
	}
	w.server.SetToken("secret") // as a reload does
	bearer := map[string]string{"Authorization": "Bearer secret"}
	if got := w.overTCP(t, request{method: "DELETE", target: "/v1/sessions/01", header: bearer}); got.status != 200 {
		t.Errorf("with a token: %d %s", got.status, got.body)
	}
}
