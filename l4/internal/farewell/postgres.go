package farewell

import "github.com/limeload/limeload-l4/l4/internal/wire"

// The SQLSTATEs of a server that cannot take a client (PostgreSQL documentation, appendix A). Clients with several
// hosts try the next one.
const (
	cannotConnectNow   = "57P03"
	tooManyConnections = "53300"
)

// A postgres answers a StartupMessage with an ErrorResponse. Requests for encryption before it are declined, and the
// client goes on without, or gives up by itself.
type postgres struct {
	cause    cause
	ssl, gss bool // asked for
}

func (p *postgres) hear(heard, reply []byte) (n int, answer []byte, v verdict) {
	for {
		kind, size := wire.ReadPostgresRequest(heard[n:])
		n += size
		asked := &p.ssl
		switch kind {
		case wire.PostgresNone:
			return n, reply, wait
		case wire.PostgresStartup:
			state := cannotConnectNow
			if p.cause.full {
				state = tooManyConnections
			}
			return n, wire.AppendPostgresFatal(reply, state, p.cause.text), said
		case wire.PostgresSSL:
		case wire.PostgresGSS:
			asked = &p.gss
		case wire.PostgresCancel:
			return n, reply, said // the client expects nothing but the end
		default:
			return n, reply, foreign
		}
		if *asked { // as a server, that takes each once
			return n, reply, foreign
		}
		*asked = true
		reply = append(reply, 'N')
	}
}
