package daemon

import (
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// reasonOf returns why a checked backend has its verdict: the result of its last check. If that differs from the
// verdict, because one check is not enough or found nothing out, the reason of the verdict comes first, with its time.
func reasonOf(b pool.BackendInfo, last healthcheck.Ended) string {
	switch {
	case last.At.Before(b.Since): // the verdict is from that check, or from something later
		return b.Reason
	case b.Verdict == pool.Unknown, verdict(last.Outcome.Verdict()) == b.Verdict:
		return last.Detail
	}
	return fmt.Sprintf("%s (%s); last check: %s", b.Reason, b.Since.UTC().Format(time.RFC3339), last.Detail)
}

// reason returns why a backend of a pool has its verdict; false if the pool has no such backend.
func (d *Daemon) reason(p *pool.Pool, id string) (string, bool) {
	b, known := p.Backend(id)
	if !known {
		return "", false
	}
	if t, checked := d.checks.Target(targetID(p.Name(), id)); checked {
		return reasonOf(b, t.Last), true
	}
	return b.Reason, true
}
