package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/limeload/limeload-l4/pool"
)

// A Problem is an error of the API (RFC 9457, application/problem+json). Its text is Detail.
//
// errors.Is finds the daemon's error in it, if that is one of ErrUnknownPool, ErrUnknownListener, ErrNoDNSCache,
// ErrUnknownAccessRule, ErrTooManyAccessRules, ErrNoFleet, ErrUpgrading, ErrEnding, pool.ErrUnknownBackend,
// pool.ErrDuplicateBackend and pool.ErrDuplicateAddress.
type Problem struct {
	Type     string   `json:"type"`   // "/problems/..." from a closed set, see ProblemTypes; the same in all versions
	Title    string   `json:"title"`  // the meaning of the type
	Status   int      `json:"status"` // of the HTTP answer
	Detail   string   `json:"detail"`
	Field    string   `json:"field,omitempty"`    // of the body or the query, if it is wrong
	Mistakes []string `json:"mistakes,omitempty"` // of a configuration, the lines that `limeload-l4 check` prints
}

// Error returns Detail.
func (p *Problem) Error() string { return p.Detail }

// Is reports whether the daemon's error was target.
func (p *Problem) Is(target error) bool {
	cause := problemCauses()[p.Type]
	return cause != nil && cause == target
}

// ProblemType is one kind of problem.
type ProblemType struct {
	Type   string
	Title  string
	Status int
}

// The kinds of problems.
const (
	problemBadRequest       = "/problems/bad-request"
	problemUnauthorized     = "/problems/unauthorized"
	problemCrossOrigin      = "/problems/cross-origin"
	problemReadOnly         = "/problems/read-only"
	problemNotFound         = "/problems/not-found"
	problemUnknownPool      = "/problems/unknown-pool"
	problemUnknownListener  = "/problems/unknown-listener"
	problemUnknownBackend   = "/problems/unknown-backend"
	problemUnknownSession   = "/problems/unknown-session"
	problemUnknownRule      = "/problems/unknown-access-rule"
	problemMethod           = "/problems/method-not-allowed"
	problemSlowBody         = "/problems/slow-body"
	problemDuplicateBackend = "/problems/duplicate-backend"
	problemDuplicateAddress = "/problems/duplicate-address"
	problemNoDNSCache       = "/problems/no-dns-cache"
	problemTooManyRules     = "/problems/too-many-access-rules"
	problemNoFleet          = "/problems/no-fleet"
	problemUpgrading        = "/problems/upgrading"
	problemBodyTooLarge     = "/problems/body-too-large"
	problemMediaType        = "/problems/unsupported-media-type"
	problemWrongHost        = "/problems/wrong-host"
	problemInvalidValue     = "/problems/invalid-value"
	problemConfiguration    = "/problems/invalid-configuration"
	problemInternal         = "/problems/internal"
	problemNotSaved         = "/problems/not-saved"
	problemUpgradeFailed    = "/problems/upgrade-failed"
	problemEnding           = "/problems/ending"
	problemBusy             = "/problems/busy"
	problemTooManyPlans     = "/problems/too-many-plans"
	problemTooManyStreams   = "/problems/too-many-streams"
)

