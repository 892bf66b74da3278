package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/pool"
)

const (
	path1       = "/v1/pools/redis/backends/b1"
	pathPurge   = "/v1/listeners/names/dns/purge"
	pathAccess  = "/v1/access"
	pathAwkward = "/v1/pools/redis/backends/%5Bfe80::1%25eth0%5D:6379"
)

func jsonHeader() map[string]string { return map[string]string{"Content-Type": mediaJSON} }

// TestRoutes sends a valid request to every route.
func TestRoutes(t *testing.T) {
	t.Parallel()
	toml := map[string]string{"Content-Type": mediaTOML}
	cases := []struct {
		route   string
		request request
		status  int
		media   string
		body    string // the answer contains it
		changed string // the call that changed something
	}{
		{"GET /v1/status", request{method: "GET", target: "/v1/status"}, 200, mediaJSON, `"listeners":[]`, ""},
		{"GET /v1/listeners", request{method: "GET", target: "/v1/listeners"}, 200, mediaJSON, `"ended":{}`, ""},
		{"GET /v1/listeners", request{method: "GET", target: "/v1/listeners"}, 200, mediaJSON,
			`"dropped":{},"dns":{"in_flight":2,`, ""},
		{"POST /v1/listeners/{listener}/dns/purge",
			request{"POST", pathPurge, "", jsonHeader(), `{"name":"Example.com.","below":true}`},
			200, mediaJSON, `{"purged":3}`, "purge {Name:Example.com. Below:true All:false}"},
		{"POST /v1/listeners/{listener}/dns/purge", request{"POST", pathPurge, "", jsonHeader(), `{"all":true}`},
			200, mediaJSON, `{"purged":3}`, "purge {Name: Below:false All:true}"},
		{"GET /v1/pools", request{method: "GET", target: "/v1/pools"}, 200, mediaJSON, `{"pools":[{"name":"redis"`, ""},
		{"GET /v1/pools/{pool}", request{method: "GET", target: "/v1/pools/redis"}, 200, mediaJSON,
			`{"name":"redis"`, ""},
		{"GET /v1/backends", request{method: "GET", target: "/v1/backends"}, 200, mediaJSON,
			`"name":"[fe80::1%eth0]:6379"`, ""},
		{"GET /v1/pools/{pool}/backends", request{method: "GET", target: "/v1/pools/empty/backends"}, 200, mediaJSON,
			`{"backends":[]}`, ""},
		{"POST /v1/pools/{pool}/backends",
			request{"POST", "/v1/pools/redis/backends", "", jsonHeader(), `{"address":"[2001:db8::1]:1","weight":0}`},
			201, mediaJSON, `"name":"[2001:db8::1]:1"`, "add redis/[2001:db8::1]:1"},
		{"GET /v1/pools/{pool}/backends/{backend}", request{method: "GET", target: pathAwkward}, 200, mediaJSON,
			`"name":"[fe80::1%eth0]:6379"`, ""},
		{"PATCH /v1/pools/{pool}/backends/{backend}",
			request{"PATCH", pathAwkward, "", jsonHeader(), ` {"weight": 7, "mode": "drain"} `},
			200, mediaJSON, `"weight":7`, "change redis/" + awkward},
		{"DELETE /v1/pools/{pool}/backends/{backend}", request{method: "DELETE", target: pathAwkward}, 204, "", "",
			"remove redis/" + awkward},
		{"POST /v1/pools/{pool}/backends/{backend}/drain", request{method: "POST", target: path1 + "/drain"},
			200, mediaJSON, `"mode":"drain"`, "drain redis/b1 in 0s"},
		{"POST /v1/pools/{pool}/backends/{backend}/drain", request{"POST", path1 + "/drain", "",
			map[string]string{"Content-Type": "application/json; charset=UTF-8"},
			`{"deadline_seconds":1.5,"remove":true}`},
			200, mediaJSON, `"remove":true`, "drain redis/b1 in 1.5s"},
		{"GET /v1/sessions", request{method: "GET", target: "/v1/sessions?pool=redis&min_age=1h30m&limit=5"}, 200,
			mediaJSON, `"total":2`, ""},
		{"DELETE /v1/sessions", request{method: "DELETE", target: "/v1/sessions?client=198.51.100.0/29"}, 200,
			mediaJSON, `{"ended":1}`, "end 1"},
		{"DELETE /v1/sessions/{id}", request{method: "DELETE", target: "/v1/sessions/01"}, 200, mediaJSON,
			`{"ended":1}`, "end 1"},
		{"GET /v1/fleet", request{method: "GET", target: "/v1/fleet"}, 200, mediaJSON, `"name":"edge","node":"lb1"`, ""},
		{"GET /v1/fleet/verify", request{method: "GET", target: "/v1/fleet/verify"}, 200, mediaJSON, `"mute":[]`, ""},
		{"GET /v1/clients", request{method: "GET", target: "/v1/clients?listener=redis&sort=bytes&limit=5"}, 200,
			mediaJSON, `{"clients":[{"listener":"redis","protocol":"tcp","client":"192.0.2.7/32","sessions":12,` +
				`"rate_per_second":3.5,`, ""},
		{"GET /v1/access", request{method: "GET", target: "/v1/access"}, 200, mediaJSON,
			`{"rules":[{"prefix":"198.51.100.0/24","action":"deny","listener":"","listener_gone":false,` +
				`"added":"2026-02-03T04:05:06Z","comment":"scans <us>","fleet":false}`, ""},
		{"POST /v1/access", request{"POST", pathAccess, "", jsonHeader(), `{"prefix":"192.0.2.0/24","action":"deny",` +
			`"listener":"redis","for_seconds":600,"comment":"ticket 7"}`}, 200, mediaJSON,
			`"until":"2026-02-03T04:15:06Z","comment":"ticket 7","fleet":false}`, `deny 192.0.2.0/24 at "redis"`},
		{"POST /v1/access", request{"POST", pathAccess, "", jsonHeader(), `{"prefix":"2001:db8::7","action":"allow"}`},
			200, mediaJSON, `"listener":"","listener_gone":false`, `allow 2001:db8::7 at ""`},
		{"DELETE /v1/access", request{method: "DELETE", target: pathAccess + "?prefix=198.51.100.0/24"}, 204, "", "",
			`remove rule 198.51.100.0/24 at ""`},
		{"DELETE /v1/access", request{method: "DELETE", target: pathAccess + "?prefix=198.51.100.7/32&listener=old"},
			204, "", "", `remove rule 198.51.100.7/32 at "old"`},
		{"GET /v1/access/check", request{method: "GET", target: pathAccess + "/check?address=192.0.2.7"}, 200,
			mediaJSON, `"allowed":true,"decided_by":"list","prefix":"192.0.2.0/24"`, ""},
		{"GET /v1/explain", request{method: "GET", target: "/v1/explain?listener=redis&client=[2001:db8::1]:7"}, 200,
			mediaJSON, `<for its weight>`, ""},
		{"POST /v1/reload", request{method: "POST", target: "/v1/reload"}, 200, mediaJSON,
			`"took_seconds":0.25`, "reload"},
		{"POST /v1/upgrade", request{method: "POST", target: "/v1/upgrade"}, 200, mediaJSON,
			`"sessions":500,"flows":200,"left":{}`, "upgrade {Deadline:0}"},
		{"POST /v1/upgrade", request{"POST", "/v1/upgrade", "", jsonHeader(), `{"deadline_seconds":7.5}`}, 200,
			mediaJSON, `"new_pid":200`, "upgrade {Deadline:7.5}"},
		{"POST /v1/plan", request{method: "POST", target: "/v1/plan"}, 200, mediaJSON, `"pools":[]`, ""},
		{"POST /v1/plan", request{"POST", "/v1/plan?name=new.toml", "", toml, "[global]\n"}, 200, mediaJSON,
			`"pools":[]`, ""},
		{"GET /v1/fleet/changes", request{method: "GET", target: "/v1/fleet/changes"}, 200, mediaJSON,
			`"what":"weight","value":"3","undone":false,"in_force":true`, ""},
		{"GET /v1/log", request{method: "GET", target: "/v1/log"}, 200, mediaJSON, `{"level":"info"}`, ""},
		{"PUT /v1/log", request{"PUT", "/v1/log", "", jsonHeader(), `{"level":"debug"}`}, 200, mediaJSON,
			`{"level":"debug"}`, "level debug"},
		{"GET /v1/openapi.yaml", request{method: "GET", target: "/v1/openapi.yaml"}, 200, mediaYAML,
			"openapi: 3.1.0", ""},
		{"GET /metrics", request{method: "GET", target: "/metrics"}, 200, "text/plain; version=0.0.4",
			"limeload_sessions 2", ""},
		{"GET /{$}", request{method: "GET", target: "/"}, 200, "text/html; charset=utf-8", "<!doctype html>", ""},
		{"GET /page/{file}", request{method: "GET", target: "/page/icon.svg"}, 200, "image/svg+xml", "<svg", ""},
		{"GET /ready", request{method: "GET", target: "/ready"}, 200, "text/plain; charset=utf-8", "ready\n", ""},
		{"GET /live", request{method: "GET", target: "/live"}, 200, "text/plain; charset=utf-8", "live\n", ""},
		{"GET /debug/pprof/{$}", request{method: "GET", target: "/debug/pprof/"}, 200, "text/html; charset=utf-8",
			"goroutine", ""},
		{"GET /debug/pprof/cmdline", request{method: "GET", target: "/debug/pprof/cmdline"}, 200,
			"text/plain; charset=utf-8", "admin.test", ""},
		{"GET /debug/pprof/profile", request{method: "HEAD", target: "/debug/pprof/profile?seconds=600"}, 200,
			"", "", ""},
		{"GET /debug/pprof/trace", request{method: "GET", target: "/debug/pprof/trace?seconds=0.01"}, 200,
			"application/octet-stream", "trace", ""},
		{"GET /debug/pprof/{profile}", request{method: "GET", target: "/debug/pprof/goroutine?debug=1"}, 200,
			"text/plain; charset=utf-8", "goroutine profile", ""},
	}
	var asked []string
	for _, c := range cases {
		w := start(t, "")
		profiles := strings.HasPrefix(c.request.target, "/debug/pprof/")
		if profiles {
			profiling.Lock()
		}
		got := w.do(t, c.request)
		if profiles {
			profiling.Unlock()
		}
		if got.status != c.status || got.header.Get("Content-Type") != c.media || !strings.Contains(got.body, c.body) {
			t.Errorf("%s %s: status %d, %s, body %.200q; expected %d, %s, %q",
				c.request.method, c.request.target, got.status, got.header.Get("Content-Type"), got.body, c.status,
				c.media, c.body)
		}
		if done := strings.Join(w.fake.done(), ", "); done != c.changed {
			t.Errorf("%s %s: the daemon did %q, expected %q", c.request.method, c.request.target, done, c.changed)
		}
		if got.header.Get("Cache-Control") != "no-store" || got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: header %v", c.request.method, c.request.target, got.header)
		}
		if lines := strings.Count(w.log.String(), "admin request"); lines != min(1, len(c.changed)) {
			t.Errorf("%s %s: %d lines in the log: %s", c.request.method, c.request.target, lines, w.log)
		}
		asked = append(asked, c.route)
	}
	for _, r := range routes() {
		// it does not end
		if name := r.method + " " + r.path; !slices.Contains(asked, name) && name != "GET /v1/events" {
			t.Errorf("%s is not asked", name)
		}
	}
}

