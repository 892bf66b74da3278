package l4

import "github.com/limeload/limeload-l4/l4/internal/tlsconn"

// A TLSServer is what a listener ends TLS with: certificates, versions, who must show a certificate, tickets. Several
// listeners may have one.
type TLSServer = tlsconn.Server

// A TLSClient is what connections to a pool's backends are encrypted with: see pool.Options.Secure.
type TLSClient = tlsconn.Client
