package l4

import (
	"errors"
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dnscache"
)

// DNSSettings have a listener know that its clients ask DNS questions. By UDP a question is then no flow: all questions
// for a backend share a few sockets, told apart by random ids (RFC 5452), and each is gone with its answer. What is not
// a plain question is relayed by a flow as without these settings, unless it is no DNS question at all. Of FlowSettings
// only ClientMax bounds questions, too: those of one client that wait for an answer.
//
// By TCP, which takes a cache, a session has no backend: its questions share a few connections to each backend with
// those of others. With the first question that is not plain it becomes a session as without these settings.
//
// It is a value, and comparable; the zero value is usable with UDP, and keeps no answers.
type DNSSettings struct {
	Cache DNSCacheSettings

	// MaxUDP is the largest answer by UDP, in bytes, whatever the client takes: a larger one is cut, and the client told to ask by TCP.
	// By UDP anybody can ask in another's name. 0 = 1232.
	MaxUDP int

	// Only this package's tests set the fields below.
	timeoutForTest time.Duration // instead of dnsTimeout; 0 = dnsTimeout
	socketsForTest int           // instead of dnsSockets; 0 = dnsSockets
}

// DNSCacheSettings say which answers are kept, and for how long. The zero value is no cache: then no question waits for another either.
// Times count in whole seconds, as TTLs do.
type DNSCacheSettings struct {
	MaxEntries int   // 0 = no cache; nothing below counts then
	MaxBytes   int64 // of all entries; 0 = 1 KiB for each of MaxEntries

	MinTTL      time.Duration // shorter TTLs are raised to it, but for 0
	MaxTTL      time.Duration // longer ones are lowered to it; 0 = 24 h
	NegativeTTL time.Duration // how long it is at most kept that there is nothing; 0 = not at all
	StaleTTL    time.Duration // how long expired answers are kept for when no backend answers (RFC 8767); 0 = not at all
	FailureTTL  time.Duration // how long it is remembered at most that a question cannot be answered (RFC 9520); 0 = not at all

	Prefetch bool // names in demand are asked for again shortly before they expire
}

const (
	// dnsTimeout is how long a backend has for an answer. Then another one is asked, up to the pool's retries. If none
	// answers, the client gets an expired answer from the cache, or else SERVFAIL. Stub resolvers ask again after 5 s:
	// two backends can be asked before that.
	dnsTimeout = 2 * time.Second

	// dnsSockets is how many sockets, or connections, send questions to one backend, for each loop. While some are
	// being renewed, up to as many again wait for their last answers. More than one is for their buffers: a few hundred
	// answers each where the kernel gives no more (net.core.rmem_max).
	dnsSockets = 8
)

// Defaults of DNSSettings.
const (
	defaultDNSMaxTTL = 24 * time.Hour // RFC 8767, 4 has resolvers cap at days

	defaultDNSMaxUDP = 1232 // what no path fragments (DNS flag day 2020), and thirty times a small question
)

func (s *DNSSettings) timeout() time.Duration {
	if s.timeoutForTest == 0 {
		return dnsTimeout
	}
	return s.timeoutForTest
}

func (s *DNSSettings) sockets() int {
	if s.socketsForTest == 0 {
		return dnsSockets
	}
	return s.socketsForTest
}

func (s *DNSSettings) maxUDP() int {
	if s.MaxUDP == 0 {
		return defaultDNSMaxUDP
	}
	return s.MaxUDP
}

func (s *DNSSettings) cacheOptions() dnscache.Options {
	c := &s.Cache
	maxTTL := c.MaxTTL
	if maxTTL == 0 {
		maxTTL = defaultDNSMaxTTL
	}
	return dnscache.Options{
		MaxEntries: c.MaxEntries, MaxBytes: c.MaxBytes, MinTTL: c.MinTTL, MaxTTL: maxTTL,
		NegativeTTL: c.NegativeTTL, StaleTTL: c.StaleTTL, FailureTTL: c.FailureTTL, Prefetch: c.Prefetch, MaxUDP: s.maxUDP(),
	}
}

