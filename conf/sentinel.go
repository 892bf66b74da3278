package conf

import (
	"fmt"
	"strings"
)

// validateSentinel reports mistakes in discovery of type sentinel, at path.
func validateSentinel(r *report, path string, d *Discovery) {
	validateSentinels(r, join(path, "endpoints"), d.Endpoints)
	if !r.seen[join(path, "master")] && !validMasterName(d.Master) {
		r.add(join(path, "master"), Error{Found: quote(d.Master),
			Allowed: `needs the name after "sentinel monitor" in the Sentinels' configuration: letters, digits, ` +
				`'.', '-' or '_'`})
	}
	// A password alone is of the default user, as requirepass sets it.
	if d.User != "" && d.PasswordFile == "" && !r.seen[join(path, "password_file")] {
		r.add(join(path, "user"), Error{Found: quote(d.User), Message: "its password_file is missing",
			Allowed: "needs both user and password_file, or only password_file, or none"})
	}
	if hasNUL(d.User) {
		r.add(join(path, "user"), Error{Found: quote(d.User), Allowed: noNUL})
	}
	if !r.seen[join(path, "tls")] {
		validateClusterTLS(r, path, d, d.TLS, "needs tls = true")
	}
}

const sentinelNeeds = `needs "HOST:PORT" or "[IPV6]:PORT" of a Sentinel, such as "10.0.0.1:26379"`

// validateSentinels reports mistakes in the list of Sentinels at path. One that is listed twice would count twice.
func validateSentinels(r *report, path string, endpoints []string) {
	first := map[string]int{}
	for i, text := range endpoints {
		at := element(path, i)
		end, e := splitSentinel(text)
		if e != nil {
			e.Found = quote(text)
			r.add(at, *e)
			continue
		}
		if other, twice := first[end.String()]; twice {
			r.add(at, Error{Found: quote(text), Message: element(path, other) + " is the same"})
			continue
		}
		first[end.String()] = i
	}
}

// splitSentinel parses the address of a Sentinel. The error has neither place nor Found.
func splitSentinel(text string) (address, *Error) {
	if strings.Contains(text, "://") {
		return address{}, &Error{Message: "this is a URL", Allowed: sentinelNeeds + ", and tls = true for TLS"}
	}
	end, e := splitAddress(text, sentinelNeeds)
	switch {
	case e != nil:
		return address{}, e
	case end.path != "":
		return address{}, &Error{Message: "a Sentinel has no Unix socket", Allowed: sentinelNeeds}
	case end.host == "":
		return address{}, &Error{Message: "the host is missing", Allowed: sentinelNeeds}
	case end.ip.IsValid():
		if wrong := checkIP(end.ip, true); wrong != "" {
			return address{}, &Error{Message: wrong}
		}
	}
	return end, nil
}

// validMasterName reports whether a text is what Redis allows as the name of a master (sentinel.conf of Redis).
func validMasterName(name string) bool {
	other := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_", c)
	}
	return name != "" && !strings.ContainsFunc(name, other)
}

// warnOfSentinels reports a pool, at path, with so few Sentinels that the loss of one leaves no majority.
func warnOfSentinels(r *report, path string, p *Pool) {
	d := p.Discovery
	const enough = 3
	if d == nil || d.Type != "sentinel" || len(d.Endpoints) >= enough {
		return
	}
	r.add(join(join(path, "discovery"), "endpoints"), Error{Found: fmt.Sprintf("%d of them", len(d.Endpoints)),
		Message: fmt.Sprintf("more than half must agree: with fewer than %d, nobody names the master while one is down",
			enough)})
}
