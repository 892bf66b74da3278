package admin

import (
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// maxLimit is the largest limit of a list of sessions.
const maxLimit = 1_000_000

// parameters returns the query of a request. Only allowed parameters may occur, each once (kind more often) and with a
// value. An empty value is refused: "?pool=" from a script with an empty variable must not mean all pools.
func parameters(r *http.Request, allowed []string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, newProblem(problemBadRequest, "the query cannot be understood: "+clip(err.Error()))
	}
	for name, values := range query {
		switch {
		case !slices.Contains(allowed, name) && len(allowed) == 0:
			text := clip(name) + ": there is no such parameter; there are none"
			return nil, newProblem(problemBadRequest, text).of(clip(name))
		case !slices.Contains(allowed, name):
			return nil, newProblem(problemBadRequest,
				clip(name)+": there is no such parameter; there are "+strings.Join(allowed, ", ")).of(clip(name))
		case len(values) > 1 && name != "kind":
			return nil, newProblem(problemBadRequest, name+": it is there more than once").of(name)
		case slices.Contains(values, ""):
			return nil, newProblem(problemBadRequest, name+": it has no value").of(name)
		}
	}
	return query, nil
}

// sessionFilter parses the filter of a query.
func sessionFilter(q url.Values) (SessionFilter, error) {
	f := SessionFilter{
		ID: q.Get("id"), Listener: q.Get("listener"), Pool: q.Get("pool"), Backend: q.Get("backend"),
		Client: q.Get("client"),
	}
	if f.Client != "" && !isAddress(f.Client) && !isPrefix(f.Client) {
		return f, invalid("client", f.Client, "an IP address or a prefix, such as 192.0.2.0/24")
	}
	var err error
	if f.MinAge, err = duration(q, "min_age"); err != nil {
		return f, err
	}
	if f.MinIdle, err = duration(q, "min_idle"); err != nil {
		return f, err
	}
	f.Limit, err = limit(q, maxLimit)
	return f, err
}

// duration parses a parameter such as 90s. Zero is refused, since it looks like a filter and is none.
func duration(q url.Values, name string) (time.Duration, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, invalid(name, text, "a time above 0 with its unit, such as 90s or 1h30m")
	}
	return d, nil
}

// limit parses the limit of a list, which is most at most; 0 without one.
func limit(q url.Values, most int) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, invalid("limit", text, "1 to "+strconv.Itoa(most))
	}
	return n, nil
}

// explainQuery parses the query of an explanation.
func explainQuery(q url.Values) (ExplainQuery, error) {
	e := ExplainQuery{Listener: q.Get("listener"), Pool: q.Get("pool"), Client: q.Get("client"), SNI: q.Get("sni"),
		ALPN: q["alpn"], MQTTClientID: q.Get("mqtt_client_id")}
	switch {
	case e.Listener == "" && e.Pool == "":
		return e, newProblem(problemBadRequest, "listener: a listener or a pool needs to be named").of("listener")
	case e.Listener != "" && e.Pool != "":
		return e, newProblem(problemBadRequest, "pool: a listener or a pool needs to be named, and not both").of("pool")
	case e.Client == "":
		return e, newProblem(problemBadRequest, "client: it needs to be there").of("client")
	}
	if at, err := netip.ParseAddrPort(e.Client); (err != nil || !hasGoodZone(at.Addr())) && !isAddress(e.Client) {
		return e, invalid("client", e.Client, "an IP address, or one and a port")
	}
	return e, nil
}

// eventFilter parses a filter of events. There may be several parameters kind, and each may hold several kinds,
// separated by commas.
func eventFilter(q url.Values) (EventFilter, error) {
	f := EventFilter{Pool: q.Get("pool")}
	for _, list := range q["kind"] {
		for kind := range strings.SplitSeq(list, ",") {
			if !slices.Contains(EventKinds(), kind) {
				return f, invalid("kind", kind, "one of "+strings.Join(EventKinds(), ", "))
			}
			f.Kinds = append(f.Kinds, kind)
		}
	}
	return f, nil
}

// applies reports whether an event passes the filter.
func (f EventFilter) applies(e Event) bool {
	return (f.Pool == "" || f.Pool == e.Pool) && (len(f.Kinds) == 0 || slices.Contains(f.Kinds, e.Kind))
}

// maxProfileSeconds bounds a profile, so that nobody profiles for days by mistake.
const maxProfileSeconds = 600

// checkProfile refuses a profile that takes too long, or whose length cannot be parsed. Only a trace may have fractions
// of seconds: elsewhere net/http/pprof takes 0.5 for its default of 30.
func checkProfile(r *http.Request) error {
	text := r.URL.Query().Get("seconds")
	if text == "" {
		return nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 || seconds > maxProfileSeconds {
		return invalid("seconds", text, "a number above 0 and up to "+strconv.Itoa(maxProfileSeconds))
	}
	if seconds != math.Trunc(seconds) && r.URL.Path != tracePath {
		return invalid("seconds", text, "a whole number")
	}
	return nil
}

// invalid returns the error about a value that is not allowed.
func invalid(field, value, want string) error {
	return &RequestError{Field: field, Value: clip(value), Want: want}
}

func isAddress(text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && hasGoodZone(ip)
}

// hasGoodZone reports whether an address may be repeated in an answer or a log: netip takes any text for a zone.
func hasGoodZone(ip netip.Addr) bool { return ip.Zone() == "" || pool.ValidZone(ip.Zone()) }

func isPrefix(text string) bool {
	_, err := netip.ParsePrefix(text)
	return err == nil
}
