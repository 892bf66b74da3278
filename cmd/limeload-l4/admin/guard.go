package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// A token is the hash of the token that requests need. Comparing hashes takes the same time for every length. The zero
// value is no token, and allows every request.
type token struct {
	set  bool
	hash [sha256.Size]byte
}

func newToken(text string) *token {
	return &token{set: text != "", hash: sha256.Sum256([]byte(text))}
}

func (t *token) isSet() bool { return t.set }

// allows reports whether a request has the token, or needs none.
func (t *token) allows(r *http.Request) bool {
	if !t.set {
		return true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	hash := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// trusts reports whether the sender of a request may change things: it has the token, or it uses a Unix socket, whose
// file mode says who may connect. A TCP address on loopback can be reached by every user of the machine.
func (s *Server) trusts(r *http.Request) bool {
	_, isTCP := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return s.token.Load().isSet() || !isTCP
}

// checkOrigin refuses requests that a browser sends for a page from elsewhere. A link from elsewhere may open the page.
func (s *Server) checkOrigin(r *http.Request, opensPage bool) error {
	// The library accepts GET, since it changes nothing. Here, another page has no use for a GET either, and it may be
	// expensive: a profile, a stream.
	likePost := *r
	likePost.Method = http.MethodPost
	if err := s.origins.Check(&likePost); err != nil && !opensPage {
		return newProblem(problemCrossOrigin, err.Error())
	}
	// A page whose owner points its name at 127.0.0.1 has the same origin as this server. Addresses cannot be pointed
	// elsewhere. Beyond loopback there is a token, which such a page does not have.
	local, isTCP := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if isTCP && local.IP.IsLoopback() && !isLocalHost(r.Host) {
		return newProblem(problemWrongHost,
			"the Host of a request on loopback needs to be an IP address or localhost, and not "+clip(r.Host))
	}
	// A browser reaches a Unix socket where ssh or a proxy forwards a port to it. Names without a dot are accepted there,
	// since programs have to write something into the URL, and only the user's own network can point them anywhere.
	if !isTCP && !s.token.Load().isSet() && strings.Contains(r.Host, ".") && !isLocalHost(r.Host) {
		return newProblem(problemWrongHost, "the Host of a request on a Unix socket without a token needs to be an "+
			"IP address, localhost or a name without a dot, and not "+clip(r.Host))
	}
	return nil
}

// isLocalHost reports whether a Host header, with or without a port, is an IP address or localhost. A missing one is
// accepted: browsers always send it, and a health check of HTTP/1.0 does not.
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

// guardedByPlace reports whether an address can only be reached from this machine.
func guardedByPlace(a net.Addr) bool {
	tcp, isTCP := a.(*net.TCPAddr)
	return !isTCP || tcp.IP.IsLoopback()
}