// TestLocation: an added backend is found at the location that the answer has.
func TestLocation(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain", "[::1%a b]:1", "a/b", "..", ".", "%2F", "ü?#;"} {
		w := start(t, "")
		body, err := json.Marshal(NewBackend{Name: name, Address: "192.0.2.9:1"})
		check(t, err)
		added := w.do(t, request{"POST", "/v1/pools/redis/backends", "", jsonHeader(), string(body)})
		got := w.do(t, request{method: "GET", target: added.header.Get("Location")})
		var b Backend
		if err := json.Unmarshal([]byte(got.body), &b); err != nil || b.Name != name {
			t.Errorf("backend %q: added with %d, Location %q, where there is %d %s", name, added.status,
				added.header.Get("Location"), got.status, got.body)
		}
	}
}

// A refusal is a request that must be refused, and how.
type refusal struct {
	request request
	kind    string
	field   string
}

// hostileBodies returns bodies that no route accepts as JSON. They use the fields "weight" and "mode", or others if
// they are replaced.
func hostileBodies(method, target, number, text string) []refusal {
	post := func(body string) request { return request{method, target, "", jsonHeader(), body} }
	quoted := func(format string, args ...any) request { return post(fmt.Sprintf(format, args...)) }
	list := []refusal{
		{post("{"), problemBadRequest, ""},
		{post("nonsense"), problemBadRequest, ""},
		{post("[]"), problemBadRequest, ""},
		{post("null"), problemBadRequest, ""},
		{post(`"text"`), problemBadRequest, ""},
		{post("7"), problemBadRequest, ""},
		{post(" "), problemBadRequest, ""},
		{post(`{1:2}`), problemBadRequest, ""},
		{post(`{"other":1}`), problemBadRequest, "other"},
		{quoted(`{%q:"x"} {}`, text), problemBadRequest, ""},
		{quoted(`{%q:"x"}]`, text), problemBadRequest, ""},
		{quoted(`{%q:"x",}`, text), problemBadRequest, ""},
		{quoted(`{%q:"x",%q:"x"}`, text, text), problemBadRequest, text},
		{quoted(`{%q:null}`, text), problemBadRequest, text},
		{quoted(`{%q:7}`, text), problemBadRequest, text},
		{quoted(`{%q:["x"]}`, text), problemBadRequest, text},
		{quoted(`{%q:"x"}`, strings.ToUpper(text)), problemBadRequest, strings.ToUpper(text)},
		{quoted("{%q:\"\xff\"}", text), problemBadRequest, ""},
		{quoted(`{%q:%s}`, text, strings.Repeat("[", 20000)), problemBadRequest, ""},
		{quoted(`{%q:"%s"}`, text, strings.Repeat("x", 1<<20)), problemBodyTooLarge, ""},
		{request{method, target, "", map[string]string{"Content-Type": "text/plain"}, "{}"}, problemMediaType, ""},
		{request{method, target, "", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, "{}"},
			problemMediaType, ""},
		{request{method, target, "", map[string]string{"Content-Type": "application/json; charset=latin1"}, "{}"},
			problemMediaType, ""},
		{request{method, target, "", map[string]string{"Content-Type": ";"}, "{}"}, problemMediaType, ""},
		{request{method, target, "", nil, "{}"}, problemMediaType, ""},
		{request{method, target, "", map[string]string{"Content-Type": mediaJSON, "Content-Encoding": "gzip"}, "{}"},
			problemMediaType, ""},
	}
	if number != "" {
		list = append(list,
			refusal{quoted(`{%q:"1"}`, number), problemBadRequest, number},
			refusal{quoted(`{%q:NaN}`, number), problemBadRequest, ""}, // not JSON
			refusal{quoted(`{%q:Infinity}`, number), problemBadRequest, ""},
			refusal{quoted(`{%q:1e400}`, number), problemBadRequest, number},
			refusal{quoted(`{%q:true}`, number), problemBadRequest, number},
			refusal{quoted(`{%q:-1}`, number), problemInvalidValue, number},
			refusal{quoted(`{%q:1000000000}`, number), problemInvalidValue, number},
		)
	}
	return list
}

