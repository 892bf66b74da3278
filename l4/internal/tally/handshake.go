package tally

import (
	"crypto/tls"
	"sync/atomic"
)

// A Side is one of the two sides of a session.
type Side uint8

// The sides.
const (
	ClientSide Side = iota
	BackendSide
	sideCount
)

// String returns the side as metrics write it.
func (s Side) String() string { return [...]string{"client", "backend"}[s] }

// A HandshakeResult is how a TLS handshake has ended. The set is closed: it is a label of metrics.
type HandshakeResult uint8

// The results.
const (
	HandshakeOK            HandshakeResult = iota
	HandshakeRejected                      // the peer does not speak TLS, or breaks it, or has ended the handshake with an alert
	HandshakeVersion                       // no version that both speak
	HandshakeCipher                        // no cipher suite, group or signature that both know
	HandshakeProtocol                      // no protocol that both know (ALPN)
	HandshakeNoCertificate                 // the client had to send a certificate, and has sent none
	HandshakeCertificate                   // the peer's certificate was refused: unknown authority, expired, revoked
	HandshakeName                          // no certificate for the server name that the client asked for (strict_sni)
	HandshakeLeft                          // the peer has left
	HandshakeLate                          // it was not over in time
	handshakeResults
)

var handshakeResultNames = [handshakeResults]string{
	HandshakeOK: "ok", HandshakeRejected: "rejected", HandshakeVersion: "version", HandshakeCipher: "cipher",
	HandshakeProtocol: "protocol", HandshakeNoCertificate: "no_certificate", HandshakeCertificate: "certificate",
	HandshakeName: "name", HandshakeLeft: "left", HandshakeLate: "timeout",
}

// String returns the result as metrics write it.
func (r HandshakeResult) String() string { return handshakeResultNames[r] }

// A Handshake is a kind of TLS handshakes that are counted together.
type Handshake struct {
	Side    Side
	Result  HandshakeResult
	Version string // "1.2" or "1.3"; "" unless Result is HandshakeOK
	Resumed bool   // an earlier session went on; only with HandshakeOK
}

var handshakeVersions = [...]string{"1.2", "1.3"}

// Handshakes are one listener's counts of TLS handshakes on one loop, like Counters.
type Handshakes struct {
	ok     [sideCount][2][2]atomic.Uint64 // by whether the version is 1.3, and whether it was resumed
	failed [sideCount][handshakeResults]atomic.Uint64

	secured [sideCount][2]atomic.Uint64 // by whether the kernel encrypts
}

// Handshake counts a handshake that has succeeded. onLoop.
func (c *Handshakes) Handshake(side Side, version uint16, resumed bool) {
	c.ok[side][index(version >= tls.VersionTLS13)][index(resumed)].Add(1)
}

// HandshakeFailed counts a handshake that has not. onLoop.
func (c *Handshakes) HandshakeFailed(side Side, why HandshakeResult) { c.failed[side][why].Add(1) }

// A Secured is a kind of connections with TLS that are counted together, behind their handshakes.
type Secured struct {
	Side   Side
	Kernel bool // the kernel encrypts what they carry; else this process
}

// Secured counts a connection: when it goes into the kernel, or when it has ended without. onLoop.
func (c *Handshakes) Secured(side Side, kernel bool) { c.secured[side][index(kernel)].Add(1) }

// AddSecuredTo adds the counts of a side to all, which gets an entry for each kind of the side.
func (c *Handshakes) AddSecuredTo(all map[Secured]uint64, side Side) {
	for kernel := range 2 {
		all[Secured{Side: side, Kernel: kernel == 1}] += c.secured[side][kernel].Load()
	}
}

// AddTo adds the counts of a side to all, which gets an entry for each kind of the side.
func (c *Handshakes) AddTo(all map[Handshake]uint64, side Side) {
	for v, version := range handshakeVersions {
		for r := range 2 {
			all[Handshake{Side: side, Version: version, Resumed: r == 1}] += c.ok[side][v][r].Load()
		}
	}
	for why := HandshakeOK + 1; why < handshakeResults; why++ {
		all[Handshake{Side: side, Result: why}] += c.failed[side][why].Load()
	}
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}
