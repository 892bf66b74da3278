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
		inFlight: c.gauge("limeload_dns_in_flight", "Questions at backends now.", "listener"),
		sockets:  c.gauge("limeload_dns_sockets", "Sockets that backends are asked by now.", "listener"),
		tries:    c.counter("limeload_dns_tries_total", "Questions sent to a backend, each try.", "listener"),
		ended: c.counter("limeload_dns_tries_ended_total",
			"Tries that are over: answered, without an answer in time, or to a backend that could not be reached.",
			"listener", "result"),
		failed: c.counter("limeload_dns_failed_total",
			"Questions that no backend has answered after all tries; the client got an expired answer, or SERVFAIL.",
			"listener"),
		mismatched: c.counter("limeload_dns_mismatched_total",
			"Datagrams of backends that were no answer to anything asked: late, malformed or forged.", "listener"),

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
			"Questions of clients to a listener with a cache, by what became of them. One that had waited as miss or coalesced and got an expired answer is counted as stale, too.",
			"listener", "result"),
		prefetched: c.counter("limeload_dns_cache_prefetched_total",
			"Questions sent to a backend before the answer expired.", "listener"),
		rejected: c.counter("limeload_dns_cache_rejected_total",
			"Messages of backends that were not the answer, or malformed.", "listener"),
		stored: c.counter("limeload_dns_cache_stored_total", "Answers put in, those in place of older ones too.",
			"listener"),
		evicted: c.counter("limeload_dns_cache_evicted_total", "Answers driven out for want of room.", "listener"),
		expired: c.counter("limeload_dns_cache_expired_total", "Answers removed, or replaced, after their time.",
			"listener"),
		entries: c.gauge("limeload_dns_cache_entries",
			"Answers held now, those too that are over and not yet removed.", "listener"),
		bytes:   c.gauge("limeload_dns_cache_bytes", "Bytes that they take.", "listener"),
		waiting: c.gauge("limeload_dns_cache_waiting", "Clients that wait for an answer now.", "listener"),

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
