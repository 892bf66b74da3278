package harness

import (
	"testing"

	"github.com/miekg/dns"
)

func TestDNS(t *testing.T) {
	d := StartDNS(t)
	ask := func(name string) (addresses []string) {
		t.Helper()
		answer, err := dns.Exchange(new(dns.Msg).SetQuestion(name+"."+DNSZone, dns.TypeA), d.Address)
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range answer.Answer {
			addresses = append(addresses, rr.(*dns.A).A.String())
		}
		return addresses
	}
	if got := ask("www"); got != nil {
		t.Errorf("at first www has %v", got)
	}
	for _, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} { // in quick succession
		d.SetZone(t, "www A "+address)
		if got := ask("www"); len(got) != 1 || got[0] != address {
			t.Errorf("www has %v, want %s", got, address)
		}
	}
	for _, end := range []func(testing.TB){d.Kill, d.Stop} {
		end(t)
		if _, err := dns.Exchange(new(dns.Msg).SetQuestion(DNSZone, dns.TypeSOA), d.Address); err == nil {
			t.Error("the server answers after its end")
		}
		d.Restart(t)
		if got := ask("www"); len(got) != 1 || got[0] != "192.0.2.3" {
			t.Errorf("after a restart, www has %v", got)
		}
	}
}
