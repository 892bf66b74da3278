package dns_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
)

// chaoticDNS is a backend that answers in any order, and may close a connection at any moment, also in the midst of an
// answer.
func chaoticDNS(t testing.TB) string {
	return backend(t, func(c *net.TCPConn) {
		var writing sync.Mutex
		var answers sync.WaitGroup
		defer answers.Wait()
		for {
			query, err := readFrame(c)
			if err != nil {
				return
			}
			answers.Go(func() {
				writing.Lock()
				defer writing.Unlock()
				if rand.IntN(50) > 0 {
					heldFrame{c: c, query: query}.answer(t)
					return
				}
				_, _ = c.Write([]byte{0, 100, 1, 2, 3})
				c.Close()
			})
		}
	})
}

// TestDNSTalkChaos holds that no client gets an answer to what it has not asked, and that each client that stays gets
// an answer to each question, SERVFAIL if no backend answers. Clients write in pieces and leave at any moment, and so
// do backends.
func TestDNSTalkChaos(t *testing.T) {
	const clients, rounds, each = 20, 10, 30
	spec := talkSpec(newPool(t, chaoticDNS(t), chaoticDNS(t), chaoticDNS(t)))
	spec.DNS.Cache.MaxEntries = 50
	s := start(t, l4.Options{Loops: 2}, spec)
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for range rounds {
				if err := chaoticTalk(address(s), each); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	eventually(t, "all is over", func() bool { return s.Sessions() == 0 && dnsInfo(s).InFlight == 0 })
	info := dnsInfo(s)
	if info.Cache.Waiting != 0 || info.Mismatched != 0 || info.Answered == 0 || info.Cache.Hit == 0 {
		t.Errorf("%+v", info)
	}
	for _, b := range firstPool(s).Backends() {
		if b.Leases != 0 {
			t.Errorf("%s: %d leases", b.ID, b.Leases)
		}
	}
}

// chaoticTalk asks questions on a connection of its own, and checks the answers unless it goes before.
func chaoticTalk(address string, questions int) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	names := make(map[uint16]string)
	var stream []byte
	for i := range questions {
		name := nameOf(rand.IntN(100))
		query, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			return err
		}
		query[0], query[1] = 0, byte(i)
		names[uint16(i)] = name
		stream = append(stream, framed(query)...)
	}
	leaves := rand.IntN(4) == 0
	if leaves {
		stream = stream[:rand.IntN(len(stream))]
	}
	for len(stream) > 0 {
		n := min(1+rand.IntN(200), len(stream))
		if _, err := c.Write(stream[:n]); err != nil {
			return err
		}
		stream = stream[n:]
	}
	if leaves {
		return c.SetLinger(rand.IntN(2) - 1) // with a reset or in order
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	for len(names) > 0 {
		wire, err := readFrame(c)
		if err != nil {
			return fmt.Errorf("%d answers are missing: %w", len(names), err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(wire); err != nil {
			return err
		}
		name, asked := names[m.Id]
		switch {
		case !asked || m.Question[0].Name != name:
			return fmt.Errorf("not asked, want %q:\n%v", name, m)
		case m.Rcode == dns.RcodeServerFailure:
		case len(m.Answer) != 1 || !m.Answer[0].(*dns.A).A.Equal(addressOf(name)):
			return fmt.Errorf("%s has %v, got\n%v", name, addressOf(name), m)
		}
		delete(names, m.Id)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		return fmt.Errorf("more than answers came")
	}
	return nil
}
