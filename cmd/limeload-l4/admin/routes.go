package admin

import (
	"net/http"
	"net/http/pprof"
	"net/url"
	"strings"
)

const (
	metricsPath = "/metrics"
	tracePath   = "/debug/pprof/trace"
)

// A route is one method of one path. Exactly one of answer and raw is set.
type route struct {
	method, path string
	query        []string // the parameters that are allowed
	open         bool     // needs no token, since a load balancer's check and a browser that opens the page have none
	page         bool     // a file of the page
	measures     bool     // is also at an address of metrics alone
	changes      bool     // changes something in the daemon, and so is logged

	answer func(*Server, *asked) (any, error) // its result is sent as JSON; nil is an answer without a body
	raw    func(*Server, http.ResponseWriter, *http.Request)
}

// reads reports whether a request is harmless: it changes nothing, parses no input of the caller, and does not slow the
// daemon down as a profile does.
func (r route) reads() bool {
	return r.method == http.MethodGet && !strings.HasPrefix(r.path, "/debug/")
}

// asked is a request to a route with an answer.
type asked struct {
	*http.Request
	w     http.ResponseWriter
	query url.Values // only parameters that the route allows, each with a value
	body  any        // as it was decoded, for the log; nil before that or without a body
}

// routes returns all routes. openapi.yaml and docs/api.md describe each of them.
func routes() []route {
	sessions := []string{"id", "listener", "pool", "backend", "client", "min_age", "min_idle"}
	profile := []string{"debug", "gc", "seconds"}
	return []route{
		{method: "GET", path: "/v1/status", answer: (*Server).status},
		{method: "GET", path: "/v1/listeners", answer: (*Server).listenerList},
		{method: "POST", path: "/v1/listeners/{listener}/dns/purge", changes: true, answer: (*Server).purgeDNS},
		{method: "GET", path: "/v1/pools", answer: (*Server).poolList},
		{method: "GET", path: "/v1/pools/{pool}", answer: (*Server).pool},
		{method: "GET", path: "/v1/backends", answer: (*Server).backendList},
		{method: "GET", path: "/v1/pools/{pool}/backends", answer: (*Server).backendList},
		{method: "POST", path: "/v1/pools/{pool}/backends", changes: true, answer: (*Server).addBackend},
		{method: "GET", path: "/v1/pools/{pool}/backends/{backend}", answer: (*Server).backend},
		{method: "PATCH", path: "/v1/pools/{pool}/backends/{backend}", changes: true, answer: (*Server).changeBackend},
		{method: "DELETE", path: "/v1/pools/{pool}/backends/{backend}", query: []string{"local"}, changes: true,
			answer: (*Server).removeBackend},
		{method: "POST", path: "/v1/pools/{pool}/backends/{backend}/drain", changes: true,
			answer: (*Server).drainBackend},
		{method: "GET", path: "/v1/sessions", query: append(sessions[:len(sessions):len(sessions)], "limit"),
			answer: (*Server).sessionList},
		{method: "DELETE", path: "/v1/sessions", query: append(sessions[:len(sessions):len(sessions)], "all"),
			changes: true, answer: (*Server).endSessions},
		{method: "DELETE", path: "/v1/sessions/{id}", changes: true, answer: (*Server).endSession},
		{method: "GET", path: "/v1/clients", query: []string{"listener", "sort", "limit"},
			answer: (*Server).clientList},
		{method: "GET", path: accessPath, answer: (*Server).accessRules},
		{method: "POST", path: accessPath, changes: true, answer: (*Server).addAccessRule},
		{method: "DELETE", path: accessPath, query: []string{"prefix", "listener", "local"}, changes: true,
			answer: (*Server).removeAccessRule},
		{method: "GET", path: accessPath + "/check", query: []string{"address", "listener"},
			answer: (*Server).checkAccess},
		{method: "GET", path: "/v1/fleet/changes", answer: (*Server).fleetChanges},
		{method: "GET", path: "/v1/explain",
			query:  []string{"listener", "pool", "client", "sni", "alpn", "mqtt_client_id"},
			answer: (*Server).explain},
		{method: "GET", path: "/v1/events", query: []string{"pool", "kind"}, raw: (*Server).streamEvents},
		{method: "GET", path: fleetPath, answer: (*Server).fleet},
		{method: "GET", path: fleetPath + "/verify", answer: (*Server).compareFleet},
		{method: "POST", path: "/v1/reload", changes: true, answer: (*Server).reload},
		{method: "POST", path: "/v1/upgrade", changes: true, answer: (*Server).upgrade},
		{method: "POST", path: "/v1/plan", query: []string{"name"}, answer: (*Server).plan},
		{method: "GET", path: "/v1/log", answer: (*Server).logLevel},
		{method: "PUT", path: "/v1/log", changes: true, answer: (*Server).setLogLevel},
		{method: "GET", path: "/v1/openapi.yaml", raw: (*Server).openAPI},
		{method: "GET", path: metricsPath, measures: true, raw: (*Server).writeMetrics},
		{method: "GET", path: "/{$}", open: true, page: true, raw: (*Server).page},
		{method: "GET", path: pagePath + "{file}", open: true, page: true, raw: (*Server).page},
		{method: "GET", path: "/ready", open: true, measures: true, raw: (*Server).ready},
		{method: "GET", path: "/live", open: true, measures: true, raw: (*Server).live},
		{method: "GET", path: "/debug/pprof/{$}", raw: profiler(pprof.Index)},
		{method: "GET", path: "/debug/pprof/cmdline", raw: profiler(pprof.Cmdline)},
		{method: "GET", path: "/debug/pprof/profile", query: profile, raw: profiler(pprof.Profile)},
		{method: "GET", path: tracePath, query: profile, raw: profiler(pprof.Trace)},
		{method: "GET", path: "/debug/pprof/{profile}", query: profile, raw: profiler(pprof.Index)},
	}
}
