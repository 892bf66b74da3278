package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// anyName is the pattern that every client fits, also one that names no server.
const anyName = "*"

// defaultInspectTimeout is the default of inspect_timeout, which has no effect on a listener that reads nothing of what
// its clients send.
const defaultInspectTimeout = Duration(5 * time.Second)

// patterns returns the server names of the route; without sni that is "*".
func (t *Route) patterns() []string {
	if len(t.SNI) == 0 {
		return []string{anyName}
	}
	return t.SNI
}

// fitsAll reports whether every client fits the route.
func (t *Route) fitsAll() bool { return len(t.ALPN) == 0 && slices.Contains(t.SNI, anyName) }

// DefaultPool returns the pool of the clients that no other route fits: that of a route with sni = ["*"] alone, or
// Pool; "" if such clients are refused.
func (l *Listener) DefaultPool() string {
	for i := range l.Routes {
		if l.Routes[i].fitsAll() {
			return l.Routes[i].Pool
		}
	}
	return l.Pool
}

// Pools returns the pools that clients of the listener may be sent to: Pool first, if there is one, and then those of
// Routes that are others, in the file's order.
func (l *Listener) Pools() []string {
	var pools []string
	if l.Pool != "" {
		pools = append(pools, l.Pool)
	}
	for i := range l.Routes {
		if !slices.Contains(pools, l.Routes[i].Pool) {
			pools = append(pools, l.Routes[i].Pool)
		}
	}
	return pools
}

// validateRoutes reports mistakes in the routes of a listener, and makes their server names lower case.
func validateRoutes(r *report, l *Listener, pools []string) {
	path := Path("listener", l.Name)
	if len(l.Routes) == 0 {
		return
	}
	routes := join(path, "routes")
	if l.Cache != nil || l.Profile == "dns" {
		r.add(routes, Error{Message: "the listener answers DNS questions, and routes need a TLS ClientHello",
			Allowed: `needs profile = "" and no table cache`})
	}
	if r.absent[join(path, "pool")] && !slices.ContainsFunc(l.Routes, func(t Route) bool { return t.fitsAll() }) {
		r.add(join(path, "pool"), Error{Message: "missing", Allowed: `needs the pool of clients that no route fits, ` +
			`or "" to refuse them, or a route with sni = ["*"]`})
	}
	taken := map[claim]string{}
	for i := range l.Routes {
		t := &l.Routes[i]
		sub := element(routes, i)
		validatePoolName(r, join(sub, "pool"), t.Pool, pools)
		if len(t.SNI) == 0 && len(t.ALPN) == 0 && !r.seen[join(sub, "sni")] && !r.seen[join(sub, "alpn")] {
			r.add(sub, Error{Message: "neither sni nor alpn says whom it is for",
				Allowed: `needs one of them; sni = ["*"] is for everybody`})
		}
		validateALPN(r, join(sub, "alpn"), t.ALPN)
		for k, name := range t.SNI {
			t.SNI[k] = strings.ToLower(name)
			if e := checkPattern(t.SNI[k]); e != nil {
				e.Found = quote(name)
				r.add(element(join(sub, "sni"), k), *e)
			}
		}
		t.claim(r, sub, taken)
	}
}

// A claim is what two routes of a listener must not have in common.
type claim struct{ pattern, protocol string } // the protocol is "" for a route without alpn

// claim reports patterns of the route at path that it or an earlier route has already, for the same clients.
func (t *Route) claim(r *report, path string, taken map[claim]string) {
	protocols := t.ALPN
	if len(protocols) == 0 {
		protocols = []string{""}
	}
	for k, pattern := range t.patterns() {
		at := path
		if len(t.SNI) > 0 {
			at = element(join(path, "sni"), k)
		}
		for n, p := range protocols {
			if slices.Contains(protocols[:n], p) {
				continue // reported already
			}
			first, twice := taken[claim{pattern, p}]
			if !twice {
				taken[claim{pattern, p}] = at
				continue
			}
			what := "has this pattern already"
			if p != "" {
				what += " with alpn " + quote(p)
			}
			r.add(at, Error{Found: quote(pattern), Message: fmt.Sprintf("%s %s %s", first, r.where(first), what),
				Allowed: "needs each pattern once, or with other protocols in alpn"})
			break
		}
	}
}

// validateALPN checks the protocols of a route at path.
func validateALPN(r *report, path string, protocols []string) {
	for k, p := range protocols {
		switch {
		case p == "" || len(p) > 255:
			r.add(element(path, k), Error{Found: quote(p), Message: "no protocol of ALPN",
				Allowed: `needs 1 to 255 bytes, such as "h2", "http/1.1", "postgresql" or "dot"`})
		case slices.Contains(protocols[:k], p):
			r.add(element(path, k), Error{Found: quote(p), Message: "the list has it already"})
		}
	}
}

// The limits of host names (RFC 1035, 2.3.4).
const (
	maxHostName = 253
	maxLabel    = 63
)

// checkPattern returns what is wrong with a server name in lower case, which may be a wildcard; nil if nothing is.
func checkPattern(pattern string) *Error {
	const needs = `needs a host name, such as "db.example.com", "*.example.com" or "*"`
	if pattern == anyName {
		return nil
	}
	name := strings.TrimPrefix(pattern, "*.")
	e := &Error{Allowed: needs}
	bare := strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	_, err := netip.ParseAddr(bare)
	_, errPort := netip.ParseAddrPort(name)
	switch {
	case name == "":
		e.Message = "it is empty"
	case err == nil || errPort == nil:
		e.Message = "clients name no server when they connect to an address"
	case strings.Contains(name, "*"):
		e.Message = `a wildcard stands in front of a name, as "*."`
	case strings.Trim(name, hostNameChars) != "" && !isASCII(name):
		e.Message = `clients send such a name in its ASCII form, which begins with "xn--"`
	case strings.HasSuffix(name, "."):
		e.Message = "clients send the name without the dot at the end"
	case strings.Contains(name, ":"):
		e.Message = "clients send the name without a port"
	case len(name) > maxHostName:
		e.Message = fmt.Sprintf("longer than %d characters", maxHostName)
	case !isHostName(name):
		e.Message = fmt.Sprintf(`a name is labels of 1 to %d letters, digits, "-" and "_" between dots, `+
			"and the last one has a letter", maxLabel)
	default:
		return nil
	}
	return e
}

const hostNameChars = "abcdefghijklmnopqrstuvwxyz0123456789-_."

func isASCII(s string) bool { return strings.IndexFunc(s, func(c rune) bool { return c > '~' }) < 0 }

// isHostName reports whether a client may send a name, as package wire reads it. A last label of digits alone is an
// address.
func isHostName(name string) bool {
	if strings.Trim(name, hostNameChars) != "" {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return false
		}
		last = label
	}
	return strings.Trim(last, "0123456789") != ""
}
