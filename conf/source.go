package conf

import (
	"fmt"
	"net/netip"
	"slices"
)

const sourceNeeds = `needs an IP address of this host without a port, such as "10.0.0.5" or "2001:db8::5"`

// validateSource checks Source and CongestionControl of the pool at path, and fills SourceAddrs.
func validateSource(r *report, path string, p *Pool) {
	validateCongestionControl(r, path, p.CongestionControl)
	first := map[netip.Addr]int{}
	for i, text := range p.Source {
		sub := element(join(path, "source"), i)
		ip, err := netip.ParseAddr(text)
		ip = ip.Unmap()
		e := Error{Found: quote(text)}
		if err != nil {
			e.Allowed = sourceNeeds
		} else if ip.IsUnspecified() {
			e.Message, e.Allowed = "this is every address", sourceNeeds+"; without source the kernel chooses"
		} else {
			e.Message = checkIP(ip, true)
		}
		if at, again := first[ip]; again && e.Allowed == "" && e.Message == "" {
			e.Message = fmt.Sprintf("%s is the same address", element(join(path, "source"), at))
		}
		if e.Allowed != "" || e.Message != "" {
			r.add(sub, e)
			continue
		}
		first[ip] = i
		p.SourceAddrs = append(p.SourceAddrs, ip)
	}
	if len(p.SourceAddrs) < len(p.Source) {
		return // what is missing may be of the other family
	}
	for i, b := range p.Backends {
		if b.Addr.IsValid() && !p.reaches(b.Addr.Addr()) {
			r.add(join(element(join(path, "backends"), i), "address"), p.noSource(b))
		}
	}
}

// reaches reports whether a connection to an address may come from one of Source: whether one is of its family.
func (p *Pool) reaches(to netip.Addr) bool {
	if len(p.Source) == 0 {
		return true
	}
	return slices.ContainsFunc(p.SourceAddrs, func(a netip.Addr) bool { return a.Is4() == to.Unmap().Is4() })
}

// noSource is the mistake of a backend whose family Source lacks.
func (p *Pool) noSource(b Backend) Error {
	family := "IPv6"
	if b.Addr.Addr().Unmap().Is4() {
		family = "IPv4"
	}
	return Error{Found: quote(b.Address),
		Message: fmt.Sprintf("source has no %s address: nothing can be sent to it", family)}
}

// warnOfSource reports backends whose names have resolved to addresses of a family that source lacks, and a congestion
// control that no TCP connection has.
func warnOfSource(r *report, path string, p *Pool, listeners []Listener) {
	for i, b := range p.Backends {
		if b.Addr.IsValid() && !p.reaches(b.Addr.Addr()) {
			r.add(join(element(join(path, "backends"), i), "address"), p.noSource(b))
		}
	}
	uses := func(protocol string) bool {
		return slices.ContainsFunc(listeners, func(l Listener) bool { return l.Pool == p.Name && l.speaks(protocol) })
	}
	if p.CongestionControl != "" && uses("udp") && !uses("tcp") {
		r.add(join(path, "congestion_control"), Error{Found: quote(p.CongestionControl),
			Message: "the listeners of this pool speak udp: this key changes nothing"})
	}
}

// maxCongestionBytes is the longest name of an algorithm: TCP_CA_NAME_MAX without the closing zero (linux/tcp.h).
const maxCongestionBytes = 15

const congestionNeeds = `needs an algorithm of the kernel, such as "bbr": up to 15 letters, digits, '_' or '-'`

// validateCongestionControl checks the key congestion_control of the table at path. Which algorithms there are is the
// kernel's to say.
func validateCongestionControl(r *report, path, name string) {
	if len(name) > maxCongestionBytes || !bare(name) {
		r.add(join(path, "congestion_control"), Error{Found: quote(name), Allowed: congestionNeeds})
	}
}
