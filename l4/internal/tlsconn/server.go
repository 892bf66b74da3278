package tlsconn

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ClientAuth says whether clients show a certificate.
type ClientAuth uint8

// The values of ClientAuth.
const (
	None     ClientAuth = iota // clients are not asked for a certificate
	Optional                   // a client may have none, but one that is not valid ends the handshake
	Required                   // a client without a valid certificate is refused
)

// ServerSettings are the settings of a Server that are not read from files. The zero value is usable: TLS 1.2 and 1.3,
// and a handshake without a time limit.
type ServerSettings struct {
	MinVersion, MaxVersion uint16 // such as tls.VersionTLS12; 0 is TLS 1.2 and the latest

	// StrictNames refuses clients that ask for a name no certificate is for, and those that ask for none. Otherwise they
	// get the first certificate.
	StrictNames bool

	ClientAuth ClientAuth
	ALPN       []string // offered to clients, the preferred one first; empty: the server does not use ALPN

	// StartTLS says that clients first ask for TLS in Postgres' way (SSLRequest). Those that do not ask are refused if
	// Required is set, and are served without TLS otherwise. Required has no meaning without StartTLS.
	StartTLS bool
	Required bool

	HandshakeTimeout time.Duration // for a whole handshake; 0 is no limit

	KernelTLS bool // what TLS 1.3 carries is encrypted by the kernel where that can
}

// Equal reports whether two settings mean the same.
func (s *ServerSettings) Equal(other *ServerSettings) bool {
	a, b := *s, *other
	a.ALPN, b.ALPN = nil, nil
	return slices.Equal(s.ALPN, other.ALPN) && equalScalars(a, b)
}

func equalScalars(a, b ServerSettings) bool {
	return a.MinVersion == b.MinVersion && a.MaxVersion == b.MaxVersion && a.StrictNames == b.StrictNames &&
		a.ClientAuth == b.ClientAuth && a.StartTLS == b.StartTLS && a.Required == b.Required &&
		a.HandshakeTimeout == b.HandshakeTimeout && a.KernelTLS == b.KernelTLS
}

// A KeyPair is a certificate with its key, as the bytes of files.
type KeyPair struct {
	Name    string // of the certificate's file, for CertificateInfo
	CertPEM []byte // the certificate first, and after it those of the authorities in between
	KeyPEM  []byte
	OCSP    []byte // DER of an answer about the certificate's revocation (RFC 6960); nil if there is none
}

// Material is what a Server is made of besides its settings, as the bytes of files.
type Material struct {
	Certificates []KeyPair // at least one; the first is for clients that no other one fits
	ClientCAs    []byte    // PEM; of the authorities of clients' certificates, unless ClientAuth is None
	ClientCRL    []byte    // PEM or DER, lists of revoked clients' certificates; nil: none are revoked
	TicketKeys   []byte    // see parseTicketKeys; nil: those of ShareTicketKeys or, without them, random ones
}

