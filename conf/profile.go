package conf

import (
	"fmt"
	"slices"
	"time"
)

// A profile is the defaults that the users of a protocol expect for a listener. A key that the file has wins.
type profile struct {
	halfClose Duration // 0: as without a profile
	user      Duration
	keepalive Keepalive
}

// database are the defaults for listeners whose clients are databases' clients. They keep a session for days, and wait
// for an answer for hours, so silence says nothing. A client that has vanished may hold locks, and one of the server's
// few connections, so it is found within a minute. None of them closes its half and goes on reading for long.
var database = profile{
	halfClose: Duration(10 * time.Second),
	user:      Duration(time.Minute),
	keepalive: Keepalive{Idle: Duration(30 * time.Second), Interval: Duration(10 * time.Second), Count: 3},
}

// applyProfile sets the keys of a listener that the file leaves out to what its profile says.
func applyProfile(r *report, path string, l *Listener) {
	if l.Profile == "" || !l.speaks("tcp") || r.seen[join(path, "profile")] {
		return
	}
	from := "profile " + quote(l.Profile)
	preset(r, join(path, "refuse_with"), from, &l.RefuseWith, "protocol")
	if l.Profile == "dns" {
		return
	}
	preset(r, join(path, "half_close_timeout"), from, &l.HalfCloseTimeout, database.halfClose)
	preset(r, join(path, "user_timeout"), from, &l.UserTimeout, database.user)
	keepalive := join(path, "keepalive")
	preset(r, join(keepalive, "idle"), from, &l.Keepalive.Idle, database.keepalive.Idle)
	preset(r, join(keepalive, "interval"), from, &l.Keepalive.Interval, database.keepalive.Interval)
	preset(r, join(keepalive, "count"), from, &l.Keepalive.Count, database.keepalive.Count)
}

// preset sets a key that the file leaves out, and notes from where its value is.
func preset[T any](r *report, path, from string, key *T, value T) {
	if r.absent[path] {
		*key = value
		r.origin[path] = from
	}
}

// validateProfile reports a profile that does not fit the listener's protocol, and a refusal without one.
func validateProfile(r *report, path string, l *Listener) {
	if (l.Profile == "postgres" || l.Profile == "redis") && l.speaks("udp") {
		r.add(join(path, "profile"), Error{Found: quote(l.Profile), Message: "protocol is " + quote(l.Protocol),
			Allowed: `needs protocol = "tcp", or another profile`})
	}
	if l.Protocol == "tcp+udp" && l.Profile == "" && !r.seen[join(path, "profile")] {
		r.add(join(path, "protocol"), Error{Found: quote(l.Protocol), Message: "it is for name services",
			Allowed: `needs profile = "dns" beside it, or a listener for each protocol`})
	}
	if l.RefuseWith == "protocol" {
		validateLanguage(r, join(path, "refuse_with"), l, "beside it")
	}
}

// validateLanguage reports the key at path if its value, "protocol", needs to know what the listener's clients
// understand. where says where the key profile stands, as seen from there.
func validateLanguage(r *report, path string, l *Listener, where string) {
	if l.Profile == "" && !l.BeginsWithTLS() && !r.seen[Path("listener", l.Name, "profile")] {
		r.add(path, Error{Found: `"protocol"`, Message: `profile is "", so it is not known what clients understand`,
			Allowed: `needs profile = "postgres", "redis" or "dns" ` + where + `, or clients that begin with TLS: routes, or ` +
				`a table tls without starttls`})
	}
}

// BeginsWithTLS reports whether the first that clients send is a ClientHello, as far as the configuration says.
func (l *Listener) BeginsWithTLS() bool {
	return len(l.Routes) > 0 && l.TLS == nil || l.TLS != nil && l.TLS.StartTLS == ""
}

// warnOfPlainCheck reports a pool whose clients speak the protocol of a profile, and whose check leaves out its type.
// The profile does not set it: a check of that type may need what only the file can say, such as a user.
func warnOfPlainCheck(r *report, path string, p *Pool, c *Config) {
	health := join(path, "health")
	if p.Health == nil || p.Health.Type != "tcp" || len(p.Health.Steps) > 0 || c.given[join(health, "type")] {
		return
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if l.Profile == "" || !slices.Contains(l.Pools(), p.Name) {
			continue
		}
		r.add(join(health, "type"), Error{Message: fmt.Sprintf(
			"missing, so the check only makes a connection; %s has the profile %s, and a check of that type sees whether a backend serves its clients",
			Path("listener", l.Name), quote(l.Profile))})
		return
	}
}
