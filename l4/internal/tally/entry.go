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
	Pool      *pool.Pool    // nil until a route has chosen it
	Backend   *pool.Backend // nil while the session waits for one
	Client    netip.AddrPort
	Via       netip.AddrPort // whose connection it is; invalid unless a PROXY header has named the client
	Phase     string
	Began     time.Duration
	Connected time.Duration // when its backend was connected; zero before
	Active    time.Duration // when bytes last moved; before that, when it was connected or accepted

	BytesIn, BytesOut         uint64
	DatagramsIn, DatagramsOut uint64 // flows only
	Retries                   int    // failed connects; for a flow, how often its backend was changed
}

// PoolName is the name of the entry's pool; "" if it has none yet.
func (e *Entry) PoolName() string {
	if e.Pool == nil {
		return ""
	}
	return e.Pool.Name()
}
