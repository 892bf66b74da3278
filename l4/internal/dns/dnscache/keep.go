package dnscache

import (
	"math"
	"time"
)

// maxKept is the largest answer that is stored, in bytes: resolvers request at most that much by UDP. Larger answers
// are rare, and one of them would evict dozens of others.
const maxKept = 4096

// rules say how long answers are valid. All but stale and failure are in seconds, as TTLs are.
type rules struct {
	minTTL, maxTTL, negativeTTL uint32
	stale, failure              time.Duration
}

func newRules(o *Options) rules {
	whole := func(d time.Duration) uint32 { return uint32(min(max(d, 0)/time.Second, math.MaxInt32)) }
	return rules{
		minTTL: whole(o.MinTTL), maxTTL: whole(o.MaxTTL), negativeTTL: whole(o.NegativeTTL),
		stale: max(o.StaleTTL, 0), failure: max(o.FailureTTL, 0),
	}
}

// A span says how long an answer is stored, and the bounds for its TTLs.
type span struct {
	floor, ceiling uint32
	lifetime       uint32 // the lowest TTL within the bounds; 0 = the answer is not stored
}

// judge returns how long an answer is stored. Each TTL is put between floor and ceiling, and the lowest one decides, so
// that no TTL expires while the answer is stored.
func (r *rules) judge(a *answer) span {
	if a.truncated || a.failed() || a.lowest == 0 || len(a.ttls) == 0 {
		return span{}
	}
	s := span{floor: r.minTTL, ceiling: r.maxTTL}
	if a.negative() {
		if !a.soa {
			return span{} // RFC 2308, 5
		}
		// The SOA record's own TTL bounds it too, as all TTLs do.
		s = span{ceiling: min(r.maxTTL, r.negativeTTL, a.minimum)}
	}
	s.lifetime = s.bound(a.lowest)
	return s
}

// bound puts a TTL within the bounds. The upper bound wins.
func (s *span) bound(ttl uint32) uint32 { return min(max(ttl, s.floor), s.ceiling) }

// failed reports whether the backend did not answer the question, with neither NOERROR nor NXDOMAIN. Only those two
// replace a stored answer (RFC 8767, 4).
func (a *answer) failed() bool {
	return a.rcode != rcodeOK && a.rcode != rcodeNoName || a.extended != 0
}

// negative reports whether an answer says that nothing exists (RFC 2308, 2): no such name, or no record of the type,
// possibly at the end of a chain of aliases. A referral looks like the latter without its SOA record, and is not stored
// either.
func (a *answer) negative() bool {
	return a.rcode == rcodeNoName || !a.matching && (a.soa || a.counts[0] == 0)
}

// firstFailure is how long the first failure of a question is cached: the minimum of RFC 9520, 3.2. The failure may be
// one backend's alone, and the next question goes to another backend.
const firstFailure = time.Second

// remembered reports whether an answer to a question that was sent with or without EDNS is a failure that other clients
// would get as well. That excludes the failure of a server that does not know EDNS, and a message that was matched by
// its id alone.
func (a *answer) remembered(edns bool) bool {
	return (a.rcode == rcodeFailed || a.rcode == rcodeRefused) && a.extended == 0 && a.end > 0 && !a.truncated &&
		(a.optFrom != 0 || !edns)
}

// fail makes an entry a failure that is cached for a while: for twice as long as the previous failure if that one is
// recent.
func (r *rules) fail(e, before *entry, now time.Duration) {
	lasts := firstFailure
	if before != nil && before.failure && before.live(now) {
		lasts = 2 * (before.expires - before.stored)
	}
	lasts = min(lasts, r.failure)
	e.bare = false // the question had no EDNS, or the backend knows EDNS
	e.failure, e.stored, e.expires, e.dead = true, now, now+lasts, now+2*lasts
}
