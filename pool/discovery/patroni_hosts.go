package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/reach"
)

const (
	// hostTimeout bounds the lookups of one round. They run at the same time.
	hostTimeout = 3 * time.Second
	// hostsEvery is how often host names of members are looked up again.
	hostsEvery = 30 * time.Second
)

// hosts keeps the addresses of the members' hosts, so that no failover waits for the DNS. Its methods may be called
// from any goroutine. The zero value looks names up as this machine does: in its hosts file and at its DNS servers.
type hosts struct {
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error) // nil: that of package net

	mu sync.Mutex
	// mu guards the fields below
	known map[string]hostAddr
}

// A hostAddr is the result of looking up a host name.
type hostAddr struct {
	ip  netip.Addr // the last one that was found
	err error      // of the first lookup, unless a later one was good
	at  time.Time  // of the last lookup
}

// look looks up the names that were not looked up for maxAge, and forgets those that are not in names. It reports
// whether an address has changed. A name that has no address any more keeps the one it had.
func (h *hosts) look(ctx context.Context, names []string, maxAge time.Duration) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	now := time.Now()
	h.mu.Lock()
	next := make(map[string]hostAddr, len(names))
	var due []string
	for _, name := range names {
		if _, err := netip.ParseAddr(name); err == nil {
			continue
		}
		a, known := h.known[name]
		if _, listed := next[name]; !listed && (!known || now.Sub(a.at) >= maxAge) {
			due = append(due, name)
		}
		next[name] = a
	}
	h.known = next
	h.mu.Unlock()

	var looking sync.WaitGroup
	var mu sync.Mutex // guards changed
	for _, name := range due {
		looking.Go(func() {
			ip, err := h.lookOne(ctx, name)
			if h.note(name, ip, err) {
				mu.Lock()
				defer mu.Unlock()
				changed = true
			}
		})
	}
	looking.Wait()
	return changed
}

// note keeps the result of a lookup, and reports whether the name has another address now.
func (h *hosts) note(name string, ip netip.Addr, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.known[name]
	a := hostAddr{ip: ip, err: err, at: time.Now()}
	if err != nil && before.ip.IsValid() {
		a.ip, a.err = before.ip, nil
	}
	h.known[name] = a
	return a.ip != before.ip
}

// lookOne returns the first IPv4 address of a name, or its first address if it has no IPv4 address.
func (h *hosts) lookOne(ctx context.Context, name string) (netip.Addr, error) {
	lookup := h.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupNetIP
	}
	found, err := lookup(ctx, "ip", name)
	if err != nil {
		return netip.Addr{}, reach.OfHost(err)
	}
	if len(found) == 0 {
		return netip.Addr{}, errors.New("no address")
	}
	for _, ip := range found {
		if ip.Unmap().Is4() {
			return ip.Unmap(), nil
		}
	}
	return found[0], nil
}

// addr returns the address of a host: an IP address, or a name that was looked up.
func (h *hosts) addr(host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a, known := h.known[host]
	switch {
	case !known || a.at.IsZero():
		return netip.Addr{}, fmt.Errorf("its host %q is not looked up yet", host)
	case a.err != nil:
		return netip.Addr{}, fmt.Errorf("its host %q has no address: %w", host, a.err)
	}
	return a.ip, nil
}

// hostsOf returns the hosts of the members that are of use.
func hostsOf(members []clusterMember) []string {
	var names []string
	for _, m := range members {
		if m.err == nil {
			names = append(names, m.host)
		}
	}
	return names
}
