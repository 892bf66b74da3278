package daemon

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

const (
	// ticketsVersion is the version of the value in etcd.
	ticketsVersion = 1
	// maxTicketsBytes bounds the value, and maxTicketKeys its keys: there are three, and a few more if a clock is wrong.
	maxTicketsBytes = 4096
	maxTicketKeys   = 8
	// maxFutureKeys bounds the keys that a node with a clock far behind leaves in the value, and maxFuture their times.
	maxFutureKeys = 3
	maxFuture     = 7 * 24 * time.Hour

	// ticketPeriod is for how long a key makes tickets, and ticketLife for how long it reads them: as without a fleet.
	// Nobody uses a key for longer than ticketLife.
	ticketPeriod = 12 * time.Hour
	ticketLife   = 24 * time.Hour
	// ticketLead is the time from the making of a key to its use if there is no other key: all nodes have it by then, and
	// if two nodes have made one at once, all agree which one holds.
	ticketLead = 10 * time.Second
)

// errTicketsVersion is the error of a value that a later version of the program has written.
var errTicketsVersion = errors.New("its version is not known")

// A savedTickets is the value in etcd.
type savedTickets struct {
	Version int         `json:"version"`
	Keys    []ticketKey `json:"keys"`
}

// A ticketKey is a key of TLS session tickets that all nodes have. It makes tickets from the time From until that of
// the next key.
type ticketKey struct {
	Key  []byte    `json:"key"`
	From time.Time `json:"from"`
}

// ticketKeys are the keys of a fleet, the earliest first: in general the one before, the current one and the next one.
// So a node that has not heard of the last change can still read all tickets, and nodes without a connection go on to
// the next key at the same time. The zero value has none. It is immutable once it is sorted.
type ticketKeys []ticketKey

// parseTicketKeys returns the keys of a value from etcd. The error does not contain one.
func parseTicketKeys(value []byte) (ticketKeys, error) {
	var saved savedTickets
	if len(value) > maxTicketsBytes {
		return nil, fmt.Errorf("it has %d bytes, and not up to %d", len(value), maxTicketsBytes)
	}
	var version struct {
		Version int `json:"version"`
	}
	switch err := json.Unmarshal(value, &version); {
	case err != nil:
		return nil, errors.New("it is no JSON of this form") // the error might quote it
	case version.Version != ticketsVersion:
		return nil, fmt.Errorf("%w: %d", errTicketsVersion, version.Version)
	}
	if json.Unmarshal(value, &saved) != nil {
		return nil, errors.New("it is no JSON of this form")
	}
	if n := len(saved.Keys); n == 0 || n > maxTicketKeys {
		return nil, fmt.Errorf("it has %d keys, and not 1 to %d", n, maxTicketKeys)
	}
	keys := ticketKeys(saved.Keys)
	keys.sort()
	for i, k := range keys {
		switch {
		case len(k.Key) != l4.TLSTicketKeyBytes:
			return nil, fmt.Errorf("a key has %d bytes, and not %d", len(k.Key), l4.TLSTicketKeyBytes)
		case slices.Max(k.Key) == slices.Min(k.Key):
			return nil, errors.New("a key is no random one")
		case slices.ContainsFunc(keys[:i], func(other ticketKey) bool { return slices.Equal(other.Key, k.Key) }):
			return nil, errors.New("a key is there twice")
		}
	}
	return keys, nil
}

// value returns the value for etcd.
func (k ticketKeys) value() json.RawMessage {
	text, err := json.Marshal(savedTickets{Version: ticketsVersion, Keys: k})
	if err != nil {
		panic("ticket keys cannot be written: " + err.Error()) // times come from the clock, or from JSON
	}
	return text
}

// current returns the index of the key that makes tickets now; -1 if none does.
func (k ticketKeys) current(now time.Time) int {
	i := len(k) - 1
	for i >= 0 && k[i].From.After(now) {
		i--
	}
	if i >= 0 && now.Sub(k[i].From) >= ticketLife {
		return -1
	}
	return i
}

// hasNext reports whether there is a key after the current one. One of a far future is none: a node with a wrong clock
// has made it.
func (k ticketKeys) hasNext(now time.Time) bool {
	return slices.ContainsFunc(k, func(key ticketKey) bool {
		wait := key.From.Sub(now)
		return wait > 0 && wait <= 2*ticketPeriod
	})
}

// inUse returns the keys for handshakes that begin now: first the one that makes tickets, and after it all that only
// read them. There is none unless one makes tickets. until is when that changes; the zero time for never.
func (k ticketKeys) inUse(now time.Time) (keys [][l4.TLSTicketKeyBytes]byte, until time.Time) {
	at := func(t time.Time) {
		if t.After(now) && (until.IsZero() || t.Before(until)) {
			until = t
		}
	}
	current := k.current(now)
	if current >= 0 {
		keys = append(keys, [l4.TLSTicketKeyBytes]byte(k[current].Key))
	}
	for i, key := range k {
		at(key.From)
		at(key.From.Add(ticketLife))
		if current >= 0 && i != current && now.Sub(key.From) < ticketLife {
			keys = append(keys, [l4.TLSTicketKeyBytes]byte(key.Key))
		}
	}
	return keys, until
}

// rotated returns the keys with a new one that follows the current one, and without those that nobody needs any more.
// Later ones are kept: perhaps it is this node's clock that is wrong.
func (k ticketKeys) rotated(now time.Time) ticketKeys {
	var kept ticketKeys
	from := now.Add(ticketLead)
	if i := k.current(now); i >= 0 {
		kept = append(kept, k[max(0, i-1):i+1]...)
		if due := k[i].From.Add(ticketPeriod); due.After(from) {
			from = due
		}
	}
	key := make([]byte, l4.TLSTicketKeyBytes)
	_, _ = rand.Read(key) // never returns an error
	kept = append(kept, ticketKey{Key: key, From: from.UTC().Round(time.Millisecond)})
	future := 0
	for _, key := range k {
		if wait := key.From.Sub(now); wait > 0 && wait <= maxFuture && future < maxFutureKeys {
			kept, future = append(kept, key), future+1
		}
	}
	kept.sort()
	return kept
}

// sort puts the earliest key first.
func (k ticketKeys) sort() {
	slices.SortStableFunc(k, func(a, b ticketKey) int { return a.From.Compare(b.From) })
}