// refusals returns hostile requests to every route that changes something.
func refusals() []refusal {
	add := func(body string) request { return request{"POST", "/v1/pools/redis/backends", "", jsonHeader(), body} }
	purge := func(body string) request { return request{"POST", pathPurge, "", jsonHeader(), body} }
	patch := func(body string) request { return request{"PATCH", path1, "", jsonHeader(), body} }
	none := func(method, target string) request { return request{method: method, target: target} }
	list := slices.Concat(
		hostileBodies("PATCH", path1, "weight", "mode"),
		hostileBodies("POST", path1+"/drain", "deadline_seconds", "remove")[:9], // remove is not a string
		hostileBodies("PUT", "/v1/log", "", "level"),
		hostileBodies("POST", pathPurge, "", "name"),
		hostileBodies("POST", pathAccess, "", "comment"),
		hostileRules(),
	)
	for _, r := range hostileBodies("POST", "/v1/pools/redis/backends", "weight", "name") {
		r.request.body = strings.Replace(r.request.body, `:-1}`, `:-1,"address":"192.0.2.3:1"}`, 1)
		r.request.body = strings.Replace(r.request.body, `:1000000000}`, `:1000000000,"address":"192.0.2.3:1"}`, 1)
		list = append(list, r)
	}
	for _, r := range []request{
		none("DELETE", path1), none("DELETE", "/v1/sessions?pool=redis"), none("DELETE", "/v1/sessions/01"),
		none("POST", "/v1/reload"),
	} {
		r.body = "x"
		list = append(list, refusal{r, problemBadRequest, ""})
	}
	return append(list, []refusal{
		{add(`{}`), problemBadRequest, "address"},
		{add(`{"address":"nonsense"}`), problemInvalidValue, "address"},
		{add(`{"address":"192.0.2.3:1","weight":257}`), problemInvalidValue, "weight"},
		{add(`{"address":"192.0.2.3:1","weight":1.5}`), problemBadRequest, "weight"},
		{add(`{"address":"192.0.2.3:1","max_sessions":-1}`), problemInvalidValue, "max_sessions"},
		{add(`{"address":"192.0.2.3:1","max_rate":"5"}`), problemInvalidValue, "max_rate"},
		{add(`{"address":"192.0.2.3:1","tier":65536}`), problemInvalidValue, "tier"},
		{add(`{"address":"192.0.2.3:1","tier":18446744073709551616}`), problemBadRequest, "tier"},
		{add(`{"address":"192.0.2.3:1","mode":"paused"}`), problemInvalidValue, "mode"},
		{add(`{"address":"192.0.2.3:1","name":"b1"}`), problemDuplicateBackend, ""},
		{request{"POST", "/v1/pools/none/backends", "", jsonHeader(), `{"address":"192.0.2.3:1"}`},
			problemUnknownPool, ""},
		{patch(`{}`), problemBadRequest, ""},
		{patch(`{"weight":257}`), problemInvalidValue, "weight"},
		{patch(`{"weight":1,"max_sessions":100000001}`), problemInvalidValue, "max_sessions"},
		{patch(`{"max_rate":"5/s burst 0"}`), problemInvalidValue, "max_rate"},
		{patch(`{"weight":1,"mode":""}`), problemInvalidValue, "mode"},
		{patch(`{"name":"b2"}`), problemBadRequest, "name"},
		{request{"PATCH", "/v1/pools/redis/backends/none", "", jsonHeader(), `{"weight":1}`},
			problemUnknownBackend, ""},
		{request{"PATCH", "/v1/pools/none/backends/b1", "", jsonHeader(), `{"weight":1}`}, problemUnknownPool, ""},
		{none("PATCH", path1), problemMediaType, ""},
		{none("DELETE", path1+"?force=1"), problemBadRequest, "force"},
		{none("DELETE", "/v1/pools/redis/backends/none"), problemUnknownBackend, ""},
		{none("DELETE", "/v1/pools/none/backends/b1"), problemUnknownPool, ""},
		{none("DELETE", "/v1/pools/redis/backends/b1%2F"), problemUnknownBackend, ""},
		{request{"POST", path1 + "/drain", "", jsonHeader(), `{"deadline_seconds":2592001}`}, problemInvalidValue,
			"deadline_seconds"},
		{request{"POST", path1 + "/drain", "", jsonHeader(), `{"deadline_seconds":-0.1}`}, problemInvalidValue,
			"deadline_seconds"},
		{request{"POST", path1 + "/drain", "", jsonHeader(), `{"remove":"yes"}`}, problemBadRequest, "remove"},
		{request{"POST", path1 + "/drain", "", nil, `{}`}, problemMediaType, ""},
		{none("POST", "/v1/pools/redis/backends/none/drain"), problemUnknownBackend, ""},
		{none("DELETE", "/v1/sessions"), problemBadRequest, ""},
		{none("DELETE", "/v1/sessions?pool="), problemBadRequest, "pool"},
		{none("DELETE", "/v1/sessions?pool"), problemBadRequest, "pool"},
		{none("DELETE", "/v1/sessions?pool=redis&pool=redis"), problemBadRequest, "pool"},
		{none("DELETE", "/v1/sessions?poool=redis"), problemBadRequest, "poool"},
		{none("DELETE", "/v1/sessions?pool=redis;x"), problemBadRequest, ""},
		{none("DELETE", "/v1/sessions?pool=redis&limit=1"), problemBadRequest, "limit"},
		{none("DELETE", "/v1/sessions?pool=redis&%zz"), problemBadRequest, ""},
		{none("DELETE", "/v1/sessions?client=198.51.100.0/33"), problemInvalidValue, "client"},
		{none("DELETE", "/v1/sessions?client=localhost"), problemInvalidValue, "client"},
		{none("DELETE", "/v1/sessions?client=fe80::1%25%1b[2J"), problemInvalidValue, "client"},
		{none("GET", "/v1/explain?pool=redis&client=[fe80::1%25%1b]:7"), problemInvalidValue, "client"},
		{none("DELETE", "/v1/sessions?min_age=0s"), problemInvalidValue, "min_age"},
		{none("DELETE", "/v1/sessions?min_age=10"), problemInvalidValue, "min_age"},
		{none("DELETE", "/v1/sessions?min_idle=-1s"), problemInvalidValue, "min_idle"},
		{none("DELETE", "/v1/sessions?min_idle=9e99h"), problemInvalidValue, "min_idle"},
		{none("DELETE", "/v1/sessions?all=yes"), problemInvalidValue, "all"},
		{none("DELETE", "/v1/sessions?all=true&pool=redis"), problemBadRequest, "all"},
		{none("DELETE", "/v1/sessions/none"), problemUnknownSession, ""},
		{purge(`{}`), problemBadRequest, "name"},
		{purge(`{"name":""}`), problemBadRequest, "name"},
		{purge(`{"name":"","below":true}`), problemBadRequest, "name"},
		{purge(`{"below":true}`), problemBadRequest, "name"},
		{purge(`{"all":false}`), problemBadRequest, "name"},
		{purge(`{"all":1}`), problemBadRequest, "all"},
		{purge(`{"all":true,"name":"a"}`), problemBadRequest, "all"},
		{purge(`{"all":true,"below":true}`), problemBadRequest, "below"},
		{purge(`{"name":"a..b"}`), problemInvalidValue, "name"},
		{purge(`{"name":"` + strings.Repeat("x", 1021) + `"}`), problemInvalidValue, "name"},
		{none("POST", pathPurge), problemMediaType, ""},
		{none("POST", pathPurge+"?all=true"), problemBadRequest, "all"},
		{request{"POST", "/v1/listeners/redis/dns/purge", "", jsonHeader(), `{"all":true}`}, problemNoDNSCache, ""},
		{request{"POST", "/v1/listeners/none/dns/purge", "", jsonHeader(), `{"all":true}`}, problemUnknownListener, ""},
		{none("POST", "/v1/reload?x=1"), problemBadRequest, "x"},
		{none("POST", "/v1/upgrade?x=1"), problemBadRequest, "x"},
		{request{"POST", "/v1/upgrade", "", jsonHeader(), `{"deadline_seconds":0.5}`}, problemInvalidValue,
			"deadline_seconds"},
		{request{"POST", "/v1/upgrade", "", jsonHeader(), `{"deadline_seconds":601}`}, problemInvalidValue,
			"deadline_seconds"},
		{request{"POST", "/v1/upgrade", "", jsonHeader(), `{"program":"/bin/sh"}`}, problemBadRequest, "program"},
		{request{"PUT", "/v1/log", "", jsonHeader(), `{"level":"loud"}`}, problemInvalidValue, "level"},
		{request{"PUT", "/v1/log", "", jsonHeader(), `{}`}, problemInvalidValue, "level"},
	}...)
}

