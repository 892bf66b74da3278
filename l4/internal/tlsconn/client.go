package tlsconn

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// maxTargets bounds the pairs of a backend and a name whose sessions are remembered: clients may choose the name.
const maxTargets = 4096

// ClientSettings are the settings of a Client that are not read from files. The zero value is usable: it encrypts, and
// accepts any certificate.
type ClientSettings struct {
	Verify bool // refuse backends whose certificate is not valid for their name

	// ServerName is the name that backends are asked for and must have a certificate for. "" is each backend's own name
	// (ClientMaterial.Names), or DefaultName.
	ServerName string
	// DefaultName stands in for the name of a backend that has none in ClientMaterial.Names. "" is its IP address.
	DefaultName string
	// FromClient asks backends for the name that the client has asked for; ServerName is for clients without one.
	FromClient bool

	StartTLS bool // ask for TLS in Postgres' way (SSLRequest) first

	KernelTLS bool // what TLS 1.3 carries is encrypted by the kernel where that can
}

// ClientMaterial is what a Client is made of besides its settings.
type ClientMaterial struct {
	CA          []byte   // PEM, of the authorities of backends' certificates; nil: those of the system
	Certificate *KeyPair // that backends are shown if they ask for one; nil: none

	// Names are the host names of backends, by their addresses; port 0 is any. Backends may lack one.
	Names map[netip.AddrPort]string
}

func (m *ClientMaterial) equal(other *ClientMaterial) bool {
	a, b := m.Certificate, other.Certificate
	return bytes.Equal(m.CA, other.CA) && maps.Equal(m.Names, other.Names) && (a == nil) == (b == nil) &&
		(a == nil || bytes.Equal(a.CertPEM, b.CertPEM) && bytes.Equal(a.KeyPEM, b.KeyPEM))
}

// A Client is what connections to the backends of one pool are encrypted with. Its methods may be called from any
// goroutine; its zero value is of no use, see NewClient.
type Client struct {
	settings ClientSettings // set once, then read-only

	current atomic.Pointer[clientGeneration] // replaced by Update

	mu       sync.Mutex
	material ClientMaterial // guarded by mu
}

// A clientGeneration is a Client's state between two updates. What it remembers of sessions is never used with other
// material: a session resumes with the client certificate and the verdict on the backend's one that it began with.
type clientGeneration struct {
	// set once, then read-only
	base     *tls.Config
	names    map[netip.AddrPort]string
	shown    *certificate // nil: none
	warnings Faults

	configs sync.Map // of target and *tls.Config
	known   atomic.Int64
}

// A target is a backend, and the name that it is asked for.
type target struct {
	backend netip.AddrPort
	name    string
}

// NewClient makes a Client. The error is of type Faults if something is wrong with the material.
func NewClient(settings ClientSettings, m ClientMaterial) (*Client, error) {
	c := &Client{settings: settings}
	if err := c.Update(m); err != nil {
		return nil, err
	}
	return c, nil
}

// Update replaces the material, for handshakes that begin from now on. If something is wrong with it, nothing changes,
// and the error is of type Faults. The Client keeps the slices and the map of m, which must not be changed afterwards.
func (c *Client) Update(m ClientMaterial) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.Load() != nil && c.material.equal(&m) {
		return nil
	}
	next, err := c.build(&m)
	if err != nil {
		return err
	}
	c.material = m
	c.current.Store(next)
	return nil
}

// Check returns the error that Update would return for m, and the warnings that the client would have with it. It
// changes nothing.
func (c *Client) Check(m ClientMaterial) (warnings Faults, err error) {
	next, err := c.build(&m)
	if err != nil {
		return nil, err
	}
	return next.warnings, nil
}

