package dns

import (
	"errors"
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dns/dnscache"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// Settings say that a listener's clients ask DNS questions. By UDP a question is then no flow: all questions for a
// backend share a few sockets, told apart by random ids (RFC 5452), and each is gone with its answer. What is not a
// plain question is relayed by a flow as without these settings, unless it is no DNS question at all. Of a listener's
// flow settings only ClientMax bounds questions, too: those of one client that wait for an answer.
//
// By TCP, which takes a cache, a session has no backend: its questions share a few connections to each backend with
// those of others. With the first question that is not plain it becomes a session as without these settings.
//
// It is a value, and comparable; the zero value is usable with UDP, and keeps no answers.
type Settings struct {
	Cache CacheSettings

	// MaxUDP is the largest answer by UDP, in bytes, whatever the client takes: a larger one is cut, and the client
	// told to ask by TCP. By UDP anybody can ask in another's name. 0 = 1232.
	MaxUDP int

	// Only tests set the fields below.
	timeoutForTest time.Duration // instead of defaultTimeout; 0 = defaultTimeout
	socketsForTest int           // instead of defaultSockets; 0 = defaultSockets
}

// CacheSettings say which answers are kept, and for how long. The zero value is no cache: then no question waits for
// another either. Times count in whole seconds, as TTLs do.
type CacheSettings struct {
	MaxEntries int   // 0 = no cache; nothing below counts then
	MaxBytes   int64 // of all entries; 0 = 1 KiB for each of MaxEntries

	MinTTL      time.Duration // shorter TTLs are raised to it, but for 0
	MaxTTL      time.Duration // longer ones are lowered to it; 0 = 24 h
	NegativeTTL time.Duration // how long it is kept at most that there is nothing; 0 = not at all
	StaleTTL    time.Duration // how long expired answers are kept for when no backend answers (RFC 8767); 0 = not at all
	FailureTTL  time.Duration // how long it is remembered that a question cannot be answered (RFC 9520); 0 = not at all

	Prefetch bool // names in demand are asked for again shortly before they expire
}

const (
	// defaultTimeout is how long a backend has for an answer. Then another one is asked, up to the pool's retries. If
	// none answers, the client gets an expired answer from the cache, or else SERVFAIL. Stub resolvers ask again after
	// 5 s: two backends can be asked before that.
	defaultTimeout = 2 * time.Second

	// defaultSockets is how many sockets, or connections, send questions to one backend, for each loop. While some are
	// being renewed, up to as many again wait for their last answers. More than one is for their buffers: a few hundred
	// answers each where the kernel gives no more (net.core.rmem_max).
	defaultSockets = 8

	defaultMaxTTL = 24 * time.Hour // RFC 8767, 4 advises resolvers to cap at days

	defaultMaxUDP = 1232 // what no path fragments (DNS flag day 2020), and thirty times a small question
)

func (s *Settings) timeout() time.Duration {
	if s.timeoutForTest == 0 {
		return defaultTimeout
	}
	return s.timeoutForTest
}

func (s *Settings) sockets() int {
	if s.socketsForTest == 0 {
		return defaultSockets
	}
	return s.socketsForTest
}

func (s *Settings) maxUDP() int {
	if s.MaxUDP == 0 {
		return defaultMaxUDP
	}
	return s.MaxUDP
}

func (s *Settings) cacheOptions() dnscache.Options {
	c := &s.Cache
	maxTTL := c.MaxTTL
	if maxTTL == 0 {
		maxTTL = defaultMaxTTL
	}
	return dnscache.Options{
		MaxEntries: c.MaxEntries, MaxBytes: c.MaxBytes, MinTTL: c.MinTTL, MaxTTL: maxTTL,
		NegativeTTL: c.NegativeTTL, StaleTTL: c.StaleTTL, FailureTTL: c.FailureTTL, Prefetch: c.Prefetch,
		MaxUDP: s.maxUDP(),
	}
}

// Validate returns what is wrong with the settings of a listener. tcp says that its clients come by TCP, and sendProxy
// that its flows send a PROXY protocol header.
func (s *Settings) Validate(tcp, sendProxy bool) error {
	c := &s.Cache
	switch {
	case tcp && c.MaxEntries == 0:
		return errors.New("DNS questions that come by TCP are answered by a cache, and these settings have none")
	case sendProxy:
		return errors.New("DNS questions of many clients share a socket, and cannot carry a PROXY protocol header")
	case c.MinTTL < 0 || c.MaxTTL < 0 || c.NegativeTTL < 0 || c.StaleTTL < 0 || c.FailureTTL < 0:
		return errors.New("negative time in the DNS settings")
	case c.MaxEntries < 0 || c.MaxBytes < 0:
		return errors.New("negative number in the DNS settings")
	case s.MaxUDP != 0 && (s.MaxUDP < 512 || s.MaxUDP > wire.MaxDNSMessage):
		return fmt.Errorf("the largest answer by UDP is %d bytes, needs 512 to %d", s.MaxUDP, wire.MaxDNSMessage)
	}
	return nil
}

// A Purge says which answers are to be forgotten. Its zero value is refused.
type Purge struct {
	Name  string // a domain name, with or without the final dot, in any case; "." is the root
	Below bool   // all names below it too; with "." these are all there are
}

// ErrNoCache says that a service has no cache.
var ErrNoCache = errors.New("l4: the listener has no DNS cache")

// Purge makes the cache forget answers, stale ones too, and returns how many they were. What is being asked just now is
// answered, but not kept. The error is an ErrNoCache or a dnscache.ErrInvalidName. It may take some milliseconds.
func (s *Service) Purge(what Purge) (int, error) {
	switch {
	case s.cache == nil:
		return 0, ErrNoCache
	case what.Name == "":
		return 0, fmt.Errorf("%w: no name", dnscache.ErrInvalidName)
	case what.Below:
		return s.cache.PurgeSuffix(what.Name)
	}
	return s.cache.Purge(what.Name)
}