// TestRefusals sends requests that must be refused to every route that changes something, and checks that nothing has
// changed.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	before := fmt.Sprint(w.fake.backends, w.fake.sessions, w.fake.level)
	refused := make(map[string]bool)
	for _, r := range refusals() {
		got := w.do(t, r.request)
		name := fmt.Sprintf("%s %s %.60q", r.request.method, r.request.target, r.request.body)
		p := got.problem(t)
		if p.Type != r.kind || p.Field != r.field {
			t.Errorf("%s: %d %s of %q (%s), expected %s of %q", name, got.status, p.Type, p.Field, p.Detail,
				r.kind, r.field)
		}
		if p.Field != "" && !strings.Contains(p.Detail, p.Field) && p.Type != problemDuplicateBackend &&
			p.Field != "address" {
			t.Errorf("%s: the text %q does not name %s", name, p.Detail, p.Field)
		}
		if done := w.fake.done(); len(done) > 0 {
			t.Fatalf("%s: refused, and the daemon did %q", name, done)
		}
		q, err := http.NewRequest(r.request.method, "http://"+w.tcp+r.request.target, nil)
		check(t, err)
		_, pattern := w.server.mux.Handler(q)
		refused[pattern] = true
	}
	if after := fmt.Sprint(w.fake.backends, w.fake.sessions, w.fake.level); after != before {
		t.Errorf("the daemon has %s, expected %s", after, before)
	}
	for _, r := range routes() {
		if r.changes && !refused[r.method+" "+r.path] {
			t.Errorf("%s %s changes something, and nobody sees it refuse", r.method, r.path)
		}
	}
}

