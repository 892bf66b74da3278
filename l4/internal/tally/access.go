package tally

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// An AccessLog says whether a line is logged at the end of each session and flow, and where. Its methods may be called
// from any goroutine; the zero value logs nothing.
type AccessLog struct {
	Log    zerolog.Logger // set once; its writer never blocks
	on     atomic.Bool
	probes atomic.Bool
}

// Set turns the lines on or off: all of them, and those that end with Probe.
func (a *AccessLog) Set(on, probes bool) {
	a.on.Store(on)
	a.probes.Store(probes)
}

// Settings returns what Set has set last.
func (a *AccessLog) Settings() (on, probes bool) { return a.on.Load(), a.probes.Load() }

// Logs reports whether a session or flow that ends for this reason gets a line.
func (a *AccessLog) Logs(why Reason) bool { return a.on.Load() && (why != Probe || a.probes.Load()) }

// An ID is the number of a session or a flow. No two of a server have the same.
type ID uint64

// String returns the id as the access line has it, in sixteen hexadecimal digits.
func (id ID) String() string { return string(id.Append(nil)) }

// Append appends what String returns.
func (id ID) Append(to []byte) []byte {
	var raw [8]byte
	for i := range raw {
		raw[i] = byte(id >> (56 - 8*i))
	}
	return hex.AppendEncode(to, raw[:])
}

// ParseID reads what String has written.
func ParseID(s string) (ID, error) {
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("session id %q: needs sixteen hexadecimal digits", s)
	}
	return ID(id), nil
}
