package daemon

import (
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// reasonOf says why a backend has its verdict, as of now: what its last check found. Where that says something else than the verdict,
// because one check is not enough or found nothing out, the reason of the verdict comes first, with its time.
func reasonOf(b pool.BackendInfo, checks map[string]healthcheck.TargetStats, id string) string {
	t, checked := checks[id]
	last := t.Last
	switch {
	case !checked || last.At.Before(b.Since): // it is by that check, or by something that came after it
		return b.Reason
	case b.Verdict == pool.Unknown, verdict(last.Outcome.Verdict()) == b.Verdict:
		return last.Detail
	}
	return fmt.Sprintf("%s (%s); last check: %s", b.Reason, b.Since.UTC().Format(time.RFC3339), last.Detail)
}

// reasons are those of all backends of a pool, by their names.
func (d *Daemon) reasons(s *served) map[string]string {
	checks := d.checks.Stats().Targets
	all := make(map[string]string)
	for _, b := range s.pool.Backends() {
		all[b.ID] = reasonOf(b, checks, targetID(s.pool.Name(), b.ID))
	}
	return all
}