// TestDaemonErrors: the daemon refuses everything, with each kind of error.
func TestDaemonErrors(t *testing.T) {
	t.Parallel()
	kinds := map[string]error{
		problemUnknownPool:      fmt.Errorf("pool %q: %w", "x", ErrUnknownPool),
		problemUnknownListener:  fmt.Errorf("listener %q: %w", "x", ErrUnknownListener),
		problemNoDNSCache:       fmt.Errorf("listener %q: %w", "x", ErrNoDNSCache),
		problemUnknownBackend:   fmt.Errorf("backend %q: %w", "x", pool.ErrUnknownBackend),
		problemDuplicateBackend: fmt.Errorf("backend %q: %w", "x", pool.ErrDuplicateBackend),
		problemDuplicateAddress: fmt.Errorf("backend %q: %w", "x", pool.ErrDuplicateAddress),
		problemUnknownRule:      fmt.Errorf("rule %q: %w", "x", ErrUnknownAccessRule),
		problemTooManyRules:     fmt.Errorf("rule %q: %w", "x", ErrTooManyAccessRules),
		problemNoFleet:          ErrNoFleet,
		problemInvalidValue:     &RequestError{Field: "client", Value: "x", Want: "an address"},
		problemConfiguration:    &ConfigError{errors.New("lb.toml:1: a\nlb.toml:2: b")},
		problemNotSaved:         fmt.Errorf("change: %w", &NotSavedError{ErrUnknownPool}),
		problemEnding:           ErrEnding,
		problemInternal:         errors.New("out of descriptors"),
	}
	asked := []request{
		{method: "GET", target: "/v1/backends"},
		{"POST", "/v1/pools/redis/backends", "", jsonHeader(), `{"address":"192.0.2.3:1"}`},
		{"PATCH", path1, "", jsonHeader(), `{"weight":1}`},
		{method: "DELETE", target: path1},
		{method: "POST", target: path1 + "/drain"},
		{method: "GET", target: "/v1/sessions"},
		{method: "DELETE", target: "/v1/sessions?pool=redis"},
		{method: "DELETE", target: "/v1/sessions/01"},
		{method: "GET", target: "/v1/explain?pool=redis&client=192.0.2.1"},
		{"POST", pathPurge, "", jsonHeader(), `{"all":true}`},
		{"POST", pathAccess, "", jsonHeader(), `{"prefix":"192.0.2.0/24","action":"deny"}`},
		{method: "DELETE", target: pathAccess + "?prefix=192.0.2.0/24"},
		{method: "GET", target: pathAccess + "/check?address=192.0.2.1"},
		{method: "GET", target: "/v1/clients"},
		{method: "GET", target: "/v1/fleet"}, {method: "GET", target: "/v1/fleet/verify"},
		{method: "POST", target: "/v1/reload"}, {method: "POST", target: "/v1/upgrade"},
		{method: "POST", target: "/v1/plan"},
		{"PUT", "/v1/log", "", jsonHeader(), `{"level":"debug"}`},
	}
	w := start(t, "")
	for kind, err := range kinds {
		w.fake.mu.Lock()
		w.fake.fail = err
		w.fake.mu.Unlock()
		for _, r := range asked {
			p := w.do(t, r).problem(t)
			if p.Type != kind || p.Detail != err.Error() {
				t.Errorf("%s %s: %s %q, expected %s %q", r.method, r.target, p.Type, p.Detail, kind, err)
			}
			if kind == problemConfiguration && !slices.Equal(p.Mistakes, []string{"lb.toml:1: a", "lb.toml:2: b"}) {
				t.Errorf("%s %s: mistakes %q", r.method, r.target, p.Mistakes)
			}
		}
	}
}

