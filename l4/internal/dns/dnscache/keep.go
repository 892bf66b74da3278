package dnscache

import (
	"math"
	"time"
)

// maxKept is the largest answer that is kept, in bytes: what resolvers ask for at most by UDP. What is larger is rare, and one such
// answer would drive out dozens of the others.
const maxKept = 4096

// rules say for how long answers are good; all but stale in seconds, as TTLs are.
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

// A span is for how long an answer is kept, and within what bounds its TTLs are put.
type span struct {
	floor, ceiling uint32
	lifetime       uint32 // the lowest TTL within them; 0 = the answer is not kept
}

// judge says for how long an answer is kept. TTLs are put between floor and ceiling one by one, and the lowest one decides, so that none
// of them runs out while the answer is kept.
func (r *rules) judge(a *answer) span {
	if a.truncated || a.failed() || a.lowest == 0 || len(a.ttls) == 0 {
		return span{}
	}
	s := span{floor: r.minTTL, ceiling: r.maxTTL}
	if a.negative() {
		if !a.soa {
			return span{} // RFC 2308, 5
		}
		s = span{ceiling: min(r.maxTTL, r.negativeTTL, a.minimum)} // and by the SOA record's own TTL, as by all others
	}
	s.lifetime = s.bound(a.lowest)
	return s
}

// bound puts a TTL within the bounds. The upper one wins.
func (s *span) bound(ttl uint32) uint32 { return min(max(ttl, s.floor), s.ceiling) }

// failed reports whether the backend could not say what there is: neither NOERROR nor NXDOMAIN. Only these refresh what is
// known (RFC 8767, 4).
func (a *answer) failed() bool {
	return a.rcode != rcodeOK && a.rcode != rcodeNoName || a.extended != 0
}

// negative reports whether an answer says that there is nothing (RFC 2308, 2): no such name, or no record of the type, be it at the end
// of a chain of aliases. A referral looks like the latter without its SOA record, and is not kept either.
func (a *answer) negative() bool {
	return a.rcode == rcodeNoName || !a.matching && (a.soa || a.counts[0] == 0)
}

// firstFailure is for how long a failure is remembered that comes for the first time: the least that RFC 9520, 3.2
// allows. It may be one backend's alone, and the next question goes to another.
const firstFailure = time.Second

// remembered reports whether an answer to a question that was sent with EDNS, or without, is a failure that others would get as well: not
// what a server says that does not know EDNS, and not what is believed by its id alone.
func (a *answer) remembered(edns bool) bool {
	return (a.rcode == rcodeFailed || a.rcode == rcodeRefused) && a.extended == 0 && a.end > 0 && !a.truncated && (a.optFrom != 0 || !edns)
}

// fail turns an entry into a failure that is remembered for a while, twice as long as the one before it if that was lately.
func (r *rules) fail(e, before *entry, now time.Duration) {
	lasts := firstFailure
	if before != nil && before.failure && before.live(now) {
		lasts = 2 * (before.expires - before.stored)
	}
	lasts = min(lasts, r.failure)
	e.bare = false // it was not asked with EDNS, or knows it
	e.failure, e.stored, e.expires, e.dead = true, now, now+lasts, now+2*lasts
}
