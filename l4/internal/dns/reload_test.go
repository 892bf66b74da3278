package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestDNSShutdownDoesNotWait holds that Shutdown does not wait for a question that nobody waits for, and that its lease
// is released.
func TestDNSShutdownDoesNotWait(t *testing.T) {
	held, hold := holding(10)
	b := startUDP(t, hold)
	spec := dnsSpec(newPool(t, b.Address()))
	spec.DNS.Cache.StaleTTL = time.Hour
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	const name = "www.example.com."
	query := dnsQuery(t, 1, name, dns.TypeA)
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	one := <-held
	answering(t, 1)(b, one.from, one.query)
	wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, name)
	for len(held) == 0 { // until it has expired, and the client has waited for long enough
		wantAddress(t, exchange(t, c, query), 1, name)
	}
	if info := dnsInfo(s); info.InFlight != 1 || info.Cache.Waiting != 0 {
		t.Errorf("%+v", info)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if leases := firstPool(s).Backends()[0].Leases; leases != 0 {
		t.Errorf("%d leases", leases)
	}
}

// TestDNSReload holds that the cache survives a change of other settings, that a change of DNS settings begins a new
// cache, and that DNS settings come and go while datagrams pass.
func TestDNSReload(t *testing.T) {
	b := startUDP(t, answering(t, 3600))
	p := newPool(t, b.Address())
	spec := dnsSpec(p)
	s := start(t, l4.Options{Loops: 2}, spec)
	c := dialUDP(t, address(s))
	query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
	ask := func(wantAsked int64) {
		t.Helper()
		before := b.Got.Load()
		wantAddress(t, exchange(t, c, query), 1, "www.example.com.")
		if n := b.Got.Load() - before; n != wantAsked {
			t.Errorf("the backend was asked %d times, want %d", n, wantAsked)
		}
	}
	apply := func(change func(*l4.ListenerSpec), want l4.Fate) {
		t.Helper()
		dns := *spec.DNS
		spec.DNS = &dns // what was given to Apply is the server's
		change(&spec)
		plan := l4.Plan{Listeners: []l4.ListenerSpec{spec}}
		if got := s.Compare(plan)[0].Fate; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if err := s.Apply(plan); err != nil {
			t.Fatal(err)
		}
		onEach(s, func(*room.Loop) {}) // they have their mail
	}
	ask(1)
	ask(0)
	apply(func(*l4.ListenerSpec) {}, l4.Kept)
	ask(0)
	apply(func(ls *l4.ListenerSpec) { ls.Flows.Timeout = time.Minute }, l4.Updated)
	ask(0)
	apply(func(ls *l4.ListenerSpec) { ls.DNS.Cache.MaxEntries++ }, l4.Updated)
	ask(1)
	ask(0)
	if n := dnsInfo(s).Asked; n != 1 {
		t.Errorf("the new cache asked %d times", n)
	}
	apply(func(ls *l4.ListenerSpec) {
		ls.Address = netip.MustParseAddrPort("127.0.0.1:0")
		ls.Inherited = nil
		ls.DualStack = true
	}, l4.Rebound)
	c = dialUDP(t, address(s))
	ask(0)
	with := spec.DNS
	spec.DNS = nil
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}}); err != nil {
		t.Fatal(err)
	}
	onEach(s, func(*room.Loop) {})
	if info(s).DNS != nil {
		t.Errorf("%+v", info(s).DNS)
	}
	ask(1)
	ask(1)
	awaitFlows(t, s, 1)
	spec.DNS = with
	apply(func(*l4.ListenerSpec) {}, l4.Updated)
	ask(1)
	ask(0)
	onEach(s, func(l *room.Loop) {
		if n := len(room.Forwarders(l)); n != 1 {
			t.Errorf("loop %d still has %d forwarders", l.Index, n)
		}
	})
}

// TestDNSSettingsAreCopied holds that a plan's settings are the server's own from Apply on.
func TestDNSSettingsAreCopied(t *testing.T) {
	spec := dnsSpec(newPool(t, startUDP(t, nil).Address()))
	s := start(t, l4.Options{Loops: 1}, spec)
	spec.DNS.Cache.MaxEntries++
	if got := s.Compare(l4.Plan{Listeners: []l4.ListenerSpec{spec}})[0].Fate; got != l4.Updated {
		t.Errorf("a changed setting makes it %s", got)
	}
}

