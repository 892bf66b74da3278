package healthcheck

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// AllOf is healthy when each of its checks is; there has to be one. They run at the same time. Of several that fail the worst
// is told, and of equals the first in order: see worst.
type AllOf []Checker

// Check runs the checks. Its result is the first one's, with the details of all.
func (c AllOf) Check(ctx context.Context, t Target) (Result, error) {
	results, errs := runAll(ctx, t, c)
	if i := worst(errs); i >= 0 {
		return withRole(results[0], results[i]), unhealthyf("check %d of %d: %v", i+1, len(c), errs[i]).because(errs[i])
	}
	if unsure := inconclusive(errs); unsure != nil {
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

// AnyOf is healthy when one of its checks is; there has to be one. They run at the same time; when all fail, all reasons are
// told, and the worst makes the verdict.
type AnyOf []Checker

// Check runs the checks. Its result is that of the first one in order that succeeded.
func (c AnyOf) Check(ctx context.Context, t Target) (Result, error) {
	results, errs := runAll(ctx, t, c)
	for i, err := range errs {
		if err == nil {
			return results[i], nil
		}
	}
	if unsure := inconclusive(errs); unsure != nil {
		return Result{}, unsure // it might have been the one
	}
	reasons := make([]string, len(errs))
	causes := []error{errs[worst(errs)]}
	for i, err := range errs {
		reasons[i] = err.Error()
		if errors.Is(err, ErrCredentials) {
			causes = append(causes, ErrCredentials) // with better ones it might have been the one
		}
	}
	return Result{}, unhealthyf("none of the checks succeeded: %s", strings.Join(reasons, "; ")).because(causes...)
}

// worst returns the place of the failure that makes the verdict, -1 when there is none: a wrong role before everything else,
// since nobody may then try the target for want of a better one; lag late, since it does little harm; and refused credentials last,
// since they may say nothing of the target.
func worst(errs []error) int {
	rank := map[Verdict]int{Lagging: 2, Unhealthy: 3, WrongRole: 4} // Healthy has 0
	at, most := -1, 0
	for i, err := range errs {
		r := rank[verdictOf(err)]
		if errors.Is(err, ErrCredentials) {
			r = 1
		}
		if r > most && !errors.Is(err, ErrInconclusive) {
			at, most = i, r
		}
	}
	return at
}

// inconclusive returns the first error of a check that found out nothing.
func inconclusive(errs []error) error {
	for _, err := range errs {
		if errors.Is(err, ErrInconclusive) {
			return err
		}
	}
	return nil
}

// runAll runs checks at the same time and returns what each found. Those that have a port keep it, even if t's address is exact: it
// is what tells them apart.
func runAll(ctx context.Context, t Target, checks []Checker) ([]Result, []error) {
	t.Exact = false
	results, errs := make([]Result, len(checks)), make([]error, len(checks))
	var running sync.WaitGroup
	for i, c := range checks {
		running.Go(func() { results[i], errs[i] = c.Check(ctx, t) })
	}
	running.Wait()
	return results, errs
}
