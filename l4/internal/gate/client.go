package gate

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// A ClientID is the address, or the part of one, that stands for a client. IPv4 addresses are in their form mapped into
// IPv6.
type ClientID [16]byte

// A clientMask says how much of an address stands for a client.
type clientMask struct {
	four             uint64 // of the last 64 bits, for IPv4 mapped into IPv6
	six              [2]uint64
	prefix4, prefix6 int
}

// maskOf returns the mask of the limits' prefixes.
func maskOf(l *Limits) clientMask {
	m := clientMask{prefix4: l.Prefix4, prefix6: l.Prefix6}
	if m.prefix4 == 0 {
		m.prefix4 = DefaultPrefix4
	}
	if m.prefix6 == 0 {
		m.prefix6 = DefaultPrefix6
	}
	m.four = ^uint64(0) << (32 - m.prefix4)
	m.six[0] = ^uint64(0) << max(0, 64-m.prefix6) // a shift by 64 leaves none
	m.six[1] = ^uint64(0) << min(64, 128-m.prefix6)
	return m
}

// id returns who counts as one client.
func (m *clientMask) id(addr [16]byte) ClientID {
	high, low := binary.BigEndian.Uint64(addr[:8]), binary.BigEndian.Uint64(addr[8:])
	if high == 0 && low>>32 == 0xffff {
		low &= m.four
	} else {
		high, low = high&m.six[0], low&m.six[1]
	}
	binary.BigEndian.PutUint64(addr[:8], high)
	binary.BigEndian.PutUint64(addr[8:], low)
	return addr
}

// prefix is what a client's ID stands for.
func (m *clientMask) prefix(id ClientID) netip.Prefix {
	if a := netip.AddrFrom16(id); !a.Is4In6() {
		return netip.PrefixFrom(a, m.prefix6)
	} else {
		return netip.PrefixFrom(a.Unmap(), m.prefix4)
	}
}

// A client is what is known of one: 80 bytes. Its moments count since Options.Started. The zero value is nobody.
type client struct {
	id   ClientID
	seen time.Duration    // when it came last; 0 for nobody
	next time.Duration    // the state of its client_rate, see rate.Limit.Take
	pace [2]time.Duration // the same of its bandwidth, by Direction

	bytes    [2]uint64 // moved, by Direction
	refused  uint32
	sessions uint32  // and flows
	often    float32 // how often it came lately, per second, as of seen
}

// oftenOver is the time over which often is averaged: what came so long ago counts a third.
const oftenOver = 10 * time.Second

// came notes that the client wants to come in.
func (c *client) came(now time.Duration) {
	c.often = float32(c.rateAt(now) + 1/oftenOver.Seconds())
	c.seen = max(now, 1)
}

// rateAt is how often it came lately, per second.
func (c *client) rateAt(now time.Duration) float64 {
	return float64(c.often) * math.Exp(-float64(max(0, now-c.seen))/float64(oftenOver))
}

// admit lets the client have one more, or says why not.
func (c *client) admit(l *Limits, most int, now time.Duration) Reason {
	if most > 0 && int(c.sessions) >= most {
		return ClientFull
	}
	if l.ClientRate.On() {
		var wait time.Duration
		if c.next, wait = l.ClientRate.Take(c.next, now); wait > 0 {
			return ClientOften
		}
	}
	return Admitted
}

// isIdle reports whether nothing would be lost if the client was forgotten.
func (c *client) isIdle(now time.Duration) bool {
	return c.sessions == 0 && c.next <= now && c.pace[In] <= now && c.pace[Out] <= now
}

// A worth says how much is lost when a client is forgotten.
type worth struct {
	limited  bool   // it is over its rate
	sessions uint32 // that would be counted no longer
	seen     time.Duration
}

func (c *client) worth(limit rate.Limit, now time.Duration) worth {
	return worth{limit.On() && limit.Wait(c.next, now) > 0, c.sessions, max(c.seen, c.next)}
}

func (w worth) less(than worth) bool {
	switch {
	case w.limited != than.limited:
		return !w.limited
	case w.sessions != than.sessions:
		return w.sessions < than.sessions
	}
	return w.seen < than.seen
}
