package daemon

import (
	dto "github.com/prometheus/client_model/go"

	"github.com/limeload/limeload-l4/l4"
)

// ofDNS declares the numbers of listeners with DNS settings. They count from the last change of these settings.
func (c *catalog) ofDNS(d *Daemon) part {
	asking, cache := c.ofDNSQuestions(), c.ofDNSCaches()
	return func(to sink) {
		caches := d.dnsCaches()
		all := d.server.Listeners()
		for i, l := range all {
			if l.DNS == nil {
				continue
			}
			listener := label("listener", l.Name)
			asking.put(to.ofProtocol(all, i), listener, l.DNS)
			if shared := i > 0 && all[i-1].Name == l.Name; caches[l.Name] && !shared { // its numbers are of both
				cache.put(to, listener, &l.DNS.Cache)
			}
		}
	}
}

// dnsSeries are the series of the questions that a listener forwards.
type dnsSeries struct {
	inFlight, sockets, tries, ended, failed, mismatched *series

	results []*dto.LabelPair
}

// ofDNSQuestions declares them.
func (c *catalog) ofDNSQuestions() *dnsSeries {
	return &dnsSeries{
		inFlight: c.gauge("limeload_dns_in_flight",
			"So many questions are at backends now.", "listener"),
		sockets: c.gauge("limeload_dns_sockets",
			"The listener asks backends by so many sockets now.", "listener"),
		tries: c.counter("limeload_dns_tries_total",
			"The listener has sent so many questions to backends; each try counts.", "listener"),
		ended: c.counter("limeload_dns_tries_ended_total",
			"So many tries are over: answered, without an answer in time, or to a backend that could not be reached.",
			"listener", "result"),
		failed: c.counter("limeload_dns_failed_total",
			"No backend has answered so many questions after all tries; their clients got an expired answer, or SERVFAIL.",
			"listener"),
		mismatched: c.counter("limeload_dns_mismatched_total",
			"Backends have sent so many datagrams that answer nothing that was asked: late, malformed or forged ones.",
			"listener"),

		results: labelsFor("result", "answered", "timed_out", "unreachable"),
	}
}

// put sends the numbers of one listener.
func (s *dnsSeries) put(to protocolSink, listener *dto.LabelPair, n *l4.DNSInfo) {
	to.put(s.inFlight, float64(n.InFlight), listener)
	to.put(s.sockets, float64(n.Sockets), listener)
	to.put(s.tries, float64(n.Asked), listener)
	for i, times := range []uint64{n.Answered, n.TimedOut, n.Unreachable} {
		to.put(s.ended, float64(times), listener, s.results[i])
	}
	to.put(s.failed, float64(n.Failed), listener)
	to.put(s.mismatched, float64(n.Mismatched), listener)
}

// dnsCacheSeries are the series of a listener's cache.
type dnsCacheSeries struct {
	questions, prefetched, rejected, stored, evicted, expired, entries, bytes, waiting *series

	results []*dto.LabelPair
}

// ofDNSCaches declares them.
func (c *catalog) ofDNSCaches() *dnsCacheSeries {
	return &dnsCacheSeries{
		questions: c.counter("limeload_dns_questions_total",
			"Clients have sent so many questions to a listener with a cache, by what became of them. One that waited as miss or coalesced and got an expired answer is counted as stale, too.",
			"listener", "result"),
		prefetched: c.counter("limeload_dns_cache_prefetched_total",
			"The cache has asked a backend so often before an answer expired.", "listener"),
		rejected: c.counter("limeload_dns_cache_rejected_total",
			"Backends have sent so many messages that were not the answer, or malformed.", "listener"),
		stored: c.counter("limeload_dns_cache_stored_total",
			"The cache has stored so many answers, those in place of older ones too.",
			"listener"),
		evicted: c.counter("limeload_dns_cache_evicted_total",
			"The cache has driven out so many answers for want of room.", "listener"),
		expired: c.counter("limeload_dns_cache_expired_total",
			"The cache has removed or replaced so many answers after their time.",
			"listener"),
		entries: c.gauge("limeload_dns_cache_entries",
			"The cache holds so many answers now, those too that have expired and are not yet removed.", "listener"),
		bytes: c.gauge("limeload_dns_cache_bytes",
			"The answers in the cache take so many bytes.", "listener"),
		waiting: c.gauge("limeload_dns_cache_waiting",
			"So many clients wait for an answer now.", "listener"),

		results: labelsFor("result", "hit", "miss", "coalesced", "stale", "passed", "refused"),
	}
}

// put sends the numbers of one cache.
func (s *dnsCacheSeries) put(to sink, listener *dto.LabelPair, n *l4.DNSCacheCounters) {
	for i, times := range []uint64{n.Hit, n.Miss, n.Coalesced, n.Stale, n.Passed, n.Refused} {
		to.put(s.questions, float64(times), listener, s.results[i])
	}
	to.put(s.prefetched, float64(n.Prefetched), listener)
	to.put(s.rejected, float64(n.Rejected), listener)
	to.put(s.stored, float64(n.Stored), listener)
	to.put(s.evicted, float64(n.Evicted), listener)
	to.put(s.expired, float64(n.Expired), listener)
	to.put(s.entries, float64(n.Entries), listener)
	to.put(s.bytes, float64(n.Bytes), listener)
	to.put(s.waiting, float64(n.Waiting), listener)
}
