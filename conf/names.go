package conf

import (
	"fmt"
	"slices"
)

// The names that a session can have, as values of hash_key and of the key of sticky.
const (
	nameSNI  = "sni"            // the server name in the client's ClientHello
	nameMQTT = "mqtt_client_id" // the client identifier in its CONNECT
)

func isName(key string) bool { return key == nameSNI || key == nameMQTT }

// NamedBy returns what names the sessions of the pool when their backends are chosen: "sni", "mqtt_client_id", or "" if
// no name counts.
func (p *Pool) NamedBy() string {
	switch {
	case isName(p.HashKey) && hashes(p.Algorithm):
		return p.HashKey
	case isName(p.Sticky.Key) && p.Sticky.TTL > 0:
		return p.Sticky.Key
	}
	return ""
}

// ReadsMQTT reports whether the listener reads the client identifier in what its MQTT clients send first: one of its
// pools goes by it.
func (c *Config) ReadsMQTT(l *Listener) bool {
	pools := l.Pools()
	return l.canReadMQTT() && slices.ContainsFunc(c.Pools, func(p Pool) bool {
		return p.NamedBy() == nameMQTT && slices.Contains(pools, p.Name)
	})
}

// canReadMQTT reports whether the listener's clients may speak MQTT, and not DNS.
func (l *Listener) canReadMQTT() bool { return l.Protocol == "tcp" && l.Profile != "dns" }

// validateNames reports two keys of the pool at path that ask for different names. A session has one.
func validateNames(r *report, path string, p *Pool) {
	hash, sticky := p.HashKey, p.Sticky.Key
	if isName(hash) && isName(sticky) && hash != sticky {
		r.add(join(join(path, "sticky"), "key"), Error{Found: quote(sticky), Message: "hash_key is " + quote(hash),
			Allowed: fmt.Sprintf(`needs %s, or "client_ip" in one of the two`, quote(hash))})
	}
}

// warnOfKeys reports a hash_key or a key of sticky that changes nothing, or that no session can have.
func warnOfKeys(r *report, path string, p *Pool, listeners []Listener) {
	hash, sticky := join(path, "hash_key"), join(join(path, "sticky"), "key")
	if p.HashKey != "client_ip" && !hashes(p.Algorithm) {
		r.add(hash, Error{Found: quote(p.HashKey),
			Message: fmt.Sprintf("algorithm %q does not hash: this key changes nothing", p.Algorithm)})
	} else {
		warnOfNameless(r, hash, p.HashKey, p, listeners)
	}
	if p.Sticky.Key != "client_ip" && p.Sticky.TTL == 0 {
		r.add(sticky, Error{Found: quote(p.Sticky.Key), Message: `ttl is "0s": this key changes nothing`})
	} else {
		warnOfNameless(r, sticky, p.Sticky.Key, p, listeners)
	}
}

// warnOfNameless reports listeners whose clients have no such name. The key that asks for it is at path.
func warnOfNameless(r *report, path, key string, p *Pool, listeners []Listener) {
	for i := range listeners {
		l := &listeners[i]
		if !slices.Contains(l.Pools(), p.Name) {
			continue
		}
		why := ""
		switch {
		case key == nameSNI && len(l.Routes) == 0 && l.TLS == nil:
			why = "has neither routes nor tls and reads no ClientHello"
		case key == nameMQTT && !l.canReadMQTT():
			why = "has clients that do not speak MQTT"
		case key == nameMQTT && len(l.Routes) > 0 && l.TLS == nil:
			why = "has routes, and what its clients send is encrypted"
		default:
			continue
		}
		r.add(path, Error{Found: quote(key), Message: fmt.Sprintf(
			"%s %s: its clients go by their IP address", Path("listener", l.Name), why)})
	}
}