// sum identifies the material, of which revocation lists may be large.
func (m *Material) sum() [sha256.Size]byte {
	parts := [][]byte{m.ClientCAs, m.ClientCRL, m.TicketKeys}
	for _, c := range m.Certificates {
		parts = append(parts, []byte(c.Name), c.CertPEM, c.KeyPEM, c.OCSP)
	}
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%v %d\n", p == nil, len(p))
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// A Server is what one listener terminates TLS with. Its methods may be called from any goroutine; its zero value is of
// no use, see NewServer.
type Server struct {
	settings ServerSettings // set once, then read-only

	current atomic.Pointer[generation] // replaced by Update and by the rotation of ticket keys

	mu sync.Mutex // guards the fields below, and is held while current is replaced
	// sum is that of the material that current was made of.
	sum [sha256.Size]byte
	// shared are the ticket keys that are used without Material.TicketKeys.
	shared sharedKeys
	// random are the ticket keys that are used without either. They are replaced every 12 hours.
	random keyring
}

// A generation is a Server's state between two updates. It is immutable.
type generation struct {
	config *tls.Config
	certs  *certificates
	auth   *authorities // nil if clients show no certificates
	keys   []ticketKey  // from a file; nil for others

	// renewAt is when random ticket keys are to be replaced or forgotten; the zero time if there is none.
	renewAt time.Time
	faults  Faults // what is allowed, but probably not meant
}

// NewServer makes a Server. The error is of type Faults if something is wrong with the material.
func NewServer(settings ServerSettings, m Material) (*Server, error) {
	switch {
	case settings.MinVersion == 0:
		settings.MinVersion = tls.VersionTLS12
	case settings.MinVersion < tls.VersionTLS12:
		return nil, errors.New("tls: versions below 1.2 are not supported")
	}
	if settings.MaxVersion != 0 && settings.MaxVersion < settings.MinVersion {
		return nil, errors.New("tls: the maximum version is below the minimum version")
	}
	settings.ALPN = slices.Clone(settings.ALPN)
	s := &Server{settings: settings}
	if err := s.Update(m); err != nil {
		return nil, err
	}
	return s, nil
}

// Update replaces the material, for handshakes that begin from now on. If something is wrong with it, nothing changes,
// and the error is of type Faults. OCSP answers in m must not be changed afterwards.
func (s *Server) Update(m Material) error {
	sum := m.sum()
	s.mu.Lock()
	same := s.current.Load() != nil && s.sum == sum
	s.mu.Unlock()
	if same {
		return nil
	}
	next, err := s.build(&m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum = sum
	s.setKeys(next, time.Now())
	s.current.Store(next)
	return nil
}

// Check returns the error that Update would return for m, and the warnings that the server would have with it. It
// changes nothing.
func (s *Server) Check(m Material) (warnings Faults, err error) {
	next, err := s.build(&m)
	if err != nil {
		return nil, err
	}
	return next.faults, nil
}

// build makes the state for a material, without ticket keys.
func (s *Server) build(m *Material) (*generation, error) {
	now := time.Now()
	var found faultList
	g := &generation{certs: newCertificates(m.Certificates, &found, now)}
	if s.settings.ClientAuth != None {
		g.auth = newAuthorities(m.ClientCAs, m.ClientCRL, &found, now)
	}
	if m.TicketKeys != nil {
		var err error
		if g.keys, err = parseTicketKeys(m.TicketKeys); err != nil {
			found.wrong(TicketKeyFile, 0, err)
		}
	}
	if len(found.errors) > 0 {
		return nil, found.errors
	}
	g.faults = found.warnings
	g.config = s.configFor(g)
	return g, nil
}

// configFor returns the configuration for a generation, without ticket keys.
func (s *Server) configFor(g *generation) *tls.Config {
	c := &tls.Config{
		MinVersion: s.settings.MinVersion, MaxVersion: s.settings.MaxVersion, CipherSuites: cipherSuites,
		NextProtos: s.settings.ALPN, GetCertificate: g.certs.choose,
		// The first records would have the size of a TCP segment, which costs system calls and helps browsers only.
		DynamicRecordSizingDisabled: true,
	}
	if s.settings.StrictNames {
		c.GetCertificate = g.certs.chooseStrictly
	}
	if g.auth != nil {
		c.ClientCAs, c.ClientAuth = g.auth.roots, tls.VerifyClientCertIfGiven
		if s.settings.ClientAuth == Required {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	if s.settings.StrictNames || g.auth != nil && len(g.auth.revoked) > 0 {
		c.VerifyConnection = func(state tls.ConnectionState) error { return s.verify(g, &state) }
	}
	return c
}

// verify checks what crypto/tls does not check of a handshake that resumes a session: it chooses no certificate then,
// and does not know what has been revoked since.
func (s *Server) verify(g *generation, state *tls.ConnectionState) error {
	if s.settings.StrictNames && g.certs.table.find(strings.ToLower(state.ServerName)) == nil {
		return ErrUnknownName
	}
	if g.auth != nil {
		return g.auth.verify(state)
	}
	return nil
}

// ErrUnknownName is the error of a handshake that would resume a session under a name that no certificate is for. A new
// session fails with an error of crypto/tls.
var ErrUnknownName = errors.New("no certificate is for the name that the client asks for")

// cipherSuites are those of TLS 1.2. The ones left out of Go's defaults use CBC; those of TLS 1.3 are all good.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Config returns the configuration for one handshake that begins now. It is shared, and must not be changed. The call
// does not block, but for the microseconds in which the ticket keys are replaced, a few times a day.
func (s *Server) Config() *tls.Config {
	g := s.current.Load()
	if !g.renewAt.IsZero() && time.Now().After(g.renewAt) {
		g = s.renew()
	}
	return g.config
}

// Settings returns the settings. They must not be changed.
func (s *Server) Settings() *ServerSettings { return &s.settings }

// Serves reports whether clients that ask for this name are served; the name is empty for those that ask for none. It
// is false only with StrictNames, and if no certificate is for the name. It allocates nothing.
func (s *Server) Serves(name []byte) bool {
	return !s.settings.StrictNames || s.current.Load().certs.has(name)
}

// Certificates describes the certificates, in the order of the material.
func (s *Server) Certificates() []CertificateInfo { return s.current.Load().certs.infos() }

// Warnings returns what is allowed in the material but probably not meant, as it was when the material came.
func (s *Server) Warnings() Faults { return s.current.Load().faults }
