package daemon

import (
	"errors"
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/l4"
)

// dnsCaches reports which listeners have a DNS cache. Those of the others count zeros.
func (d *Daemon) dnsCaches() map[string]bool {
	caches := make(map[string]bool)
	for _, l := range d.config().Listeners {
		caches[l.Name] = l.Cache != nil
	}
	return caches
}

// dnsAnswer converts the DNS counters of a listener for the API; nil if it has no DNS settings.
func dnsAnswer(info *l4.DNSInfo, cached bool) *admin.DNS {
	if info == nil {
		return nil
	}
	a := &admin.DNS{
		InFlight: info.InFlight, Sockets: info.Sockets, Asked: info.Asked, Answered: info.Answered,
		TimedOut: info.TimedOut, Unreachable: info.Unreachable, Failed: info.Failed, Mismatched: info.Mismatched,
	}
	if c := &info.Cache; cached {
		a.Cache = &admin.DNSCache{
			Hit: c.Hit, Miss: c.Miss, Coalesced: c.Coalesced, Stale: c.Stale, Prefetched: c.Prefetched,
			Passed: c.Passed, Refused: c.Refused, Rejected: c.Rejected, Stored: c.Stored, Evicted: c.Evicted,
			Expired: c.Expired, Entries: c.Entries, Bytes: c.Bytes, Waiting: c.Waiting,
		}
	}
	return a
}

// PurgeDNS removes answers from a listener's cache, and returns how many they were.
func (d *Daemon) PurgeDNS(listener string, p admin.DNSPurge) (int, error) {
	what, text := l4.DNSPurge{Name: p.Name, Below: p.Below}, p.Name
	switch {
	case p.All:
		what, text = l4.DNSPurge{Name: ".", Below: true}, "all"
	case p.Below:
		text += " and all below it"
	}
	n, err := d.server.PurgeDNS(listener, what)
	switch {
	case errors.Is(err, l4.ErrUnknownListener):
		return 0, fmt.Errorf("listener %q: %w", listener, admin.ErrUnknownListener)
	case errors.Is(err, l4.ErrNoDNSCache):
		return 0, fmt.Errorf("listener %q: %w", listener, admin.ErrNoDNSCache)
	case errors.Is(err, l4.ErrInvalidDNSName):
		return 0, &admin.RequestError{Field: "name", Value: p.Name, Want: `a domain name, such as "www.example.com"`}
	case err != nil:
		return 0, err
	}
	d.events.publish(admin.Event{
		At: time.Now(), Kind: "dns_purged",
		Text: fmt.Sprintf("listener %s forgot %d %s: %s", listener, n, plural(n, "answer"), text),
	})
	return n, nil
}
