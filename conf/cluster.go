package conf

import (
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

const endpointNeeds = `needs a URL with a host and a port, such as "https://10.0.0.1:2379"`

// validatePatroni reports mistakes in discovery of type patroni, at path.
func validatePatroni(r *report, path string, d *Discovery) {
	secure := validateEndpoints(r, join(path, "endpoints"), d.Endpoints)
	if !r.seen[join(path, "scope")] && !validKeyPath(d.Scope, false) {
		r.add(join(path, "scope"), Error{Found: quote(d.Scope), Allowed: "needs the name of the cluster, as scope in " +
			"Patroni's configuration; of a Citus cluster with its group, such as \"main/0\""})
	}
	if !r.seen[join(path, "namespace")] && !validKeyPath(d.Namespace, true) {
		r.add(join(path, "namespace"), Error{Found: quote(d.Namespace), Allowed: "needs the namespace as in Patroni's " +
			"configuration, such as \"/service/\""})
	}
	validateClusterLogin(r, path, d)
	// Endpoints with a mistake do not decide.
	if !r.seen[join(path, "endpoints")] && len(d.Endpoints) > 0 {
		validateClusterTLS(r, path, d, secure, `needs endpoints that begin with "https://"`)
	}
}

// validKeyPath reports whether a text can be a part of a path of keys in etcd. bounded says that it may begin and end
// with a slash.
func validKeyPath(text string, bounded bool) bool {
	if bounded {
		text = strings.TrimSuffix(strings.TrimPrefix(text, "/"), "/")
	}
	const maxBytes = 255
	notPrinted := func(c rune) bool { return c <= ' ' || c > '~' }
	return text != "" && len(text) <= maxBytes && !strings.ContainsFunc(text, notPrinted) &&
		path.Clean("/"+text) == "/"+text
}

// validateEndpoints reports mistakes in the list of URLs at path, and returns whether they are of https.
func validateEndpoints(r *report, path string, endpoints []string) (secure bool) {
	first := map[string]int{}
	for i, text := range endpoints {
		at := element(path, i)
		u, e := splitEndpoint(text)
		if e != nil {
			e.Found = quote(text)
			if u != nil && u.User != nil {
				e.Found = quote(u.Redacted())
			}
			r.add(at, *e)
			r.seen[path] = true
			continue
		}
		if i == 0 {
			secure = u.Scheme == "https"
		}
		other, twice := first[u.Host]
		switch {
		case twice:
			r.add(at, Error{Found: quote(text), Message: element(path, other) + " is the same"})
			r.seen[path] = true
		case secure != (u.Scheme == "https"):
			r.add(at, Error{Found: quote(text), Message: "another endpoint is " + quote(endpoints[0]),
				Allowed: `needs endpoints that all begin with "https://", or all with "http://"`})
			r.seen[path] = true
		}
		first[u.Host] = i
	}
	return secure
}

// splitEndpoint parses an endpoint that is a URL. The error has neither place nor Found.
func splitEndpoint(text string) (*url.URL, *Error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return nil, &Error{Allowed: endpointNeeds}
	}
	port, portErr := strconv.ParseUint(u.Port(), 10, 16)
	host := u.Hostname()
	ip, ipErr := netip.ParseAddr(host)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return u, &Error{Message: "the scheme is " + quote(u.Scheme), Allowed: endpointNeeds}
	case u.User != nil:
		return u, &Error{Message: "a user does not belong here", Allowed: "needs user and password_file beside endpoints"}
	case u.Port() == "":
		return u, &Error{Message: "the port is missing", Allowed: endpointNeeds}
	case portErr != nil || port == 0:
		return u, &Error{Message: "the port is " + quote(u.Port()), Allowed: portNeeds}
	case host == "":
		return u, &Error{Message: "the host is missing", Allowed: endpointNeeds}
	case ipErr != nil && !validHost(host):
		return u, &Error{Message: quote(host) + " is neither an IP address nor a host name", Allowed: endpointNeeds}
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return u, &Error{Message: "only host and port belong behind the scheme", Allowed: endpointNeeds}
	}
	if ipErr == nil {
		if wrong := checkIP(ip, true); wrong != "" {
			return u, &Error{Message: wrong}
		}
	}
	return u, nil
}

// validateClusterLogin reports a user without a password in the discovery at path, or the reverse.
func validateClusterLogin(r *report, path string, d *Discovery) {
	switch {
	case d.User != "" && d.PasswordFile == "" && !r.seen[join(path, "password_file")]:
		r.add(join(path, "user"), Error{Found: quote(d.User), Message: "its password_file is missing",
			Allowed: "needs both user and password_file, or none"})
	case d.PasswordFile != "" && d.User == "" && !r.seen[join(path, "user")]:
		r.add(join(path, "password_file"), Error{Found: quote(d.PasswordFile), Message: "its user is missing",
			Allowed: "needs both user and password_file, or none"})
	}
	if hasNUL(d.User) {
		r.add(join(path, "user"), Error{Found: quote(d.User), Allowed: noNUL})
	}
}

// validateClusterTLS reports mistakes in the keys of TLS of the discovery at path. secure says that it uses TLS, and
// needs what would make it.
func validateClusterTLS(r *report, path string, d *Discovery, secure bool, needs string) {
	keys := clientTLS{verify: d.Verify, serverName: d.ServerName, ca: d.CA, cert: d.Cert, key: d.Key}
	if !secure {
		keys.unused(r, path, "the discovery", needs)
	}
	keys.validate(r, path)
}

// UsesTLS reports whether the discovery connects with TLS.
func (d *Discovery) UsesTLS() bool {
	switch d.Type {
	case "patroni", "etcd":
		return len(d.Endpoints) > 0 && strings.HasPrefix(d.Endpoints[0], "https://")
	case "sentinel":
		return d.TLS
	}
	return false
}

// GivesRoles reports whether the discovery says which backend is the primary. It returns false for nil.
func (d *Discovery) GivesRoles() bool {
	return d != nil && (d.Type == "patroni" || d.Type == "sentinel")
}

// warnOfCluster reports a pool, at path, whose discovery gives roles that its checks do not look at, and what is
// insecure in a discovery that logs in somewhere.
func warnOfCluster(r *report, path string, p *Pool) {
	d := p.Discovery
	if d == nil {
		return
	}
	switch {
	case !d.GivesRoles():
	case p.Health == nil:
		r.add(join(path, "discovery"), Error{Found: quote(d.Type), Message: "the pool has no table health, whose role says " +
			"which members serve: clients reach the primary and the replicas alike, and writes fail on a replica"})
	case !p.Health.wantsRole():
		r.add(join(join(path, "health"), "role"), Error{Found: quote("any"), Message: "clients reach the primary and the " +
			"replicas alike, and writes fail on a replica: needs a check with role \"primary\" or \"replica\""})
	}
	path = join(path, "discovery")
	if d.UsesTLS() && !d.Verify {
		r.add(join(path, "verify"), Error{Found: "false", Message: "the discovery accepts any certificate: whoever " +
			"answers in place of the endpoints decides where clients go"})
	}
	if d.User != "" && !d.UsesTLS() {
		r.add(join(path, "user"), Error{Found: quote(d.User), Message: "the password is sent without TLS: everybody on " +
			"the way can read it"})
	}
}

// wantsRole reports whether a check looks for the primary or for replicas.
func (h *Health) wantsRole() bool {
	wants := func(c *Check) bool { return c.Role == "primary" || c.Role == "replica" }
	for i := range h.Checks {
		if wants(&h.Checks[i]) {
			return true
		}
	}
	return wants(&h.Check)
}
