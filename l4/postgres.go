package l4

import (
	"cmp"
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
// nothing of the clients; but a TLSServer with StartTLS says that they speak Postgres, too.
type PostgresSettings struct {
	// Timeout is within which a client must have sent what it begins with; 0 = the listener does not look at it, or with
	// StartTLS, that of the handshake.
	Timeout time.Duration
}

// defaultStartup is PostgresSettings.Timeout if StartTLS is all that says that clients speak Postgres, and the
// handshake has no limit.
const defaultStartup = 10 * time.Second

// A CancelResult is what became of a CancelRequest of Postgres. The set is closed: it is a label of metrics.
// docs/postgres.md explains each.
type CancelResult = postgres.Result

// CancelResults returns every result of a cancel that there is.
func CancelResults() []CancelResult { return postgres.Results() }

// startsTLS reports whether clients begin TLS, which ends here, in the way of Postgres.
func (spec *ListenerSpec) startsTLS() bool { return spec.TLS != nil && spec.TLS.Settings().StartTLS }

// startupTimeout is how long clients of Postgres have to send what they begin with; 0 if the listener does not look.
func (spec *ListenerSpec) startupTimeout() time.Duration {
	if spec.Postgres.Timeout == 0 && spec.startsTLS() {
		return cmp.Or(spec.TLS.Settings().HandshakeTimeout, defaultStartup)
	}
	return spec.Postgres.Timeout
}

// withPostgres appends the preface that reads what clients of Postgres begin with, if the spec wants it here. It may
// stand before TLS and behind it.
func (ls *listener) withPostgres(prefaces []session.Opener, spec *ListenerSpec, behindTLS bool) []session.Opener {
	timeout := spec.startupTimeout()
	if timeout == 0 || spec.TLS != nil && !spec.startsTLS() && !behindTLS {
		return prefaces
	}
	ls.postgres.SetPools(slices.Collect(spec.pools))
	return append(prefaces, ls.postgres.Opener(postgres.Settings{
		Timeout: timeout, TLS: spec.startsTLS(), Required: spec.startsTLS() && spec.TLS.Settings().Required,
		Omit:     2, // TLS, and what stands behind it
		Encrypts: func(p *pool.Pool) bool { return p.Secure() != nil },
	}, len(ls.gate.Counters)))
}

func (spec *ListenerSpec) validatePostgres() error {
	switch timeout := spec.startupTimeout(); {
	case timeout == 0:
		return nil
	case spec.Protocol != TCP:
		return errors.New("clients of Postgres need TCP")
	case spec.DNS != nil:
		return errors.New("clients of Postgres and DNS settings exclude each other")
	case timeout < 0:
		return errors.New("no time for what clients of Postgres begin with")
	}
	return nil
}

// encryptCancel makes a connection to a backend at an address one that speaks TLS, if connections of its pool do: see
// postgres.Sender.Encrypt.
func encryptCancel(ctx context.Context, c net.Conn, p *pool.Pool, at pool.Address) (net.Conn, error) {
	secure, _ := p.Secure().(*TLSClient)
	if secure == nil {
		return c, nil
	}
	if secure.Settings().StartTLS {
		if err := postgres.StartTLS(c); err != nil {
			return nil, err
		}
	}
	encrypted := tls.Client(c, secure.Config("", at.AddrPort))
	return encrypted, encrypted.HandshakeContext(ctx)
}
