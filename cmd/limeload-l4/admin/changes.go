package admin

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// What a body may say. The daemon has the same bounds; here they keep a number from being cut down to another on its way there.
const (
	maxWeight       = 256
	maxTier         = 65535
	maxSessionLimit = 100_000_000
	maxDrainSeconds = 365 * 24 * 60 * 60 // who waits longer wants no deadline
)

// modes are what an operator may want of a backend.
func modes() []string { return []string{"ready", "drain", "maintenance"} }

// logLevels are those of the configuration.
func logLevels() []string { return []string{"trace", "debug", "info", "warn", "error"} }

// created is an answer that says where the thing it made is.
type created struct {
	Backend
	location string
}

func (s *Server) addBackend(a *asked) (any, error) {
	var b NewBackend
	if err := s.readJSON(a, &b, false); err != nil {
		return nil, err
	}
	if b.Address == "" {
		return nil, newProblem(problemBadRequest, "address: it needs to be there").of("address")
	}
	if err := firstError(
		inRange("weight", b.Weight, maxWeight), inRange("max_sessions", &b.MaxSessions, maxSessionLimit),
		inRange("tier", &b.Tier, maxTier), modeAllowed(b.Mode),
	); err != nil {
		return nil, err
	}
	pool := a.PathValue("pool")
	made, err := s.balancer.AddBackend(pool, b)
	if err != nil {
		return nil, err
	}
	return created{made, backendPath(pool, made.Name)}, nil
}

func (s *Server) changeBackend(a *asked) (any, error) {
	var c BackendChange
	if err := s.readJSON(a, &c, false); err != nil {
		return nil, err
	}
	if c == (BackendChange{}) {
		return nil, newProblem(problemBadRequest, "the body changes nothing; it needs weight, max_sessions or mode")
	}
	if err := firstError(inRange("weight", c.Weight, maxWeight), inRange("max_sessions", c.MaxSessions, maxSessionLimit)); err != nil {
		return nil, err
	}
	if c.Mode != nil {
		if err := oneOf("mode", *c.Mode, modes()); err != nil {
			return nil, err
		}
	}
	return result(s.balancer.ChangeBackend(a.PathValue("pool"), a.PathValue("backend"), c))
}

func (s *Server) removeBackend(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	return nil, s.balancer.RemoveBackend(a.PathValue("pool"), a.PathValue("backend"))
}

func (s *Server) drainBackend(a *asked) (any, error) {
	var d Drain
	if err := s.readJSON(a, &d, true); err != nil {
		return nil, err
	}
	if math.IsNaN(d.Deadline) || d.Deadline < 0 || d.Deadline > maxDrainSeconds {
		return nil, invalid("deadline_seconds", strconv.FormatFloat(d.Deadline, 'g', -1, 64), "0 to "+strconv.Itoa(maxDrainSeconds))
	}
	return result(s.balancer.DrainBackend(a.PathValue("pool"), a.PathValue("backend"), d))
}

func (s *Server) endSessions(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	f, err := sessionFilter(a.query)
	if err != nil {
		return nil, err
	}
	all := a.query.Get("all")
	switch some := f != (SessionFilter{}); {
	case all != "" && all != "true":
		return nil, invalid("all", all, "true")
	case all == "" && !some:
		return nil, newProblem(problemBadRequest, "the query needs to say which sessions; all=true is all of them")
	case all != "" && some:
		return nil, newProblem(problemBadRequest, "all: it is every session, and needs no other parameter beside it").of("all")
	}
	n, err := s.balancer.EndSessions(a.Context(), f)
	return endedSessions{n}, err
}

func (s *Server) endSession(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	id := a.PathValue("id")
	n, err := s.balancer.EndSessions(a.Context(), SessionFilter{ID: id})
	if err == nil && n == 0 {
		err = newProblem(problemUnknownSession, fmt.Sprintf("session %q: there is no such session", clip(id)))
	}
	return endedSessions{n}, err
}

func (s *Server) reload(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	return result(s.balancer.Reload(a.Context()))
}

func (s *Server) setLogLevel(a *asked) (any, error) {
	var l logLevel
	if err := s.readJSON(a, &l, false); err != nil {
		return nil, err
	}
	if err := oneOf("level", l.Level, logLevels()); err != nil {
		return nil, err
	}
	if err := s.balancer.SetLogLevel(l.Level); err != nil {
		return nil, err
	}
	return logLevel{s.balancer.LogLevel()}, nil
}

// inRange refuses a number below 0 or above most; nil is fine.
func inRange(field string, n *int, most int) error {
	if n == nil || 0 <= *n && *n <= most {
		return nil
	}
	return invalid(field, strconv.Itoa(*n), "0 to "+strconv.Itoa(most))
}

// modeAllowed refuses what is no mode; "" is the default.
func modeAllowed(mode string) error {
	if mode == "" {
		return nil
	}
	return oneOf("mode", mode, modes())
}

func oneOf(field, value string, allowed []string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return invalid(field, value, strings.Join(allowed[:len(allowed)-1], ", ")+" or "+allowed[len(allowed)-1])
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
