package l4

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/pool"
)

// A Route sends clients of TCP to a pool by the server name and the protocols in their TLS ClientHello.
type Route = session.Route

// PoolFor returns the pool of a listener for a client with this server name, which is "" if the client sends none, and
// these protocols. It is nil if no route fits such clients and the listener has no other pool: they are refused. The
// error is an ErrUnknownListener. It may be called from any goroutine.
func (s *Server) PoolFor(listener, serverName string, protocols []string) (*pool.Pool, error) {
	s.mu.Lock()
	ls := s.namedLocked(listener)
	s.mu.Unlock()
	if ls == nil {
		return nil, fmt.Errorf("listener %q: %w", listener, ErrUnknownListener)
	}
	spec := ls.spec.Load()
	offers := func(protocol string) bool { return slices.Contains(protocols, protocol) }
	if p := session.NewRoutes(spec.Routes).Pool([]byte(strings.ToLower(serverName)), offers); p != nil {
		return p, nil
	}
	return spec.Pool, nil
}

func sameRoute(a, b Route) bool {
	return a.Pool == b.Pool && slices.Equal(a.ServerNames, b.ServerNames) && slices.Equal(a.Protocols, b.Protocols)
}

func (spec *ListenerSpec) validateRoutes() error {
	switch {
	case spec.MQTT && spec.Protocol != TCP:
		return errors.New("MQTT client identifiers need TCP")
	case spec.MQTT && spec.InspectTimeout <= 0:
		return fmt.Errorf("inspect timeout of %v", spec.InspectTimeout)
	case len(spec.Routes) == 0:
		return nil
	case spec.Protocol != TCP:
		return errors.New("routes need TCP")
	case spec.DNS != nil:
		return errors.New("routes and DNS settings exclude each other")
	case spec.InspectTimeout <= 0:
		return fmt.Errorf("inspect timeout of %v", spec.InspectTimeout)
	}
	for i := range spec.Routes {
		if spec.Routes[i].Pool == nil {
			return fmt.Errorf("route %d has no pool", i)
		}
	}
	return nil
}