// TestReads sends hostile requests to routes that change nothing.
func TestReads(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	get := func(target string) request { return request{method: "GET", target: target} }
	for _, r := range []refusal{
		{get("/index.html"), problemNotFound, ""},
		{get("/?x=1"), problemBadRequest, "x"},
		{get("/page"), problemNotFound, ""},
		{get("/page/"), problemNotFound, ""},
		{get("/page/none.js"), problemNotFound, ""},
		{get("/page/..%2fpage.go"), problemNotFound, ""},
		{get("/page/%2e%2e"), problemNotFound, ""},
		{get("/page/app.js/x"), problemNotFound, ""},
		{get("/page/app.js%00"), problemNotFound, ""},
		{get("/v1"), problemNotFound, ""},
		{get("/v2/status"), problemNotFound, ""},
		{get("//v1/status"), problemNotFound, ""},
		{get("/v1/../v1/status"), problemNotFound, ""},
		{get("/v1/status/"), problemNotFound, ""},
		{get("/debug/pprof"), problemNotFound, ""},
		{get("/v1/" + strings.Repeat("x", 10000)), problemNotFound, ""},
		{request{method: "POST", target: "/v1/status"}, problemMethod, ""},
		{request{method: "OPTIONS", target: "/v1/status"}, problemMethod, ""},
		{request{method: "TRACE", target: path1}, problemMethod, ""},
		{request{method: "BREW", target: "/ready"}, problemMethod, ""},
		{get("/v1/status?verbose=1"), problemBadRequest, "verbose"},
		{request{"GET", "/v1/status", "", nil, "x"}, problemBadRequest, ""},
		{get("/v1/pools/none"), problemUnknownPool, ""},
		{get("/v1/pools/none/backends"), problemUnknownPool, ""},
		{get("/v1/pools/redis/backends/none"), problemUnknownBackend, ""},
		{get("/v1/sessions?limit=0"), problemInvalidValue, "limit"},
		{get("/v1/sessions?limit=1e3"), problemInvalidValue, "limit"},
		{get("/v1/sessions?limit=99999999999999999999"), problemInvalidValue, "limit"},
		{get("/v1/explain?client=192.0.2.1"), problemBadRequest, "listener"},
		{get("/v1/explain?pool=redis"), problemBadRequest, "client"},
		{get("/v1/explain?pool=redis&listener=redis&client=192.0.2.1"), problemBadRequest, "pool"},
		{get("/v1/explain?pool=redis&client=192.0.2.1:99999"), problemInvalidValue, "client"},
		{get("/v1/explain?listener=none&client=192.0.2.1"), problemUnknownListener, ""},
		{get("/v1/access?listener=redis"), problemBadRequest, "listener"},
		{get("/v1/access/check"), problemBadRequest, "address"},
		{get("/v1/access/check?address=192.0.2.0/24"), problemInvalidValue, "address"},
		{get("/v1/access/check?address=fe80::1%25%1b[2J"), problemInvalidValue, "address"},
		{get("/v1/access/check?address=192.0.2.1&listener=none"), problemUnknownListener, ""},
		{get("/v1/clients?sort=name"), problemInvalidValue, "sort"},
		{get("/v1/clients?limit=0"), problemInvalidValue, "limit"},
		{get("/v1/clients?limit=10001"), problemInvalidValue, "limit"},
		{get("/v1/clients?pool=redis"), problemBadRequest, "pool"},
		{get("/v1/events?kind=nonsense"), problemInvalidValue, "kind"},
		{get("/v1/events?kind=reloaded,"), problemInvalidValue, "kind"},
		{request{method: "POST", target: "/v1/plan?name=x"}, problemBadRequest, "name"},
		{request{"POST", "/v1/plan", "", jsonHeader(), "{}"}, problemMediaType, ""},
		{request{"POST", "/v1/plan", "", map[string]string{"Content-Type": mediaTOML}, "broken = 1"},
			problemConfiguration, ""},
		{get("/debug/pprof/profile?seconds=601"), problemInvalidValue, "seconds"},
		{get("/debug/pprof/profile?seconds=NaN"), problemInvalidValue, "seconds"},
		{get("/debug/pprof/profile?seconds=0.5"), problemInvalidValue, "seconds"},
		{get("/debug/pprof/heap?seconds=1.5"), problemInvalidValue, "seconds"},
		{get("/debug/pprof/trace?seconds=-1"), problemInvalidValue, "seconds"},
		{get("/debug/pprof/heap?x=1"), problemBadRequest, "x"},
	} {
		got := w.do(t, r.request)
		if p := got.problem(t); p.Type != r.kind || p.Field != r.field || len(p.Detail) > 2000 {
			t.Errorf("%s %s: %d %s of %q (%s), expected %s of %q", r.request.method, r.request.target, got.status,
				p.Type, p.Field, p.Detail, r.kind, r.field)
		}
	}
	if got := w.do(t, request{method: "PUT", target: path1}).header.Get("Allow"); got != "DELETE, GET, HEAD, PATCH" {
		t.Errorf("Allow is %q", got)
	}
	if done := w.fake.done(); len(done) > 0 {
		t.Errorf("the daemon did %q", done)
	}
}

