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
	on     atomic.Bool
	probes atomic.Bool
}

// Set turns the access lines on or off. probes does the same for sessions and flows that ended with the reason Probe;
// they also need on.
func (a *AccessLog) Set(on, probes bool) {
	a.on.Store(on)
	a.probes.Store(probes)
}

// Settings returns the values of the last call to Set.
func (a *AccessLog) Settings() (on, probes bool) { return a.on.Load(), a.probes.Load() }

// Logs reports whether a session or flow that ends for this reason is logged.
func (a *AccessLog) Logs(why Reason) bool { return a.on.Load() && (why != Probe || a.probes.Load()) }

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
