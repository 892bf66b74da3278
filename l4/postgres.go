package l4

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/postgres"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/pool"
)

// PostgresSettings say that the clients of a listener speak Postgres. Then CancelRequests go to the backends that they
// are for, and requests for encryption are answered here where the backends must not get them. The zero value says
// nothing of the clients.
type PostgresSettings struct {
	Timeout time.Duration // in which a client must have sent what it begins with; 0 = the listener does not look at it

	TLS      bool // clients begin TLS, which ends here, with an SSLRequest, or at once; otherwise at once
	Required bool // clients without TLS are refused; without TLS it means nothing
}

// A CancelResult is what became of a CancelRequest of Postgres. The set is closed: it is a label of metrics.
// docs/postgres.md explains each.
type CancelResult = postgres.Result

// CancelResults returns every result of a cancel that there is.
func CancelResults() []CancelResult { return postgres.Results() }

// withPostgres appends the preface that reads what clients of Postgres begin with, if the spec wants it here. It may
// stand before TLS and behind it.
func (ls *listener) withPostgres(prefaces []session.Opener, spec *ListenerSpec, behindTLS bool) []session.Opener {
	p := &spec.Postgres
	if p.Timeout == 0 || spec.TLS != nil && !p.TLS && !behindTLS {
		return prefaces
	}
	ls.postgres.SetPools(slices.Collect(spec.pools))
	return append(prefaces, ls.postgres.Opener(postgres.Settings{
		Timeout: p.Timeout, TLS: p.TLS, Required: p.Required, Omit: 2, // TLS, and what stands behind it
		Encrypts: func(p *pool.Pool) bool { return p.Secure() != nil },
	}, len(ls.gate.Counters)))
}

func (spec *ListenerSpec) validatePostgres() error {
	switch p := &spec.Postgres; {
	case *p == PostgresSettings{}:
		return nil
	case spec.Protocol != TCP:
		return errors.New("clients of Postgres need TCP")
	case spec.DNS != nil:
		return errors.New("clients of Postgres and DNS settings exclude each other")
	case p.TLS && spec.TLS == nil:
		return errors.New("clients of Postgres are to begin TLS that does not end here")
	case p.Timeout <= 0:
		return errors.New("no time for what clients of Postgres begin with")
	}
	return nil
}

// encryptCancel makes a connection to a backend one that speaks TLS, if connections of its pool do: see
// postgres.Sender.Encrypt.
func encryptCancel(ctx context.Context, c net.Conn, p *pool.Pool, b *pool.Backend) (net.Conn, error) {
	secure, _ := p.Secure().(*TLSClient)
	if secure == nil {
		return c, nil
	}
	if secure.StartTLS() {
		if err := postgres.StartTLS(c); err != nil {
			return nil, err
		}
	}
	encrypted := tls.Client(c, secure.Config("", b.Addr()))
	return encrypted, encrypted.HandshakeContext(ctx)
}
