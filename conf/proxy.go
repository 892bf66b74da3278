package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// prefixNeeds says what an entry of a list of prefixes must be.
const prefixNeeds = `needs an address or a prefix, such as "10.0.0.7", "10.0.0.0/8" or "2001:db8::/32"`

// validateProxyProtocol checks the table at path, and fills ProxyProtocol.Prefixes.
func validateProxyProtocol(r *report, path string, p *ProxyProtocol) {
	p.Prefixes = validPrefixes(r, join(path, "trusted"), p.Trusted, func(int, netip.Prefix) {})
	// A mistake in trusted is reported already, and so is one in accept, which has been replaced by "off".
	if p.Accept != "off" && len(p.Trusted) == 0 && !r.seen[join(path, "trusted")] {
		e := Error{Message: "accept is " + quote(p.Accept) + ", and nobody is trusted to send the header",
			Allowed: `needs the addresses of the proxies in front, such as ["10.0.0.0/8"]`}
		r.add(join(path, "trusted"), e)
	}
}

// readPrefix reads an address or a prefix. An IPv4-mapped one is returned as IPv4. The error has neither place nor
// Found.
func readPrefix(text string) (netip.Prefix, *Error) {
	prefix, isPrefix := netip.Prefix{}, strings.IndexByte(text, '/') >= 0
	if isPrefix {
		var err error
		prefix, err = netip.ParsePrefix(text)
		isPrefix = err == nil
	}
	if !isPrefix {
		addr, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			return prefix, &Error{Allowed: prefixNeeds}
		case addr.Zone() != "":
			return prefix, &Error{Message: "a prefix has no zone", Allowed: prefixNeeds,
				Nearest: strings.Split(text, "%")[0]}
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if prefix != prefix.Masked() {
		// It may be the address that is meant, or the prefix. To trust the whole prefix would be the greater mistake.
		return prefix, &Error{Message: fmt.Sprintf("it has bits behind the first %d", prefix.Bits()),
			Allowed: fmt.Sprintf("needs %q or %q", prefix.Masked(), prefix.Addr())}
	}
	if mapped := 128 - 32; prefix.Addr().Is4In6() && prefix.Bits() >= mapped {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mapped)
	}
	return prefix, nil
}

// checkSendProxy reports pools with send_proxy whose listeners cannot send that header.
func checkSendProxy(r *report, c *Config) {
	for _, l := range c.Listeners {
		for _, name := range l.Pools() {
			i := slices.IndexFunc(c.Pools, func(p Pool) bool { return p.Name == name })
			if i >= 0 && c.Pools[i].SendProxy != "" {
				checkSendProxyOf(r, &l, &c.Pools[i])
			}
		}
	}
}

func checkSendProxyOf(r *report, l *Listener, p *Pool) {
	e := Error{Found: quote(p.SendProxy), Allowed: `needs "", or another pool`}
	switch path := Path("listener", l.Name); {
	case l.Cache != nil || l.Profile == "dns":
		e.Message = fmt.Sprintf("questions of %s are asked on behalf of many clients, and a header names one", path)
	case l.Protocol == "udp" && p.SendProxy == "v1":
		e.Message = fmt.Sprintf("%s speaks udp, for which version 1 has no header", path)
		e.Allowed = `needs "v2" or "", or another pool`
	default:
		return
	}
	r.add(Path("pool", p.Name, "send_proxy"), e)
}
