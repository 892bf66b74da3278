package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// A token is what a request must bring, as its hash: the comparison then takes the same time for every length. Its zero value is
// no token, and allows every request.
type token struct {
	set  bool
	hash [sha256.Size]byte
}

func newToken(text string) *token {
	return &token{set: text != "", hash: sha256.Sum256([]byte(text))}
}

func (t *token) isSet() bool { return t.set }

// allows tells whether a request brings the token, or needs none.
func (t *token) allows(r *http.Request) bool {
	if !t.set {
		return true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	hash := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// trusts tells whether a request comes from somebody who may change things: a token was asked for, or it came by a Unix socket,
// whose file mode says who may connect. Every user of the machine reaches a TCP address on loopback.
func (s *Server) trusts(r *http.Request) bool {
	_, isTCP := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return s.token.Load().isSet() || !isTCP
}

// checkOrigin refuses what a web page of somewhere else has a browser send.
func (s *Server) checkOrigin(r *http.Request) error {
	// The library lets GET pass, as it changes nothing. Here one is of no use to another page either, and may cost
	// something: a profile, a stream.
	likePost := *r
	likePost.Method = http.MethodPost
	if err := s.origins.Check(&likePost); err != nil {
		return newProblem(problemCrossOrigin, err.Error())
	}
	// A name that the page's owner points at 127.0.0.1 makes the page and this server one origin. An address cannot be
	// pointed anywhere. Beyond loopback there is a token, which such a page does not have.
	local, isTCP := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if isTCP && local.IP.IsLoopback() && !isLocalHost(r.Host) {
		return newProblem(problemWrongHost, "the Host of a request on loopback needs to be an IP address or localhost, and not "+clip(r.Host))
	}
	return nil
}

// isLocalHost tells whether a Host header, with or without a port, is an IP address or localhost. None at all is fine: a
// browser sends one, and a health check of HTTP/1.0 does not.
func isLocalHost(host string) bool {
	if host == "" {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return strings.EqualFold(host, "localhost")
}

// guardedByPlace tells whether only who is on this machine reaches an address.
func guardedByPlace(a net.Addr) bool {
	tcp, isTCP := a.(*net.TCPAddr)
	return !isTCP || tcp.IP.IsLoopback()
}
