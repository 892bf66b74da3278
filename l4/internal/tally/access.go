package tally

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// An AccessLog decides whether a line is logged at the end of each session and flow, and holds the logger for it. Its
// methods may be called from any goroutine. The zero value logs nothing.
type AccessLog struct {
	Log    zerolog.Logger // set once; its writer never blocks
	every  atomic.Int64
	probes atomic.Bool
}

// Set says which sessions and flows have a line. Of those that ended in order it is every so many-th: none if every is
// 0 or negative. Of the others all have one, unless every is 0. probes is for those that ended with the reason Probe;
// without it they have none.
func (a *AccessLog) Set(every int, probes bool) {
	a.every.Store(int64(every))
	a.probes.Store(probes)
}

// Settings returns the values of the last call to Set.
func (a *AccessLog) Settings() (every int, probes bool) { return int(a.every.Load()), a.probes.Load() }

// Logs reports whether a session or flow that ends for this reason is logged. inOrder says whether it ended in order,
// and sample counts those of the caller's loop that did.
func (a *AccessLog) Logs(why Reason, inOrder bool, sample *Sample) bool {
	every := a.every.Load()
	switch {
	case every == 0 || why == Probe && !a.probes.Load():
		return false
	case every == 1 || !inOrder:
		return true
	case every < 0:
		return false
	}
	return sample.next(every)
}

// A Sample counts the sessions or flows of one loop that ended in order. onLoop.
type Sample int64

// next reports whether the next one is an every-th.
func (n *Sample) next(every int64) bool {
	if *n++; int64(*n) < every {
		return false
	}
	*n = 0
	return true
}

// An ID is the number of a session or a flow. It is unique within a server.
type ID uint64

// String returns the id as sixteen hexadecimal digits, as in the access line.
func (id ID) String() string { return string(id.Append(nil)) }

// Append appends the text of String.
func (id ID) Append(to []byte) []byte {
	var raw [8]byte
	for i := range raw {
		raw[i] = byte(id >> (56 - 8*i))
	}
	return hex.AppendEncode(to, raw[:])
}

// ParseID parses the text of String.
func ParseID(s string) (ID, error) {
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("session id %q: needs sixteen hexadecimal digits", s)
	}
	return ID(id), nil
}