// validateDNS looks the spec's DNS settings over.
func (spec *ListenerSpec) validateDNS() error {
	s := spec.DNS
	if s == nil {
		return nil
	}
	c := &s.Cache
	switch {
	case spec.Protocol == TCP && c.MaxEntries == 0:
		return errors.New("DNS questions that come by TCP are answered by a cache, and these settings have none")
	case spec.Flows.SendProxy:
		return errors.New("DNS questions of many clients share a socket, and cannot carry a PROXY protocol header")
	case c.MinTTL < 0 || c.MaxTTL < 0 || c.NegativeTTL < 0 || c.StaleTTL < 0 || c.FailureTTL < 0:
		return errors.New("negative time in the DNS settings")
	case c.MaxEntries < 0 || c.MaxBytes < 0:
		return errors.New("negative number in the DNS settings")
	case s.MaxUDP != 0 && (s.MaxUDP < 512 || s.MaxUDP > maxDNSMessage):
		return fmt.Errorf("the largest answer by UDP is %d bytes, needs 512 to %d", s.MaxUDP, maxDNSMessage)
	}
	return nil
}

// sameDNS tells whether two specs have the same DNS settings and protocol, and so may share a cache.
func (spec *ListenerSpec) sameDNS(other *ListenerSpec) bool {
	if spec.DNS == nil || other.DNS == nil {
		return spec.DNS == other.DNS
	}
	return *spec.DNS == *other.DNS && spec.Protocol == other.Protocol
}

// DNSCacheCounters are what a cache has done since it was made, and what it holds.
type DNSCacheCounters = dnscache.Counters

// A DNSInfo is what a DNS listener has come to since its DNS settings were last changed; a plain value. Each number is true by itself,
// not all of them at one moment.
type DNSInfo struct {
	Cache DNSCacheCounters // all zero without a cache

	InFlight int // questions at backends now
	Sockets  int // that they are asked by now

	Asked       uint64 // questions sent to a backend, each try
	Answered    uint64 // of these, those with an answer
	TimedOut    uint64 // those without one in time
	Unreachable uint64 // those whose backend could not be reached: ICMP said so, or a connection was not made
	Failed      uint64 // questions that no backend has answered after all tries
	Mismatched  uint64 // datagrams and messages from backends that were no answer to anything asked: late, malformed or forged
}

// ErrUnknownListener is wrapped where a listener is named that there is not.
var ErrUnknownListener = errors.New("l4: unknown listener")

// ErrNoDNSCache is wrapped where the cache of a listener is meant that has none.
var ErrNoDNSCache = errors.New("l4: the listener has no DNS cache")

// ErrInvalidDNSName is wrapped where a text is to be a domain name and is none.
var ErrInvalidDNSName = dnscache.ErrInvalidName

// A DNSPurge says which answers are to be forgotten. Its zero value is refused.
type DNSPurge struct {
	Name  string // a domain name, with or without the final dot, in any case; "." is the root
	Below bool   // all names below it too; with "." these are all there are
}

// PurgeDNS has a listener's cache forget answers, stale ones too, and returns how many it were. What is being asked just now is
// answered, but not kept. The error is an ErrUnknownListener, ErrNoDNSCache or ErrInvalidDNSName. It may be called from any goroutine, and
// may take some milliseconds.
func (s *Server) PurgeDNS(listener string, what DNSPurge) (int, error) {
	s.mu.Lock()
	ls := s.listeners[listener]
	var service *dnsService
	if ls != nil {
		service = ls.dns
	}
	s.mu.Unlock()
	switch {
	case ls == nil:
		return 0, fmt.Errorf("purge DNS answers of listener %q: %w", listener, ErrUnknownListener)
	case service == nil || service.cache == nil:
		return 0, fmt.Errorf("purge DNS answers of listener %q: %w", listener, ErrNoDNSCache)
	case what.Name == "":
		return 0, fmt.Errorf("purge DNS answers of listener %q: %w: no name", listener, ErrInvalidDNSName)
	}
	purge := service.cache.Purge
	if what.Below {
		purge = service.cache.PurgeSuffix
	}
	n, err := purge(what.Name)
	if err != nil {
		return 0, fmt.Errorf("purge DNS answers of listener %q: %w", listener, err)
	}
	return n, nil
}
