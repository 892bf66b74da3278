package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// AllOf is healthy when each of its checks is. They run at the same time; of several that fail the first in order is told.
type AllOf []Checker

// Check runs the checks. Its result is the first one's, with the details of all.
func (c AllOf) Check(ctx context.Context, t Target) (Result, error) {
	results, errs := runAll(ctx, t, c)
	var unsure error
	for i, err := range errs {
		switch {
		case errors.Is(err, ErrInconclusive):
			unsure = err
		case err != nil:
			return withRole(results[0], results[i]), fmt.Errorf("check %d of %d: %w", i+1, len(c), err)
		}
	}
	if unsure != nil {
		return Result{}, unsure
	}
	var details []string
	all := results[0]
	for _, r := range results {
		all = withRole(all, r)
		all.Latency = max(all.Latency, r.Latency)
		if r.Detail != "" {
			details = append(details, r.Detail)
		}
	}
	all.Detail = strings.Join(details, "; ")
	return all, nil
}

// withRole returns r with what other says of a role, if r says nothing of one.
func withRole(r, other Result) Result {
	if r.Role == RoleUnknown {
		r.Role, r.Epoch, r.Offset, r.Replicas = other.Role, other.Epoch, other.Offset, other.Replicas
	}
	return r
}

// AnyOf is healthy when one of its checks is. They run at the same time; when all fail, all reasons are told.
type AnyOf []Checker

// Check runs the checks. Its result is that of the first one in order that succeeded.
func (c AnyOf) Check(ctx context.Context, t Target) (Result, error) {
	results, errs := runAll(ctx, t, c)
	for i, err := range errs {
		if err == nil {
			return results[i], nil
		}
	}
	for _, err := range errs {
		if errors.Is(err, ErrInconclusive) {
			return Result{}, err // it might have been the one
		}
	}
	return Result{}, &anyError{errs}
}

// anyError is that of several checks none succeeded.
type anyError struct{ causes []error }

// Error returns all reasons in one line.
func (e *anyError) Error() string {
	reasons := make([]string, len(e.causes))
	for i, err := range e.causes {
		reasons[i] = err.Error()
	}
	return "none of the checks succeeded: " + strings.Join(reasons, "; ")
}

// Unwrap returns the reason of the first check: which kind of failure it is all in all is for one of them to say.
func (e *anyError) Unwrap() error { return e.causes[0] }

// runAll runs checks at the same time and returns what each found.
func runAll(ctx context.Context, t Target, checks []Checker) ([]Result, []error) {
	results, errs := make([]Result, len(checks)), make([]error, len(checks))
	var running sync.WaitGroup
	for i, c := range checks {
		running.Go(func() { results[i], errs[i] = c.Check(ctx, t) })
	}
	running.Wait()
	return results, errs
}
