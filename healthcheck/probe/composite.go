package probe

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/limeload/limeload-l4/healthcheck"
)

// AllOf is healthy when each of its checks is; there has to be one. They run at the same time. Of several that fail the worst
// is told, and of equals the first in order: see worst.
type AllOf []healthcheck.Checker

// Check runs the checks. Its result is the first one's, with the details of all.
func (c AllOf) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	results, errs := runAll(ctx, t, c)
	if i := worst(errs); i >= 0 {
		return withRole(results[0], results[i]), unhealthyf("check %d of %d: %v", i+1, len(c), errs[i]).because(errs[i])
	}
	if unsure := inconclusive(errs); unsure != nil {
		return healthcheck.Result{}, unsure
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

// Cost returns what all of the checks cost together.
func (c AllOf) Cost() (sockets, programs int) { return healthcheck.CostOf(c...) }

// withRole returns r with what other says of a role, if r says nothing of one.
func withRole(r, other healthcheck.Result) healthcheck.Result {
	if r.Role == healthcheck.RoleUnknown {
		r.Role, r.Epoch, r.Offset, r.Replicas = other.Role, other.Epoch, other.Offset, other.Replicas
	}
	return r
}

// AnyOf is healthy when one of its checks is; there has to be one. They run at the same time; when all fail, all reasons are
// told, and the worst makes the verdict.
type AnyOf []healthcheck.Checker

// Cost returns what all of the checks cost together.
func (c AnyOf) Cost() (sockets, programs int) { return healthcheck.CostOf(c...) }

// Check runs the checks. Its result is that of the first one in order that succeeded.
func (c AnyOf) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	results, errs := runAll(ctx, t, c)
	for i, err := range errs {
		if err == nil {
			return results[i], nil
		}
	}
	if unsure := inconclusive(errs); unsure != nil {
		return healthcheck.Result{}, unsure // it might have been the one
	}
	reasons := make([]string, len(errs))
	causes := []error{errs[worst(errs)]}
	for i, err := range errs {
		reasons[i] = err.Error()
		if errors.Is(err, healthcheck.ErrCredentials) {
			causes = append(causes, healthcheck.ErrCredentials) // with better ones it might have been the one
		}
	}
	return healthcheck.Result{}, unhealthyf("none of the checks succeeded: %s", strings.Join(reasons, "; ")).because(causes...)
}

// worst returns the index of the failure that makes the verdict, or -1 if no check failed. Of several failures as bad as each
// other it is the first.
func worst(errs []error) int {
	at, most := -1, 0
	for i, err := range errs {
		if rank := badness(err); rank > most {
			at, most = i, rank
		}
	}
	return at
}

// badness ranks failures; 0 is none. A wrong role is the worst: such a target must not get sessions even when no other target
// is healthy. Lag does little harm. Refused credentials come last, since they may say nothing about the target.
func badness(err error) int {
	switch {
	case err == nil, errors.Is(err, healthcheck.ErrInconclusive):
		return 0
	case errors.Is(err, healthcheck.ErrCredentials):
		return 1
	case errors.Is(err, healthcheck.ErrWrongRole):
		return 4
	case errors.Is(err, healthcheck.ErrLagging):
		return 2
	}
	return 3
}

// inconclusive returns the first error of a check that found out nothing.
func inconclusive(errs []error) error {
	for _, err := range errs {
		if errors.Is(err, healthcheck.ErrInconclusive) {
			return err
		}
	}
	return nil
}

// runAll runs checks at the same time and returns what each found. Those that have a port keep it, even if t's address is exact: it
// is what tells them apart.
func runAll(ctx context.Context, t healthcheck.Target, checks []healthcheck.Checker) ([]healthcheck.Result, []error) {
	t.Exact = false
	results, errs := make([]healthcheck.Result, len(checks)), make([]error, len(checks))
	var running sync.WaitGroup
	for i, c := range checks {
		running.Go(func() { results[i], errs[i] = c.Check(ctx, t) })
	}
	running.Wait()
	return results, errs
}
