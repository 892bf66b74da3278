package l4

import (
	"errors"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
)

// A TLSServer is what a listener terminates TLS with. It may be used by one listener at a time, and takes other files
// while it is in use (Update). Its methods may be called from any goroutine.
type TLSServer = tlsconn.Server

// TLSServerSettings are the settings of a TLSServer that are not read from files.
type TLSServerSettings = tlsconn.ServerSettings

// TLSMaterial is what a TLSServer is made of besides its settings, as the bytes of files.
type TLSMaterial = tlsconn.Material

// A TLSKeyPair is a certificate with its key, as the bytes of files.
type TLSKeyPair = tlsconn.KeyPair

// TLSCertificateInfo describes a certificate of a TLSServer.
type TLSCertificateInfo = tlsconn.CertificateInfo

// A TLSClient is what connections to a pool's backends are encrypted with; it is a value for pool.Options.Secure. It
// takes other files while it is in use (Update). Its methods may be called from any goroutine.
type TLSClient = tlsconn.Client

// TLSClientSettings are the settings of a TLSClient that are not read from files.
type TLSClientSettings = tlsconn.ClientSettings

// TLSClientMaterial is what a TLSClient is made of besides its settings.
type TLSClientMaterial = tlsconn.ClientMaterial

// TLSClientAuth says whether the clients of a listener show a certificate.
type TLSClientAuth = tlsconn.ClientAuth

// A KernelTLS is what the kernel can do for TLS, see DetectKernelTLS.
type KernelTLS = sock.KernelTLS

// DetectKernelTLS says which cipher suites of TLS 1.3 the kernel can encrypt with. It finds that out once, with a TCP
// connection of this process to itself. It may be called from any goroutine.
func DetectKernelTLS() *KernelTLS { return sock.DetectKernelTLS() }

// The values of TLSClientAuth.
const (
	TLSClientAuthNone     = tlsconn.None     // clients are not asked for a certificate
	TLSClientAuthOptional = tlsconn.Optional // a client may have none, but one that is not valid ends the handshake
	TLSClientAuthRequired = tlsconn.Required // a client without a valid certificate is refused
)

// A TLSFault says what is wrong with a file of a TLSServer or TLSClient.
type TLSFault = tlsconn.Fault

// A TLSPart is one of the files that a TLSServer or TLSClient is made of.
type TLSPart = tlsconn.Part

// The parts.
const (
	TLSCertificateFile = tlsconn.CertificateFile // with the certificates of authorities in between
	TLSKeyFile         = tlsconn.KeyFile         // the certificate's key
	TLSOCSPFile        = tlsconn.OCSPFile        // an OCSP answer for the certificate
	TLSAuthorityFile   = tlsconn.AuthorityFile   // of the peers' certificates
	TLSRevocationFile  = tlsconn.RevocationFile  // revoked clients' certificates
	TLSTicketKeyFile   = tlsconn.TicketKeyFile   // keys for session tickets
)

// TLSTicketKeyBytes is the size of a key of TLSServer.ShareTicketKeys.
const TLSTicketKeyBytes = tlsconn.TicketKeyBytes

// A TLSHandshake is a kind of TLS handshakes that are counted together.
type TLSHandshake = tally.Handshake

// A TLSSecured is a kind of connections with TLS that are counted together, behind their handshakes.
type TLSSecured = tally.Secured

// A TLSHandshakeResult is how a TLS handshake has ended. The set is closed.
type TLSHandshakeResult = tally.HandshakeResult

// TLSHandshakeOK is the result of a handshake that has succeeded.
const TLSHandshakeOK = tally.HandshakeOK

// NewTLSServer makes a TLSServer. See TLSFaults for what is wrong with its files.
func NewTLSServer(settings TLSServerSettings, m TLSMaterial) (*TLSServer, error) {
	return tlsconn.NewServer(settings, m)
}

// NewTLSClient makes a TLSClient. See TLSFaults for what is wrong with its files.
func NewTLSClient(settings TLSClientSettings, m TLSClientMaterial) (*TLSClient, error) {
	return tlsconn.NewClient(settings, m)
}

// TLSFaults returns the faults of files in an error of NewTLSServer, NewTLSClient or Update; nil if it is another error.
func TLSFaults(err error) []*TLSFault {
	all, _ := errors.AsType[tlsconn.Faults](err)
	return all
}
