package admin

import (
	"context"
	_ "embed" // for openapi.yaml
	"net/http"
	"strconv"
)

// openAPIDocument describes the API for programs.
//
//go:embed openapi.yaml
var openAPIDocument []byte

func (s *Server) status(a *asked) (any, error) {
	status := s.balancer.Status()
	status.ReadOnly = !s.trusts(a.Request)
	return status, noBody(a)
}

func (s *Server) listenerList(a *asked) (any, error) {
	return listenerList{s.balancer.Listeners()}, noBody(a)
}

func (s *Server) poolList(a *asked) (any, error) { return poolList{s.balancer.Pools()}, noBody(a) }

func (s *Server) pool(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	return result(s.balancer.Pool(a.PathValue("pool")))
}

// backendList returns the backends of one pool, or of all pools.
func (s *Server) backendList(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	backends, err := s.balancer.Backends(a.PathValue("pool"))
	return backendList{backends}, err
}

func (s *Server) backend(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	return result(s.balancer.Backend(a.PathValue("pool"), a.PathValue("backend")))
}

func (s *Server) sessionList(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	f, err := sessionFilter(a.query)
	if err != nil {
		return nil, err
	}
	return result(s.balancer.Sessions(a.Context(), f))
}

func (s *Server) explain(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	q, err := explainQuery(a.query)
	if err != nil {
		return nil, err
	}
	return result(s.balancer.Explain(q))
}

// plan plans the configuration in the body or, without a body, the daemon's own file.
func (s *Server) plan(a *asked) (any, error) {
	if a.ContentLength == 0 && a.Header.Get("Content-Type") == "" {
		if a.query.Has("name") {
			text := "name: it is for a configuration in the body, and there is none"
			return nil, newProblem(problemBadRequest, text).of("name")
		}
		return result(s.balancer.Plan(a.Context(), nil))
	}
	if err := wantType(a.Request, mediaTOML); err != nil {
		return nil, err
	}
	select {
	case s.plans <- struct{}{}:
		defer func() { <-s.plans }()
	default:
		return nil, newProblem(problemTooManyPlans,
			strconv.Itoa(cap(s.plans))+" configurations are being planned already")
	}
	text, err := readAll(a, s.limits.tomlBytes)
	if err != nil {
		return nil, err
	}
	name := a.query.Get("name")
	if name == "" {
		name = "request"
	}
	return result(s.balancer.Plan(a.Context(), &Configuration{Name: clip(name), Text: text}))
}

func (s *Server) logLevel(a *asked) (any, error) { return s.balancer.LogLevel(), noBody(a) }

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	s.send(w, reply{status: http.StatusOK, media: mediaYAML, body: openAPIDocument})
}

func (s *Server) writeMetrics(w http.ResponseWriter, r *http.Request) { s.metrics.ServeHTTP(w, r) }

// ready answers the check of a load balancer, which has no token. Only who may see more gets the reason.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	s.writeHealth(w, r, "ready", s.balancer.Ready())
}

func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.live)
	defer cancel()
	s.writeHealth(w, r, "live", s.balancer.Live(ctx))
}

func (s *Server) writeHealth(w http.ResponseWriter, r *http.Request, what string, err error) {
	status, text := http.StatusOK, what
	if err != nil {
		status, text = http.StatusServiceUnavailable, "not "+what
		if s.token.Load().allows(r) {
			text += ": " + err.Error()
		}
	}
	s.send(w, reply{status: status, media: mediaText + "; charset=utf-8", body: []byte(text + "\n")})
}

// profiler serves a handler of net/http/pprof, which sets its own deadline.
func profiler(serve http.HandlerFunc) func(*Server, http.ResponseWriter, *http.Request) {
	return func(s *Server, w http.ResponseWriter, r *http.Request) {
		if err := checkProfile(r); err != nil {
			s.refuse(w, err)
			return
		}
		if r.Method == http.MethodHead {
			return // a profile is of no use to a HEAD request
		}
		serve(w, r)
	}
}

// result returns no value if there is an error, so that it cannot be sent.
func result[T any](value T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return value, nil
}
