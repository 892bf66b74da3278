package session

import (
	"bytes"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/pool"
)

// A Route sends clients to a pool by what their ClientHello says. A client must fit both lists.
type Route struct {
	// ServerNames are in lower case: "db.example.com", "*.example.com" for every name below example.com, at any depth,
	// or "*" for all clients, also those that name no server. Empty is "*".
	ServerNames []string

	Protocols []string // the client offers one of them by ALPN; empty = whatever it offers
	Pool      *pool.Pool
}

// AnyName is the server name of a Route that fits all clients.
const AnyName = "*"

// Routes are the routes of a listener, made for fast lookups. They are never modified; any goroutine may use them.
type Routes struct {
	exact map[string][]target // by server name
	below map[string][]target // by what follows "*." in a pattern
	any   []target
}

// A target is where one pattern of a route leads.
type target struct {
	protocols []string // the client must offer one of them; empty = all fit
	pool      *pool.Pool
}

// NewRoutes makes Routes. For one pattern, a route with protocols goes before one without, and of two routes with
// protocols the first one in the list.
func NewRoutes(routes []Route) *Routes {
	r := &Routes{exact: make(map[string][]target), below: make(map[string][]target)}
	for _, withProtocols := range []bool{true, false} {
		for i := range routes {
			if route := &routes[i]; len(route.Protocols) > 0 == withProtocols {
				r.add(route)
			}
		}
	}
	return r
}

func (r *Routes) add(route *Route) {
	to := target{route.Protocols, route.Pool}
	if len(route.ServerNames) == 0 {
		r.any = append(r.any, to)
	}
	for _, name := range route.ServerNames {
		if name == AnyName {
			r.any = append(r.any, to)
		} else if suffix, wild := strings.CutPrefix(name, "*."); wild {
			r.below[suffix] = append(r.below[suffix], to)
		} else {
			r.exact[name] = append(r.exact[name], to)
		}
	}
}

// Pool returns the pool of the route that fits best, or nil if none does: the exact server name comes first, then
// wildcards, the longest first, and then "*". name is in lower case, and empty if the client names no server; offers
// reports whether it offers a protocol. Pool allocates nothing.
func (r *Routes) Pool(name []byte, offers func(protocol string) bool) *pool.Pool {
	if len(name) == 0 {
		return best(r.any, offers)
	}
	if p := best(r.exact[string(name)], offers); p != nil {
		return p
	}
	for len(r.below) > 0 {
		dot := bytes.IndexByte(name, '.')
		if dot < 0 {
			break
		}
		name = name[dot+1:]
		if p := best(r.below[string(name)], offers); p != nil {
			return p
		}
	}
	return best(r.any, offers)
}

// best returns the pool of the first target that fits, or nil.
func best(targets []target, offers func(protocol string) bool) *pool.Pool {
	for i := range targets {
		t := &targets[i]
		if len(t.protocols) == 0 || slices.ContainsFunc(t.protocols, offers) {
			return t.pool
		}
	}
	return nil
}