// ProblemTypes lists every type of Problem, in the order of their status.
func ProblemTypes() []ProblemType {
	return []ProblemType{
		{problemBadRequest, "The request cannot be understood", http.StatusBadRequest},
		{problemUnauthorized, "The token is missing or wrong", http.StatusUnauthorized},
		{problemCrossOrigin, "A page of another origin asks", http.StatusForbidden},
		{problemReadOnly, "Without a token this address only answers requests that read", http.StatusForbidden},
		{problemNotFound, "There is no such route", http.StatusNotFound},
		{problemUnknownPool, "There is no such pool", http.StatusNotFound},
		{problemUnknownListener, "There is no such listener", http.StatusNotFound},
		{problemUnknownBackend, "There is no such backend", http.StatusNotFound},
		{problemUnknownSession, "There is no such session", http.StatusNotFound},
		{problemUnknownRule, "There is no such access rule", http.StatusNotFound},
		{problemMethod, "The route does not have this method", http.StatusMethodNotAllowed},
		{problemSlowBody, "The body did not come in time", http.StatusRequestTimeout},
		{problemDuplicateBackend, "The pool has a backend of this name", http.StatusConflict},
		{problemDuplicateAddress, "Another backend of the pool has this address", http.StatusConflict},
		{problemNoDNSCache, "The listener has no DNS cache", http.StatusConflict},
		{problemTooManyRules, "There are as many access rules as there may be", http.StatusConflict},
		{problemNoFleet, "The node has no fleet", http.StatusConflict},
		{problemUpgrading, "An upgrade is under way", http.StatusConflict},
		{problemBodyTooLarge, "The body is too large", http.StatusRequestEntityTooLarge},
		{problemMediaType, "The route does not take this Content-Type", http.StatusUnsupportedMediaType},
		{problemWrongHost, "The Host is not one of this machine", http.StatusMisdirectedRequest},
		{problemInvalidValue, "A value is not allowed", http.StatusUnprocessableEntity},
		{problemConfiguration, "The configuration cannot be taken up", http.StatusUnprocessableEntity},
		{problemInternal, "The daemon failed", http.StatusInternalServerError},
		{problemNotSaved, "It is done, and will not survive a restart", http.StatusInternalServerError},
		{problemUpgradeFailed, "No new process has taken over, and the old one goes on", http.StatusBadGateway},
		{problemEnding, "The daemon is shutting down", http.StatusServiceUnavailable},
		{problemBusy, "All connections are in use", http.StatusServiceUnavailable},
		{problemTooManyPlans, "Too many configurations are being planned", http.StatusServiceUnavailable},
		{problemTooManyStreams, "Too many streams of events are open", http.StatusServiceUnavailable},
	}
}

// problemCauses maps types of problems to the sentinels that they stand for.
func problemCauses() map[string]error {
	return map[string]error{
		problemUnknownPool:      ErrUnknownPool,
		problemUnknownListener:  ErrUnknownListener,
		problemUnknownBackend:   pool.ErrUnknownBackend,
		problemDuplicateBackend: pool.ErrDuplicateBackend,
		problemDuplicateAddress: pool.ErrDuplicateAddress,
		problemNoDNSCache:       ErrNoDNSCache,
		problemUnknownRule:      ErrUnknownAccessRule,
		problemTooManyRules:     ErrTooManyAccessRules,
		problemNoFleet:          ErrNoFleet,
		problemUpgrading:        ErrUpgrading,
		problemEnding:           ErrEnding,
	}
}

// newProblem makes a problem of a known type. An unknown type is a bug.
func newProblem(kind, detail string) *Problem {
	for _, t := range ProblemTypes() {
		if t.Type == kind {
			return &Problem{Type: t.Type, Title: t.Title, Status: t.Status, Detail: detail}
		}
	}
	panic("admin: no problem type " + kind)
}

// of sets the field that is wrong.
func (p *Problem) of(field string) *Problem {
	p.Field = field
	return p
}

// problemOf converts an error for the API.
func problemOf(err error) *Problem {
	var (
		known         *Problem
		request       *RequestError
		backend       *pool.InvalidBackendError
		configuration *ConfigError
		notSaved      *NotSavedError
		upgrade       *UpgradeError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &notSaved): // before its cause: the change is in force
		return newProblem(problemNotSaved, err.Error())
	case errors.As(err, &configuration):
		p := newProblem(problemConfiguration, err.Error())
		p.Mistakes = strings.Split(strings.TrimRight(configuration.Error(), "\n"), "\n")
		return p
	case errors.As(err, &upgrade):
		return newProblem(problemUpgradeFailed, err.Error())
	case errors.As(err, &request):
		return newProblem(problemInvalidValue, err.Error()).of(request.Field)
	case errors.As(err, &backend):
		return newProblem(problemInvalidValue, err.Error()).of(apiField(backend.Field))
	case errors.Is(err, context.Canceled):
		return newProblem(problemEnding, ErrEnding.Error()) // or the client has left, and nobody reads this
	}
	causes := problemCauses()
	for _, t := range ProblemTypes() { // in a fixed order
		if cause := causes[t.Type]; cause != nil && errors.Is(err, cause) {
			return newProblem(t.Type, err.Error())
		}
	}
	return newProblem(problemInternal, err.Error())
}

// apiField returns the API's name of a property that package pool refused.
func apiField(field string) string {
	switch field {
	case "id":
		return "name"
	case "addr":
		return "address"
	}
	return field
}
