package dnscache_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4/internal/dns/dnscache"
)

// Example shows the life of a question: the first client's goes to a backend, the second client waits for the same
// flight, the third is answered at once.
func Example() {
	cache := dnscache.New[netip.AddrPort](dnscache.Options{MaxEntries: 1000, MaxTTL: time.Hour})
	loop := cache.NewResolver()
	query := func(id uint16, name string) []byte {
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		m.Id = id
		wire, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return wire
	}
	show := func(to netip.AddrPort, wire []byte) {
		var m dns.Msg
		if err := m.Unpack(wire); err != nil {
			panic(err)
		}
		fmt.Println("to", to, "id", m.Id, m.Answer[0])
	}
	first, second, third := netip.MustParseAddrPort("192.0.2.1:1001"), netip.MustParseAddrPort("192.0.2.2:1002"),
		netip.MustParseAddrPort("192.0.2.3:1003")
	var now time.Duration
	buffer := make([]byte, 0, 65_535)

	asked := loop.Ask(query(1, "example.com."), dnscache.UDP, first, now, buffer)
	fmt.Println(asked.Verdict)
	waits := loop.Ask(query(2, "EXAMPLE.com."), dnscache.UDP, second, now, buffer)
	fmt.Println(waits.Verdict)

	const id = 4711 // our own; random in real use
	var sent dns.Msg
	if err := sent.Unpack(asked.Flight.AppendQuery(buffer, id)); err != nil {
		panic(err)
	}
	said := new(dns.Msg).SetReply(&sent)
	said.Answer = append(said.Answer, &dns.A{
		Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
		A:   []byte{198, 51, 100, 1},
	})
	said.Compress = true
	wire, err := said.Pack()
	if err != nil {
		panic(err)
	}
	answers, ok := loop.Answered(asked.Flight, id, wire, now)
	fmt.Println("taken:", ok)
	for i := range answers.Len() {
		show(answers.Waiter(i), answers.Append(buffer, i))
	}

	now += 20 * time.Second
	hit := loop.Ask(query(3, "example.com."), dnscache.UDP, third, now, buffer)
	fmt.Println(hit.Verdict)
	show(third, hit.Answer)
	// Output:
	// forward
	// wait
	// taken: true
	// to 192.0.2.1:1001 id 1 example.com.	60	IN	A	198.51.100.1
	// to 192.0.2.2:1002 id 2 EXAMPLE.com.	60	IN	A	198.51.100.1
	// hit
	// to 192.0.2.3:1003 id 3 example.com.	40	IN	A	198.51.100.1
}
