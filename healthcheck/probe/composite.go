package probe

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/limeload/limeload-l4/healthcheck"
)

// AllOf succeeds if all of its checks succeed. It needs at least one. The checks run at the same time. If several fail,
// the error is that of the worst one, see worst.
type AllOf []healthcheck.Checker

// Check runs the checks. The result has the details of all checks, the longest latency, and the role of the first check
// that found one.
func (c AllOf) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return check(ctx, c, t)
}

// Ask asks the questions of all checks.
func (c AllOf) Ask(ctx context.Context, t healthcheck.Target) (any, error) {
	return askAll(ctx, t, c), nil
}

// Join joins each check with that of other at its place.
func (c AllOf) Join(other healthcheck.Checker) healthcheck.Checker {
	return AllOf(joinAll(c, other.(AllOf)))
}

// Judge judges the answers of all checks.
func (c AllOf) Judge(answer any) (healthcheck.Result, error) {
	results, errs := judgeAll(c, answer.([]healthcheck.Answer))
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

// withRole returns r. If r has no role, it gets the role of other, and what ranks primaries. If r knows no lag, it gets
// that of other.
func withRole(r, other healthcheck.Result) healthcheck.Result {
	if r.Role == healthcheck.RoleUnknown {
		r.Role, r.Epoch, r.Offset, r.Replicas = other.Role, other.Epoch, other.Offset, other.Replicas
		r.Cluster = other.Cluster
	}
	if !r.KnowsLag {
		r.Lag, r.KnowsLag = other.Lag, other.KnowsLag
	}
	return r
}

// AnyOf succeeds if one of its checks succeeds. It needs at least one. The checks run at the same time. If all fail,
// the error has all reasons, and the worst failure makes the verdict.
type AnyOf []healthcheck.Checker

// Cost returns what all of the checks cost together.
func (c AnyOf) Cost() (sockets, programs int) { return healthcheck.CostOf(c...) }

// Check runs the checks. The result is that of the first check, in the order of c, that succeeded.
func (c AnyOf) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return check(ctx, c, t)
}

// Ask asks the questions of all checks.
func (c AnyOf) Ask(ctx context.Context, t healthcheck.Target) (any, error) {
	return askAll(ctx, t, c), nil
}

// Join joins each check with that of other at its place.
func (c AnyOf) Join(other healthcheck.Checker) healthcheck.Checker {
	return AnyOf(joinAll(c, other.(AnyOf)))
}

// Judge judges the answers of all checks.
func (c AnyOf) Judge(answer any) (healthcheck.Result, error) {
	results, errs := judgeAll(c, answer.([]healthcheck.Answer))
	for i, err := range errs {
		if err == nil {
			return results[i], nil
		}
	}
	if unsure := inconclusive(errs); unsure != nil {
		return healthcheck.Result{}, unsure // this check might have succeeded
	}
	reasons := make([]string, len(errs))
	causes := []error{errs[worst(errs)]}
	for i, err := range errs {
		reasons[i] = err.Error()
		if errors.Is(err, healthcheck.ErrCredentials) {
			// With other credentials this check might have succeeded.
			causes = append(causes, healthcheck.ErrCredentials)
		}
	}
	all := strings.Join(reasons, "; ")
	return healthcheck.Result{}, unhealthyf("none of the checks succeeded: %s", all).because(causes...)
}

// worst returns the index of the failure that makes the verdict, or -1 if no check failed. Of several failures as bad
// as each other it is the first.
func worst(errs []error) int {
	at, most := -1, 0
	for i, err := range errs {
		if rank := badness(err); rank > most {
			at, most = i, rank
		}
	}
	return at
}

// badness ranks failures; 0 is none. A wrong role is the worst: such a target must not get sessions even when no other
// target is healthy. Lag does little harm, and a target that may serve for want of others does none. Refused
// credentials come before that only, since they may say nothing about the target.
func badness(err error) int {
	switch {
	case err == nil, errors.Is(err, healthcheck.ErrInconclusive):
		return 0
	case errors.Is(err, healthcheck.ErrCredentials):
		return 2
	case errors.Is(err, healthcheck.ErrWrongRole):
		return 5
	case errors.Is(err, healthcheck.ErrLagging):
		return 3
	case errors.Is(err, healthcheck.ErrFallback):
		return 1
	}
	return 4
}

// inconclusive returns the first error that wraps ErrInconclusive, or nil.
func inconclusive(errs []error) error {
	for _, err := range errs {
		if errors.Is(err, healthcheck.ErrInconclusive) {
			return err
		}
	}
	return nil
}

// askAll asks the questions of checks at the same time. A check with a port uses it even if t's address is exact, since
// the ports are what makes the checks differ.
func askAll(ctx context.Context, t healthcheck.Target, checks []healthcheck.Checker) []healthcheck.Answer {
	t.Exact = false
	answers := make([]healthcheck.Answer, len(checks))
	var running sync.WaitGroup
	for i, c := range checks {
		running.Go(func() { answers[i] = healthcheck.Ask(ctx, c, t) })
	}
	running.Wait()
	return answers
}

// judgeAll returns what each check makes of its answer.
func judgeAll(checks []healthcheck.Checker, answers []healthcheck.Answer) ([]healthcheck.Result, []error) {
	results, errs := make([]healthcheck.Result, len(checks)), make([]error, len(checks))
	for i, c := range checks {
		results[i], errs[i] = answers[i].Judge(c)
	}
	return results, errs
}

// joinAll joins the checks at the same places.
func joinAll(a, b []healthcheck.Checker) []healthcheck.Checker {
	joined := make([]healthcheck.Checker, len(a))
	for i := range a {
		joined[i] = healthcheck.Join(a[i], b[i])
	}
	return joined
}
