package dns_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// TestDNSRetriesAreBounded holds that no more backends are asked than retries allow.
func TestDNSRetriesAreBounded(t *testing.T) {
	p, err := pool.New(pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy, Retries: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: pool.At(netip.MustParseAddrPort(refusing(t))), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 1}, dnsSpec(p))
	c := dialUDP(t, address(s))
	wantCode(t, exchange(t, c, dnsQuery(t, 1, "www.example.com.", dns.TypeA)), 1, dns.RcodeServerFailure)
	if info := dnsInfo(s); info.Asked != 2 || info.Unreachable != 2 || info.Failed != 1 {
		t.Errorf("%+v", info)
	}
}

// TestDNSRetries holds that another backend is asked when one is silent or refuses, that the pool gets the outcome, and
// that clients get SERVFAIL when none answers.
func TestDNSRetries(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		for _, tc := range []struct {
			name    string
			first   func(t testing.TB) string
			outcome pool.Outcome
			asked   uint64 // in all: by one that is alone again, if it may not have heard
		}{
			{"silent", func(t testing.TB) string { return startUDP(t, nil).Address() }, pool.NoAnswer, 4},
			{"refusing", refusing, pool.ConnectRefused, 3},
		} {
			t.Run(tc.name, func(t *testing.T) {
				p, err := pool.New(pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy, Retries: 1})
				if err != nil {
					t.Fatal(err)
				}
				good := startUDP(t, answering(t, 60))
				for i, a := range []string{tc.first(t), good.Address()} {
					if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
						t.Fatal(err)
					}
				}
				ls := spec(p)
				setDNSTimeout(ls.DNS, time.Second)
				s := start(t, l4.Options{Loops: 1}, ls)
				c := dialUDP(t, address(s))
				wantAddress(t, exchange(t, c, dnsQuery(t, 7, "www.example.com.", dns.TypeA)), 7, "www.example.com.")
				bs := p.Backends()
				if bs[0].Outcomes[tc.outcome] != 1 || bs[1].Outcomes[pool.Served] != 1 || bs[0].Leases+bs[1].Leases != 0 {
					t.Errorf("%+v", bs)
				}
				info := dnsInfo(s)
				if info.Asked != 2 || info.TimedOut+info.Unreachable != 1 || info.Answered != 1 || info.Failed != 0 {
					t.Errorf("%+v", info)
				}
				if err := p.Remove("1"); err != nil {
					t.Fatal(err)
				}
				wantCode(t, exchange(t, c, dnsQuery(t, 8, "mail.example.com.", dns.TypeA)), 8, dns.RcodeServerFailure)
				if err := p.Remove("0"); err != nil {
					t.Fatal(err)
				}
				wantCode(t, exchange(t, c, dnsQuery(t, 9, "none.example.com.", dns.TypeA)), 9, dns.RcodeServerFailure)
				if info := dnsInfo(s); info.Asked != tc.asked || info.Failed != 2 || info.InFlight != 0 {
					t.Errorf("%+v", info)
				}
			})
		}
	})
}

// TestDNSLost holds that a lone backend is asked once more when nothing comes back.
func TestDNSLost(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		answer, asked := answering(t, 60), 0
		b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
			if asked++; asked > 1 {
				answer(b, from, query)
			}
		})
		ls := spec(newPool(t, b.Address()))
		setDNSTimeout(ls.DNS, time.Second)
		s := start(t, l4.Options{Loops: 1}, ls)
		c := dialUDP(t, address(s))
		wantAddress(t, exchange(t, c, dnsQuery(t, 7, "www.example.com.", dns.TypeA)), 7, "www.example.com.")
		if info := dnsInfo(s); info.Asked != 2 || info.TimedOut != 1 || info.Answered != 1 || info.Failed != 0 {
			t.Errorf("%+v", info)
		}
	})
}

// TestDNSLeastTime holds that the pool learns how long answers take.
func TestDNSLeastTime(t *testing.T) {
	quick := startUDP(t, answering(t, 0))
	slow := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
		query = append([]byte(nil), query...)
		time.AfterFunc(200*time.Millisecond, func() { answering(t, 0)(b, from, query) })
	})
	p, err := pool.New(pool.Options{Name: "pool", Algorithm: "least_time", Initial: pool.Healthy})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range []*l4test.UDPBackend{slow, quick} {
		if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: pool.At(netip.MustParseAddrPort(b.Address())), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 1}, dnsSpec(p))
	c := dialUDP(t, address(s))
	for i := range uint16(30) {
		wantAddress(t, exchange(t, c, dnsQuery(t, i, "www.example.com.", dns.TypeA)), i, "www.example.com.")
	}
	if slow, quick := slow.Got.Load(), quick.Got.Load(); slow == 0 || quick < 4*slow {
		t.Errorf("%d questions to the slow backend, %d to the quick one", slow, quick)
	}
}

// TestDNSForgeries holds that an answer is believed only from the backend that was asked, and only with the id and the
// question that it was asked with.
func TestDNSForgeries(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		b, stranger := startUDP(t, hold), startUDP(t, nil)
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, b.Address())))
		c := dialUDP(t, address(s))
		if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		one := <-held
		forged := func(change func(*dns.Msg)) *dns.Msg {
			m, err := dnsAnswer(one.query, 60)
			if err != nil {
				t.Fatal(err)
			}
			m.Answer[0].(*dns.A).A = net.IPv4(6, 6, 6, 6)
			change(m)
			return m
		}
		sendDNS(t, stranger, one.from, forged(func(*dns.Msg) {}))
		sendDNS(t, b, one.from, forged(func(m *dns.Msg) { m.Id++ }))
		sendDNS(t, b, one.from, forged(func(m *dns.Msg) { m.Question[0].Name = "other.example.com." }))
		sendDNS(t, b, one.from, forged(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }))
		sendDNS(t, b, one.from, forged(func(m *dns.Msg) { m.Response = false }))
		if _, err := b.WriteToUDPAddrPort([]byte("x"), one.from); err != nil {
			t.Fatal(err)
		}
		answer(t, b, one)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "www.example.com.")
		answer(t, b, one) // again, and nobody waits
		eventually(t, "all forgeries are counted", func() bool { return dnsInfo(s).Mismatched == 6 })
		if got := dnsInfo(s); got.Answered != 1 || info(s).DatagramsOut != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestDNSRevoked holds that a question at a backend that is removed is asked at another.
func TestDNSRevoked(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		silent := startUDP(t, hold)
		p, err := pool.New(pool.Options{
			Name: "pool", Algorithm: "first", Initial: pool.Healthy, Retries: 0, CloseOnRemove: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		good := startUDP(t, answering(t, 60))
		for i, a := range []string{silent.Address(), good.Address()} {
			if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
				t.Fatal(err)
			}
		}
		s := start(t, l4.Options{Loops: 1}, spec(p))
		c := dialUDP(t, address(s))
		if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		<-held
		if err := p.Remove("0"); err != nil {
			t.Fatal(err)
		}
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "www.example.com.")
		if info := dnsInfo(s); info.Sockets != 1 || info.Asked != 2 {
			t.Errorf("%+v", info)
		}
	})
}
