package session_test

import (
	"io"
	"net"
	"testing"
	"time"
)

// A stream is what somebody has received, and when.
type stream struct {
	begun, ended time.Time // the first and the last read
	reads        []received
	total        int
}

type received struct {
	at time.Time
	n  int
}

// receive reads from a connection for so long, from its first bytes on, or to its end.
func receive(c net.Conn, long time.Duration) *stream {
	x := new(stream)
	buf := make([]byte, 256<<10)
	for {
		n, err := c.Read(buf)
		now := time.Now()
		if n > 0 {
			if x.total == 0 {
				x.begun = now
			}
			x.ended = now
			x.total += n
			x.reads = append(x.reads, received{now, n})
		}
		if err != nil || now.Sub(x.begun) > long && x.total > 0 {
			return x
		}
	}
}

// send sends without a pause until the connection is closed.
func send(c io.Writer) {
	chunk := make([]byte, 128<<10)
	for {
		if _, err := c.Write(chunk); err != nil {
			return
		}
	}
}

// pause is the longest time without a read. On a machine that keeps up it is little more than a turn.
func (x *stream) pause() (longest time.Duration) {
	for i := 1; i < len(x.reads); i++ {
		longest = max(longest, x.reads[i].at.Sub(x.reads[i-1].at))
	}
	return longest
}

// most is how many bytes came within a tenth of a second.
func (x *stream) most() (most int) {
	for i, first, sum := 0, 0, 0; i < len(x.reads); i++ {
		for sum += x.reads[i].n; x.reads[i].at.Sub(x.reads[first].at) > time.Second/10; first++ {
			sum -= x.reads[first].n
		}
		most = max(most, sum)
	}
	return most
}

// holds checks the rate of a stream whose sender has not paused. What the limit gives at most is what comes in within
// the time and before it (paceDepth), and a turn. A loop that is late reads at once what it has missed, and so does the
// test, one after the other: on a busy machine each pause of theirs adds to that. So does the turn in which a loop accepts
// a hundred sessions, which nobody here sees: the first quarter of a second does not count.
func (x *stream) holds(t *testing.T, rate int) {
	t.Helper()
	steady := x.after(x.begun.Add(time.Second / 4))
	took, slack := steady.ended.Sub(steady.begun).Seconds(), 0.2+2*steady.pause().Seconds()
	ratio := float64(steady.total-steady.reads[0].n) / took / float64(rate) // the first read has what came before it
	least := 0.95
	if steady.pause() > time.Second/10 {
		least = 0.6
	}
	if ratio > 1+slack/took || ratio < least {
		t.Errorf("%d bytes in %.2f s are %.3f of the limit; no byte for %v", steady.total, took, ratio, steady.pause())
	}
	if most := steady.most(); float64(most) > float64(rate)*(slack+0.1)+64<<10 {
		t.Errorf("%d bytes within a tenth of a second, the limit is %d in a second; no byte for %v", most, rate,
			steady.pause())
	}
}

// after returns the part of a stream from a time on, or the whole if nothing came later.
func (x *stream) after(begun time.Time) *stream {
	for i, r := range x.reads {
		if r.at.Before(begun) {
			continue
		}
		part := &stream{begun: r.at, ended: x.ended, reads: x.reads[i:]}
		for _, r := range part.reads {
			part.total += r.n
		}
		return part
	}
	return x
}