// TestDNSListenerLeaves holds that a question in flight is answered from the address that it came to when its listener
// moves or goes, and that then nothing is left.
func TestDNSListenerLeaves(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		b := startUDP(t, hold)
		ls := spec(newPool(t, b.Address()))
		other := flowSpec(ls.Pool)
		other.Name = "other"
		s := start(t, l4.Options{Loops: 2}, ls, other)
		before := descriptors(t)
		ask := func() (*net.UDPConn, askedOnce) {
			c := dialUDP(t, listenerInfo(s, "test").Address.String())
			if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			return c, <-held
		}
		moved, first := ask()
		ls.DualStack = true // another socket
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls, other}}); err != nil {
			t.Fatal(err)
		}
		if ls.DNS.Cache.MaxEntries > 0 {
			if _, err := s.PurgeDNS("test", l4.DNSPurge{Name: ".", Below: true}); err != nil { // so that it is asked again
				t.Fatal(err)
			}
		}
		answer(t, b, first)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, moved)), 1, "www.example.com.")
		gone, second := ask()
		onEach(s, func(l *room.Loop) { // age is not to be what closes the sockets
			room.SetSweepAt(room.Forwarders(l)[0], l.Now+time.Hour)
		})
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{other}}); err != nil {
			t.Fatal(err)
		}
		answer(t, b, second)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, gone)), 1, "www.example.com.")
		moved.Close()
		gone.Close()
		eventually(t, "nothing of it is left", func() bool {
			left := 0
			onEach(s, func(l *room.Loop) {
				left += len(room.Forwarders(l)) + l4test.OpenSockets(s, l.Index, "test")
			})
			return left == 0
		})
		if now := descriptors(t); now != before-len(loops(s)) { // its sockets
			t.Errorf("%d descriptors, were %d", now, before)
		}
	})
}

// TestDNSAtDrainingSocket holds that a socket which is only open for an answer takes no further question: the question
// goes to the listener that has the address now, or is dropped.
func TestDNSAtDrainingSocket(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		b := startUDP(t, hold)
		p := newPool(t, b.Address())
		ls, wide := spec(p), spec(p)
		s := start(t, l4.Options{Loops: 2}, ls)
		at := info(s).Address
		c := dialUDP(t, at.String())
		ask := func(id uint16) {
			if _, err := c.Write(dnsQuery(t, id, fmt.Sprintf("name-%d.example.com.", id), dns.TypeA)); err != nil {
				t.Fatal(err)
			}
		}
		ask(1)
		first := <-held
		ls.DualStack = true // another socket
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
			t.Fatal(err)
		}
		ask(2)
		awaitDropped(t, s, tally.DropDraining, 1)
		wide.Name, wide.Address = "wide", netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls, wide}}); err != nil {
			t.Fatal(err)
		}
		ask(3)
		answer(t, b, <-held)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 3, "name-3.example.com.")
		answer(t, b, first)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "name-1.example.com.")
		if n := listenerInfo(s, "wide").DNS.Answered; n != 1 {
			t.Errorf("the listener that has the address has answered %d", n)
		}
	})
}

// TestDNSShutdown holds that Shutdown waits for answers, and at its end tells clients that there will be none.
func TestDNSShutdown(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		for _, patient := range []bool{true, false} {
			t.Run(fmt.Sprintf("patient %v", patient), func(t *testing.T) {
				before := descriptors(t)
				held, hold := holding(10)
				b := startUDP(t, hold)
				s := start(t, l4.Options{Loops: 2}, spec(newPool(t, b.Address())))
				c := dialUDP(t, address(s))
				if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
					t.Fatal(err)
				}
				one := <-held
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Shutdown(ctx) }()
				eventually(t, "it is shutting down", func() bool { return l4test.ShuttingDown(s) })
				var err error
				if patient {
					answer(t, b, one)
					wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "www.example.com.")
					err = <-ended
				} else {
					cancel()
					wantCode(t, dnsUnpack(t, awaitUDP(t, c)), 1, dns.RcodeServerFailure)
					if err = <-ended; errors.Is(err, context.Canceled) {
						err = nil
					}
				}
				cancel()
				if err != nil {
					t.Error(err)
				}
				if leases := firstPool(s).Backends()[0].Leases; leases != 0 {
					t.Errorf("%d leases", leases)
				}
				c.Close()
				b.Close()
				if now := descriptors(t); now != before {
					t.Errorf("%d descriptors, were %d", now, before)
				}
			})
		}
	})
}
