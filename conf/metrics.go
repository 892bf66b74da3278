package conf

import (
	"net/netip"
	"strings"
)

// Metrics has the address where /metrics, /ready and /live are alone, without the control API. Its zero value is off.
type Metrics struct {
	Address string `toml:"address" default:""` // "" is off; see Socket, Bind

	// Parse fills these from the text above.
	Socket string         // the path of a Unix socket; "" if Address is none
	Bind   netip.AddrPort // not valid unless Address is a host and a port
	// DualStack says that Bind is [::] and accepts IPv4 clients too, since the text is ":PORT".
	DualStack bool
}

// validateMetrics fills the fields of c.Metrics that its text stands for, and reports what is wrong with the text.
func validateMetrics(r *report, c *Config) {
	const path = "metrics.address"
	m := &c.Metrics
	if m.Address == "" {
		return
	}
	if socket, is := strings.CutPrefix(m.Address, unixPrefix); is {
		if e := checkSocketPath(m.Address, socket, forMetrics); e != nil {
			r.add(path, *e)
			return
		}
		m.Socket = socket
		return
	}
	end, ok := validAddress(r, path, m.Address, forMetrics)
	if !ok {
		return
	}
	if m.DualStack = end.host == ""; m.DualStack {
		end.ip = netip.IPv6Unspecified()
	}
	m.Bind = netip.AddrPortFrom(end.ip, end.port)
}

// checkMetrics reports an address for metrics at which something else of the file listens.
func checkMetrics(r *report, c *Config) {
	const path = "metrics.address"
	m := &c.Metrics
	taken := func(by string) {
		r.add(path, Error{Found: quote(m.Address), Message: by + " listens there", Allowed: "needs an address of its own"})
	}
	if m.Bind.IsValid() && m.Bind == c.Admin.Bind || m.Socket != "" && m.Socket == c.Admin.Socket {
		taken("the control API, which has /metrics too,")
		return
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		for _, b := range l.Binds {
			if b.Path != "" && b.Path == m.Socket || m.Bind.IsValid() && b.Addr == m.Bind && l.speaks("tcp") {
				taken(Path("listener", l.Name))
				return
			}
		}
	}
}
