package harness

import (
	"net"
	"testing"
)

func TestUDPBackend(t *testing.T) {
	b := ServeUDP(t, EchoDatagrams)
	one, two := DialUDP(t, b.Address()), DialUDPFrom(t, "127.0.0.9", b.Address())
	for _, c := range []net.Conn{one, two, two} {
		if answer, err := AskUDP(c, []byte("hello")); err != nil || string(answer) != "hello" {
			t.Errorf("answer %q, %v", answer, err)
		}
	}
	from := two.LocalAddr().(*net.UDPAddr)
	if got := b.Sources(); len(got) != 2 || got[from.AddrPort()] != 2 || from.IP.String() != "127.0.0.9" ||
		b.Received() != 3 {
		t.Errorf("datagrams by source: %v", got)
	}
	b.Close()
	if answer, err := AskUDP(one, []byte("hello")); err == nil {
		t.Errorf("after its end it answers %q", answer)
	}
}

func TestDNSPerf(t *testing.T) {
	d := StartDNS(t)
	d.SetZone(t, "www A 192.0.2.1")
	p := RunDNSPerf(t, d.Address, []string{"www.lb.test A", "nothing.lb.test A"}, "-n", "10", "-c", "2")
	if p.Sent != 20 || p.Completed != 20 || p.Lost != 0 || p.Rate <= 0 || p.Codes["NOERROR"] != 10 ||
		p.Codes["NXDOMAIN"] != 10 {
		t.Errorf("%+v", p)
	}
	if _, err := parseDNSPerf("it did nothing"); err == nil {
		t.Error("statistics that are none are taken for some")
	}
}
