package tally

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// An Entry is a session or a flow at one moment: a copy, whose moments count from the start of the server.
type Entry struct {
	ID        ID
	Protocol  sock.Protocol // UDP for a flow
	Listener  string
	Pool      *pool.Pool
	Backend   *pool.Backend // nil while it waits for one
	Client    netip.AddrPort
	Phase     string
	Began     time.Duration
	Connected time.Duration // to its backend; zero before
	Active    time.Duration // when bytes last moved, or it was connected or accepted

	BytesIn, BytesOut         uint64
	DatagramsIn, DatagramsOut uint64 // of a flow
	Retries                   int    // connects that failed before; of a flow, how often it got another backend
}
