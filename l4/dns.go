package l4

import (
	"errors"
	"fmt"

	"github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/dns/dnscache"
)

// DNSSettings say that a listener's clients ask DNS questions. By UDP a question is then no flow: all questions for a
// backend share a few sockets. By TCP, which takes a cache, a session has no backend while its questions are plain.
type DNSSettings = dns.Settings

// DNSCacheSettings say which answers are kept, and for how long.
type DNSCacheSettings = dns.CacheSettings

// DNSCacheCounters are what a cache has done since it was made, and what it holds.
type DNSCacheCounters = dnscache.Counters

// A DNSInfo is what a DNS listener has counted since its DNS settings were last changed; a plain value.
type DNSInfo = dns.Info

// A DNSPurge says which answers are to be forgotten. Its zero value is refused.
type DNSPurge = dns.Purge

// ErrUnknownListener is wrapped where a listener is named that does not exist.
var ErrUnknownListener = errors.New("l4: unknown listener")

// ErrNoDNSCache is wrapped where the cache of a listener is meant that has none.
var ErrNoDNSCache = dns.ErrNoCache

// ErrInvalidDNSName is wrapped where a text is to be a domain name and is none.
var ErrInvalidDNSName = dnscache.ErrInvalidName

// PurgeDNS makes a listener's cache forget answers, stale ones too, and returns how many they were. What is being asked
// just now is answered, but not kept. The error is an ErrUnknownListener, ErrNoDNSCache or ErrInvalidDNSName. It may be
// called from any goroutine, and may take some milliseconds.
func (s *Server) PurgeDNS(listener string, what DNSPurge) (int, error) {
	s.mu.Lock()
	ls := s.namedLocked(listener)
	var service *dns.Service
	if ls != nil {
		service = ls.dns // if there are two, they share a cache
	}
	s.mu.Unlock()
	var n int
	var err error
	switch {
	case ls == nil:
		err = ErrUnknownListener
	case service == nil:
		err = ErrNoDNSCache
	default:
		n, err = service.Purge(what)
	}
	if err != nil {
		return 0, fmt.Errorf("purge DNS answers of listener %q: %w", listener, err)
	}
	return n, nil
}

// sameDNS reports whether two specs have the same DNS settings and protocol, and so may share a cache.
func (spec *ListenerSpec) sameDNS(other *ListenerSpec) bool {
	if spec.DNS == nil || other.DNS == nil {
		return spec.DNS == other.DNS
	}
	return *spec.DNS == *other.DNS && spec.Protocol == other.Protocol
}