// TestHead sends a HEAD request to every route that has GET.
func TestHead(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	targets := strings.NewReplacer("{pool}", "redis", "{backend}", "b1", "{$}", "", "{profile}", "heap",
		"{file}", "app.js")
	for _, r := range routes() {
		target := targets.Replace(r.path)
		if r.path == "/v1/explain" {
			target += "?pool=redis&client=192.0.2.1"
		}
		if r.path == "/v1/access/check" {
			target += "?address=192.0.2.1"
		}
		if r.method != "GET" {
			continue
		}
		if got := w.do(t, request{method: "HEAD", target: target}); got.status != 200 || got.body != "" {
			t.Errorf("HEAD %s: %d %q", target, got.status, got.body)
		}
	}
}

// TestHealth: the daemon is neither ready nor live.
func TestHealth(t *testing.T) {
	t.Parallel()
	w := start(t, "secret")
	w.fake.notReady, w.fake.dead = errors.New("it drains"), errors.New("loop 1 does not turn")
	bearer := map[string]string{"Authorization": "Bearer secret"}
	for target, expected := range map[string][2]string{
		"/ready": {"not ready\n", "not ready: it drains\n"},
		"/live":  {"not live\n", "not live: loop 1 does not turn\n"},
	} {
		stranger := w.do(t, request{method: "GET", target: target})
		known := w.do(t, request{method: "GET", target: target, header: bearer})
		if stranger.status != 503 || known.status != 503 || stranger.body != expected[0] || known.body != expected[1] {
			t.Errorf("%s: %d %q and %d %q, expected 503 %q", target, stranger.status, stranger.body, known.status,
				known.body, expected)
		}
	}
}

// TestNoMetrics: without metrics there is no such route.
func TestNoMetrics(t *testing.T) {
	t.Parallel()
	w := &world{fake: newFake()}
	w.server = NewServer(Options{Balancer: w.fake})
	l := listenLoopback(t)
	w.tcp = l.Addr().String()
	w.serve(t, l)
	if p := w.overTCP(t, request{method: "GET", target: "/metrics"}).problem(t); p.Type != problemNotFound {
		t.Errorf("the problem is %s", p.Type)
	}
}
