package pool

import (
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// A Spec describes a backend to be added. It is a plain value; Add validates it.
type Spec struct {
	ID     string         // unique in the pool, not empty
	Addr   netip.AddrPort // a unicast address and a port
	Weight uint32         // share relative to the pool's other backends, 1 to 256; 0 drains: it gets nothing new
}

// validate returns an *InvalidBackendError when s cannot be a backend.
func (s Spec) validate() error {
	if s.ID == "" {
		return &InvalidBackendError{Field: "id", Value: s.ID, Want: "a name"}
	}
	a := s.Addr.Addr().Unmap()
	if !s.Addr.IsValid() || s.Addr.Port() == 0 || a.IsUnspecified() || a.IsMulticast() {
		return &InvalidBackendError{Field: "addr", Value: s.Addr.String(), Want: "a unicast address and a port"}
	}
	return validateWeight(s.Weight)
}

func validateWeight(w uint32) error {
	if w > algo.MaxWeight {
		return &InvalidBackendError{
			Field: "weight", Value: strconv.FormatUint(uint64(w), 10), Want: "0 to " + strconv.Itoa(algo.MaxWeight),
		}
	}
	return nil
}

// A Backend is one address that sessions and flows are sent to, with the counters of all it ever did.
// Its methods may be called from any goroutine; its zero value is of no use, see Pool.Add.
// It lives on after its removal from the pool for as long as someone holds a lease on it.
type Backend struct {
	// set once, then read-only
	id   string
	addr netip.AddrPort

	load     algo.Load
	outcomes [numOutcomes]atomic.Uint64 // leases released, by Outcome
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
}

// ID returns the backend's name, unique in its pool.
func (b *Backend) ID() string { return b.id }

// Addr returns the address that sessions are sent to. An IPv4 address is never in its form mapped into IPv6.
func (b *Backend) Addr() netip.AddrPort { return b.addr }

// AddBytes counts bytes moved: in from client to backend, out from backend to client.
func (b *Backend) AddBytes(in, out uint64) {
	b.bytesIn.Add(in)
	b.bytesOut.Add(out)
}

// A member is a backend with its settings in one snapshot. It is immutable; a change makes another one.
// Verdict and mode stay apart: what the checks say and what the operator wants never overwrite each other.
type member struct {
	backend *Backend
	weight  uint32
	verdict Verdict
	reason  string    // of the verdict
	since   time.Time // of the verdict
	mode    Mode
}

// eligible reports whether the backend may get new sessions.
func (m *member) eligible() bool {
	return m.verdict == Healthy && m.mode == Ready && m.weight > 0
}

// info returns the settings of the snapshot with the counters of this moment.
func (m *member) info() BackendInfo {
	b := m.backend
	i := BackendInfo{
		ID: b.id, Addr: b.addr, Weight: m.weight,
		Verdict: m.verdict, Reason: m.reason, Since: m.since, Mode: m.mode,
		Leases: b.load.Leases(), BytesIn: b.bytesIn.Load(), BytesOut: b.bytesOut.Load(),
	}
	for o := range b.outcomes {
		i.Outcomes[o] = b.outcomes[o].Load()
	}
	return i
}

// A BackendInfo is a copy of all that is known of a backend at one moment. It is a plain value and never changes.
type BackendInfo struct {
	ID      string
	Addr    netip.AddrPort
	Weight  uint32
	Verdict Verdict
	Reason  string    // why the verdict was given
	Since   time.Time // when the verdict was given
	Mode    Mode

	Leases   int64               // held now
	Outcomes [numOutcomes]uint64 // leases released, indexed by Outcome
	BytesIn  uint64              // from clients to the backend
	BytesOut uint64              // from the backend to clients
}