func (c *Client) build(m *ClientMaterial) (*clientGeneration, error) {
	now := time.Now()
	var found faultList
	base := &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: !c.settings.Verify, DynamicRecordSizingDisabled: true,
	}
	if m.CA != nil {
		certs, err := parseCertificates(m.CA)
		if err != nil {
			found.wrong(AuthorityFile, 0, err)
		}
		base.RootCAs = x509.NewCertPool()
		for _, ca := range certs {
			base.RootCAs.AddCert(ca)
			if err := validAt(ca, now); err != nil {
				found.warn(AuthorityFile, 0, "%w", err)
			}
		}
	}
	g := &clientGeneration{base: base, names: m.Names}
	if m.Certificate != nil {
		if g.shown = readPair(m.Certificate, 0, &found, now); g.shown != nil {
			base.Certificates = []tls.Certificate{g.shown.plain}
		}
	}
	if len(found.errors) > 0 {
		return nil, found.errors
	}
	g.warnings = found.warnings
	return g, nil
}

// Config returns the configuration for one handshake with a backend that begins now. It is shared, and must not be
// changed. name is the name that the client has asked for, or ""; it counts only with FromClient.
func (c *Client) Config(name string, backend netip.AddrPort) *tls.Config {
	g := c.current.Load()
	to := target{backend, c.nameFor(g, name, backend)}
	if known, ok := g.configs.Load(to); ok {
		return known.(*tls.Config)
	}
	config := g.base.Clone()
	config.ServerName = to.name
	config.ClientSessionCache = new(memory)
	if known, ok := g.configs.LoadOrStore(to, config); ok {
		return known.(*tls.Config)
	}
	if g.known.Add(1) > maxTargets {
		g.forgetOne(to)
	}
	return config
}

// nameFor returns the name that a backend is asked for; it may be an IP address, which is verified but not sent.
func (c *Client) nameFor(g *clientGeneration, name string, backend netip.AddrPort) string {
	switch {
	case c.settings.FromClient && name != "":
		return name
	case c.settings.ServerName != "":
		return c.settings.ServerName
	}
	own := g.names[backend]
	if own == "" { // backends that get the client's port are without one there
		own = g.names[netip.AddrPortFrom(backend.Addr(), 0)]
	}
	if own != "" {
		return own
	}
	if c.settings.DefaultName != "" {
		return c.settings.DefaultName
	}
	return backend.Addr().Unmap().WithZone("").String()
}

// forgetOne forgets any target but this one.
func (g *clientGeneration) forgetOne(but target) {
	g.configs.Range(func(key, _ any) bool {
		if key.(target) == but {
			return true
		}
		if _, was := g.configs.LoadAndDelete(key); was {
			g.known.Add(-1)
			return false
		}
		return true
	})
}

// Settings returns the settings. They must not be changed.
func (c *Client) Settings() *ClientSettings { return &c.settings }

// Warnings returns what is allowed in the material but probably not meant, as it was when the material came.
func (c *Client) Warnings() Faults { return c.current.Load().warnings }

// A memory remembers the last session with one target. It is a tls.ClientSessionCache whose keys have no meaning, since
// each target has its own.
type memory struct {
	last atomic.Pointer[tls.ClientSessionState]
}

// Get returns the session.
func (m *memory) Get(string) (*tls.ClientSessionState, bool) {
	s := m.last.Load()
	return s, s != nil
}

// Put remembers a session; nil forgets it.
func (m *memory) Put(_ string, s *tls.ClientSessionState) { m.last.Store(s) }

// Certificates describes the certificate that backends are shown, if there is one.
func (c *Client) Certificates() []CertificateInfo {
	g := c.current.Load()
	if g.shown == nil {
		return nil
	}
	return []CertificateInfo{g.shown.info()}
}

// Rename replaces ClientMaterial.Names, for handshakes that begin from now on.
func (c *Client) Rename(names map[netip.AddrPort]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if maps.Equal(c.material.Names, names) {
		return
	}
	c.material.Names = names
	g := c.current.Load()
	c.current.Store(&clientGeneration{base: g.base, names: names, shown: g.shown, warnings: g.warnings})
}
