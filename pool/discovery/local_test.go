package discovery

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// ownAddresses returns the addresses of this machine's interfaces.
func ownAddresses(t *testing.T) []netip.Addr {
	t.Helper()
	all, err := net.InterfaceAddrs()
	must(t, err)
	var own []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		must(t, err)
		own = append(own, prefix.Addr())
	}
	return own
}

func TestIsHere(t *testing.T) {
	for _, ip := range ownAddresses(t) {
		if here, err := isHere(ip); !here || err != nil {
			t.Errorf("%s is of this machine, and is said not to be; error %v", ip, err)
		}
	}
	for text, want := range map[string]bool{
		"127.0.0.1": true, "127.255.255.254": true, "::1": true, "169.254.169.254": true, "fe80::1": true,
		"10.66.77.88": false, "203.0.113.9": false, "2001:db8::9": false, // whether or not there is a way to them
	} {
		if here, err := isHere(netip.MustParseAddr(text)); here != want || err != nil {
			t.Errorf("%s: %v, error %v; want %v", text, here, err, want)
		}
	}
	lack := &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}
	if ours(lack) == nil || ours(&net.OpError{Op: "dial",
		Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}) != nil {
		t.Error("a lack of descriptors is taken for an address without a route")
	}
}

// TestOwnAddressesAreRefused holds that the DNS cannot make a backend of a service for this machine only, such as the
// control API, unless the operator allows it.
func TestOwnAddressesAreRefused(t *testing.T) {
	d := harness.StartDNS(t)
	zone := `
loop 60 A 10.0.0.1
loop 60 A 127.0.0.1
loop6 60 AAAA ::1
meta 60 A 169.254.169.254
link 60 AAAA fe80::1
all 60 A 255.255.255.255
_loop._tcp 60 SRV 0 1 9000 loop
`
	for _, own := range ownAddresses(t) {
		if own.Is4() && !own.IsLoopback() {
			zone += "own 60 A " + own.String() + "\n"
		}
	}
	d.SetZone(t, zone)
	for _, tt := range []struct{ name, list string }{
		{"loop", "127.0.0.1:9000"}, {"loop6", "[::1]:9000"}, {"meta", "169.254.169.254:9000"},
		{"link", "[fe80::1]:9000"},
	} {
		f, err := DNS{Name: tt.name + ".lb.test", Port: 9000, Resolver: d.Address}.Find(t.Context())
		wantFailure(t, f, err, ErrOwnAddress, "look up A/AAAA of "+tt.name+".lb.test.: address of this machine: "+
			tt.list+"; allow_loopback = true allows them")
		f, err = DNS{Name: tt.name + ".lb.test", Port: 9000, Resolver: d.Address, AllowLoopback: true}.Find(t.Context())
		if err != nil || len(f.Backends) == 0 {
			t.Errorf("%s: with allow_loopback %v, error %v", tt.name, f.Backends, err)
		}
	}
	if _, err := (DNS{Name: "own.lb.test", Port: 9000, Resolver: d.Address}).Find(t.Context()); !errors.Is(err,
		ErrOwnAddress) && !errors.Is(err, ErrNoSuchName) {
		t.Errorf("an address of an interface gives %v", err)
	}
	f, err := SRV{Name: "_loop._tcp.lb.test", Resolver: d.Address}.Find(t.Context())
	wantFailure(t, f, err, ErrOwnAddress,
		"look up SRV of _loop._tcp.lb.test.: address of this machine: 127.0.0.1:9000; allow_loopback = true allows them")
	f, err = SRV{Name: "_loop._tcp.lb.test", Resolver: d.Address, AllowLoopback: true}.Find(t.Context())
	wantFound(t, f, err, f.TTL, "10.0.0.1:9000", "127.0.0.1:9000")
	f, err = DNS{Name: "all.lb.test", Port: 1, Resolver: d.Address, AllowLoopback: true}.Find(t.Context())
	wantFailure(t, f, err, ErrBadBackend, "look up A/AAAA of all.lb.test.: unusable backend: 255.255.255.255:1")
}

// TestOwnAddressThatCameWithTheAnswer is the attack of one datagram: a forged SRV answer brings the address along.
func TestOwnAddressThatCameWithTheAnswer(t *testing.T) {
	s := serve(t, func(q *dns.Msg, _ string) [][]byte {
		return packed(with(reply(q, "_db._tcp.test. 60 SRV 0 1 9000 a.test."), func(m *dns.Msg) {
			m.Extra = reply(q, "a.test. 60 A 127.0.0.1", "a.test. 60 AAAA ::1").Answer
		}))
	})
	f, err := SRV{Name: "_db._tcp.test", Resolver: s.address}.Find(t.Context())
	wantFailure(t, f, err, ErrOwnAddress,
		"look up SRV of _db._tcp.test.: address of this machine: 127.0.0.1:9000, [::1]:9000; allow_loopback = true allows them")
}
