package session

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// The versions of the PROXY protocol.
const (
	ProxyV1 = wire.ProxyV1
	ProxyV2 = wire.ProxyV2
)

// ProxySettings say from which addresses clients are other proxies, which name the real client in a PROXY header. The
// zero value trusts nobody. Its fields are read-only while it is in use.
type ProxySettings struct {
	Versions wire.ProxyVersions // that may come; 0 = no header is expected from anybody
	Trusted  []netip.Prefix     // whose connections begin with a header; from others, a header is part of what they send
	Timeout  time.Duration      // from accept until the whole header is there
}

// Equal reports whether two settings mean the same.
func (p *ProxySettings) Equal(other *ProxySettings) bool {
	return p.Versions == other.Versions && p.Timeout == other.Timeout && slices.Equal(p.Trusted, other.Trusted)
}

// Validate returns what is wrong with the settings of a listener. tcp says that its clients come by TCP.
func (p *ProxySettings) Validate(tcp bool) error {
	switch {
	case p.Versions == 0:
		return nil
	case !tcp:
		return errors.New("a PROXY header is expected from clients of UDP")
	case p.Versions > ProxyV1|ProxyV2:
		return errors.New("an undefined version of the PROXY protocol")
	case p.Timeout <= 0:
		return errors.New("no time for a PROXY header")
	}
	return nil
}

// Trusts reports whether connections from an address must begin with a header.
func (p *ProxySettings) Trusts(a netip.Addr) bool {
	a = a.WithZone("") // no prefix contains an address with a zone
	for _, prefix := range p.Trusted {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// ExpectProxy returns what opens the preface that reads PROXY headers, on so many loops.
func ExpectProxy(p ProxySettings, loops int) Opener {
	return &proxyOpener{ProxySettings: p, prefaces: make([]proxyPreface, loops)}
}

// A proxyOpener has one preface for each loop, which all sessions of the loop share: the header is peeked at in the
// socket, so that a session which waits for its header has nothing but its descriptor and its timer.
type proxyOpener struct {
	ProxySettings
	prefaces []proxyPreface // each is used onLoop only
}

// Open implements Opener.
func (o *proxyOpener) Open(l *Loop, s *Session) Preface {
	if !o.Trusts(s.peer.Addr()) {
		return nil
	}
	p := &o.prefaces[l.Index]
	p.loop, p.settings = l, &o.ProxySettings
	return p
}

// A proxyPreface reads the PROXY header that a session's client begins with.
type proxyPreface struct {
	loop     *Loop
	settings *ProxySettings
}

// Phase implements Preface.
func (p *proxyPreface) Phase() string { return "proxy_header" }

// Cut implements Preface: nothing was sent, and so nothing is cut.
func (p *proxyPreface) Cut(*Session) bool { return true }

// Release implements Preface.
func (p *proxyPreface) Release(*Session) {}

// Step implements Preface.
func (p *proxyPreface) Step(s *Session, why Cause) Step {
	l := p.loop
	if e, broken := s.Broken(); broken {
		s.noteUnread()
		return Lost(s, e)
	}
	peeked := l.Scratch[:wire.MaxProxyHeader+1] // with the last byte there is more than a header
	n, e := sock.Peek(int(s.client.fd), peeked)
	switch {
	case e == sock.Again:
		s.client.readable = false
		return p.wait(s, why, false)
	case e != 0:
		return Lost(s, e)
	case n == 0: // it has sent nothing at all
		return End(tally.ClientClosed, true)
	}
	h, result := wire.ParseProxy(peeked[:n], p.settings.Versions)
	switch {
	case result == wire.ProxyMalformed:
		s.unread = true
		return Refuse(tally.ProxyHeader)
	case result == wire.ProxyPart:
		s.unread = true
		return p.wait(s, why, s.client.peerDone)
	}
	if n == h.Size && !s.client.peerDone && !s.client.urgent {
		s.client.readable = false // what comes after the peek is another event
	}
	s.unread = false
	s.active = l.Now
	if h.Client.IsValid() {
		l.name(s, &h)
	}
	return PassOn(Pass{Client: h.Client, Skip: h.Size})
}

// wait waits for more of the header, unless it is too late, or the client has sent its last byte.
func (p *proxyPreface) wait(s *Session, why Cause, last bool) Step {
	switch {
	case why == Expired:
		s.cause = sock.TimedOut
		return Refuse(tally.ProxyHeader)
	case last:
		return Refuse(tally.ProxyHeader)
	case why == Begun:
		return More(s.accepted + p.settings.Timeout)
	}
	return More(0)
}

// name notes what a header says, whose bytes are valid for this call only.
func (l *Loop) name(s *Session, h *wire.ProxyHeader) {
	x := l.more(s)
	if !x.via.IsValid() {
		x.via = s.peer
	}
	x.local, x.tlvs = h.Local, nil
	if len(h.TLVs) > 0 {
		x.tlvs = append(x.tlvs, h.TLVs...)
	}
}

// sendProxy makes a PROXY header the first thing that the backend gets. It has the real client, and the address that
// the client has connected to: that of this listener, or the one that a header from another proxy has named.
func (l *Loop) sendProxy(s *Session, version int) {
	v := ProxyV1
	if version == 2 {
		v = ProxyV2
	}
	header := l.Scratch[:0]
	local, tlvs, known := s.cameTo()
	if c := s.clientTLS(); c != nil {
		s.extra.about = aboutTLS(c)
	}
	if x := s.extra; x != nil && x.about != nil {
		tlvs = wire.AppendProxyTLVs(nil, x.about, tlvs)
	}
	if known {
		header = wire.AppendProxy(header, v, s.peer, local, tlvs)
	} else {
		header = wire.AppendProxyLocal(header, v) // the kernel has forgotten the connection, and so will we
	}
	if tlsOf(s.pool) != nil { // it goes before the handshake, and the rest of the prefill behind it
		l.more(s).header = slices.Clone(header)
		return
	}
	l.prefillFirst(s, header)
}

// cameTo is the address that the client has connected to, and what else a PROXY header has said.
func (s *Session) cameTo() (local netip.AddrPort, tlvs []byte, known bool) {
	if x := s.extra; x != nil && x.via.IsValid() {
		return x.local, x.tlvs, true
	}
	if s.byUnix() { // there are no addresses
		return local, nil, false
	}
	local, err := sock.LocalAddr(int(s.client.fd))
	return local, nil, err == nil
}

// aboutTLS is what a backend is told about TLS with the client.
func aboutTLS(c *tlsconn.Conn) *wire.ProxyTLS {
	state := c.State()
	said := &wire.ProxyTLS{
		ServerName: state.ServerName, Protocol: state.NegotiatedProtocol,
		Version: strings.Replace(tls.VersionName(state.Version), "TLS 1", "TLSv1", 1),
		Cipher:  tls.CipherSuiteName(state.CipherSuite), Resumed: state.DidResume,
	}
	if len(state.PeerCertificates) > 0 { // a client that shows one that is not valid gets no further than the handshake
		said.Certificate, said.CommonName = true, state.PeerCertificates[0].Subject.CommonName
	}
	return said
}
