package admin

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// modes are the modes that an operator can set.
func modes() []string {
	var names []string
	for _, m := range pool.Modes() {
		names = append(names, m.String())
	}
	return names
}

// LogLevels returns the levels of the log, the lowest first.
func LogLevels() []string { return logLevels() }

// logLevels are the levels of the configuration.
func logLevels() []string { return []string{"trace", "debug", "info", "warn", "error"} }

// created is a new backend with its path.
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
	if err := b.check(); err != nil {
		return nil, err
	}
	b.By = a.by()
	name := a.PathValue("pool")
	made, err := s.balancer.AddBackend(name, b)
	if err != nil {
		return nil, err
	}
	return created{made, backendPath(name, made.Name)}, nil
}

func (s *Server) changeBackend(a *asked) (any, error) {
	var c BackendChange
	if err := s.readJSON(a, &c, false); err != nil {
		return nil, err
	}
	if c == (BackendChange{Local: c.Local}) {
		return nil, newProblem(problemBadRequest, "the body changes nothing; it needs weight, max_sessions, max_rate or mode")
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	c.By = a.by()
	return result(s.balancer.ChangeBackend(a.PathValue("pool"), a.PathValue("backend"), c))
}

func (s *Server) removeBackend(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	from, err := originOf(a)
	if err != nil {
		return nil, err
	}
	return removed(s.balancer.RemoveBackend(a.PathValue("pool"), a.PathValue("backend"), from))
}

func (s *Server) drainBackend(a *asked) (any, error) {
	var d Drain
	if err := s.readJSON(a, &d, true); err != nil {
		return nil, err
	}
	if _, err := d.Time(); err != nil {
		return nil, err
	}
	d.By = a.by()
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
		text := "all: it is every session, and needs no other parameter beside it"
		return nil, newProblem(problemBadRequest, text).of("all")
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
	var l logLevelChange
	if err := s.readJSON(a, &l, false); err != nil {
		return nil, err
	}
	if err := oneOf("level", l.Level, logLevels()); err != nil {
		return nil, err
	}
	lasts := time.Duration(0)
	if l.For != nil {
		seconds := *l.For
		if !(seconds >= MinLogTime.Seconds() && seconds <= MaxLogTime.Seconds()) { // also if it is no number
			return nil, invalid("for_seconds", strconv.FormatFloat(seconds, 'g', -1, 64),
				fmt.Sprintf("%.0f to %.0f", MinLogTime.Seconds(), MaxLogTime.Seconds()))
		}
		lasts = time.Duration(seconds * float64(time.Second))
	}
	if err := s.balancer.SetLogLevel(l.Level, lasts, a.RemoteAddr); err != nil {
		return nil, err
	}
	return s.balancer.LogLevel(), nil
}

// check returns a *RequestError for an invalid number, rate or mode. The Balancer checks the address, the name and the
// zone.
func (b NewBackend) check() error {
	c := BackendChange{Weight: b.Weight, MaxSessions: &b.MaxSessions, MaxRate: &b.MaxRate}
	if b.Mode != "" { // the default
		c.Mode = &b.Mode
	}
	return firstError(c.Check(), asRequest(pool.CheckTier(b.Tier)))
}

// Check returns a *RequestError for an invalid value.
func (c BackendChange) Check() error {
	var weight, limit, rate, mode error
	if c.Weight != nil {
		weight = pool.CheckWeight(*c.Weight)
	}
	if c.MaxSessions != nil {
		limit = pool.CheckMaxSessions(*c.MaxSessions)
	}
	if c.MaxRate != nil {
		_, rate = pool.ParseMaxRate(*c.MaxRate)
	}
	if c.Mode != nil {
		_, mode = pool.ParseMode(*c.Mode)
	}
	return asRequest(firstError(weight, limit, rate, mode))
}

// Time returns the deadline (0 for none), or a *RequestError.
func (d Drain) Time() (time.Duration, error) {
	deadline, err := pool.DrainDeadline(d.Deadline)
	return deadline, asRequest(err)
}

// asRequest converts an error of package pool into one of the API.
func asRequest(err error) error {
	var refused *pool.InvalidBackendError
	if errors.As(err, &refused) {
		return invalid(apiField(refused.Field), refused.Value, refused.Want)
	}
	return err
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
