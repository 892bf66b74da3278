package gate

import "time"

// Bytes is the state of a limit of bandwidth, for one direction: bytes come in evenly, up to a depth, and are taken
// out. The rate, in bytes a second, is given to each call, so that another one may be used from then on. It belongs to
// one goroutine. The zero value has been empty at the moment 0.
type Bytes struct {
	empty time.Duration // when it was, if it has filled up evenly since then
}

// Fill makes the bucket hold what comes in within a time.
func (b *Bytes) Fill(within, now time.Duration) { b.empty = now - within }

// Has is how many bytes the bucket holds, at most what comes in within depth; a burst of a tenth of a second at
// MaxBandwidth is far below what an int holds.
func (b *Bytes) Has(rate int64, depth, now time.Duration) int {
	b.empty = max(b.empty, now-depth)
	return int(float64(now-b.empty) / float64(time.Second) * float64(rate))
}

// Take takes n bytes out.
func (b *Bytes) Take(rate int64, n int) { b.empty += TimeOf(rate, n) }

// When is the moment at which the bucket holds what comes in within a time.
func (b *Bytes) When(within time.Duration) time.Duration { return b.empty + within }

// TimeOf is how long n bytes take at a rate.
func TimeOf(rate int64, n int) time.Duration {
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
}

// Bandwidth is what the listener's limits allow now, in bytes a second each direction: one session or flow, and all of
// one client; 0 is without a limit. It may be called from any goroutine.
func (ls *Listener) Bandwidth() (session, client int64) {
	l := &ls.settings().Limits
	if l.DryRun {
		return 0, 0
	}
	return l.SessionBandwidth, l.ClientBandwidth
}
