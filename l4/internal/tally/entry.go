package tally

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// An Entry is a copy of a session's or a flow's state at one moment. Its times count from the start of the server.
type Entry struct {
	ID        ID
	Protocol  sock.Protocol // UDP for a flow
	Listener  string
	Pool      *pool.Pool       // nil until a route has chosen it
	Backend   *pool.Backend    // nil while the session waits for one
	Port      uint16           // of Backend's connection, if Backend has no port of its own; 0 if it has none yet
	Client    netip.AddrPort   // not valid for a client of a Unix socket
	Via       netip.AddrPort   // whose connection it is; invalid unless a PROXY header has named the client
	Process   sock.Credentials // of such a client
	Phase     string
	Began     time.Duration
	Connected time.Duration // when its backend was connected; zero before
	Active    time.Duration // when bytes last moved; before that, when it was connected or accepted

	BytesIn, BytesOut         uint64
	DatagramsIn, DatagramsOut uint64 // flows only
	Retries                   int    // failed connects; for a flow, how often its backend was changed
}

// BackendAddress is where Backend, which is not nil, is connected to.
func (e *Entry) BackendAddress() pool.Address { return e.Backend.Addr().WithPort(e.Port) }

// PoolName is the name of the entry's pool; "" if it has none yet.
func (e *Entry) PoolName() string {
	if e.Pool == nil {
		return ""
	}
	return e.Pool.Name()
}
