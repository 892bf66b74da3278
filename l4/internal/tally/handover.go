package tally

import (
	"strconv"
	"sync/atomic"

	"github.com/limeload/limeload-l4/pool"
)

// each calls visit with each counter and its name. The names are for another process, perhaps of another version, and
// are never used for another thing.
func (c *Counters) each(visit func(name string, n *atomic.Uint64)) {
	visit("accepted", &c.Accepted)
	visit("bytes_in", &c.BytesIn)
	visit("bytes_out", &c.BytesOut)
	visit("datagrams_in", &c.DatagramsIn)
	visit("datagrams_out", &c.DatagramsOut)
	for r := range c.Ended {
		visit("ended."+Reason(r).String(), &c.Ended[r])
	}
	for o := range c.Retries {
		visit("retries."+pool.Outcome(o).String(), &c.Retries[o])
	}
	for d := range c.Dropped {
		visit("dropped."+Drop(d).String(), &c.Dropped[d])
	}
	c.Handshakes.each(visit)
	c.ConnectTime.each("connect_time", visit)
	c.FirstByteTime.each("first_byte_time", visit)
	c.Duration.each("duration", visit)
	c.QueueTime.each("queue_time", visit)
}

func (c *Handshakes) each(visit func(name string, n *atomic.Uint64)) {
	for side := range sideCount {
		prefix := "handshakes." + side.String() + "."
		for v, version := range handshakeVersions {
			visit(prefix+version, &c.ok[side][v][0])
			visit(prefix+version+".resumed", &c.ok[side][v][1])
		}
		for why := HandshakeOK + 1; why < handshakeResults; why++ {
			visit(prefix+why.String(), &c.failed[side][why])
		}
		visit("secured."+side.String()+".kernel", &c.secured[side][1])
		visit("secured."+side.String()+".user", &c.secured[side][0])
	}
}

// each calls visit with each bucket, named by its number in the schema, and with the sum.
func (h *Recorder) each(name string, visit func(name string, n *atomic.Uint64)) {
	for i := range h.buckets {
		visit(name+"."+strconv.Itoa(lowestBucket+i), &h.buckets[i])
	}
	visit(name+".microseconds", &h.micros)
}

// Counts returns the counts of all loops by name, but for those that are zero. It may be called from any goroutine.
func Counts(loops []Counters) map[string]uint64 {
	all := make(map[string]uint64)
	for i := range loops {
		loops[i].each(func(name string, n *atomic.Uint64) {
			if v := n.Load(); v > 0 {
				all[name] += v
			}
		})
	}
	return all
}

// AddCounts adds what another process has counted. Names that are not known are ignored. It may be called from any
// goroutine.
func (c *Counters) AddCounts(counts map[string]uint64) {
	c.each(func(name string, n *atomic.Uint64) {
		if v := counts[name]; v > 0 {
			n.Add(v)
		}
	})
}

// ReasonNamed returns the reason whose String that is; NoReason if there is none.
func ReasonNamed(name string) Reason {
	for r := range reasonNames {
		if reasonNames[r] == name {
			return Reason(r)
		}
	}
	return NoReason
}
