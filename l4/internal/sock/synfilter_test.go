package sock

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

// listenPlain listens on a socket of TCP alone: one of Multipath TCP takes no filter.
func listenPlain(address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp", address)
}

func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// TestDropSYNs holds that requests from the given prefixes are dropped, and no others; that connections which exist go
// on; and that all is as before without prefixes.
func TestDropSYNs(t *testing.T) {
	for _, tt := range []struct {
		listen  string
		drop    []string
		silent  []string // local addresses that no connection comes from
		answers []string
	}{
		{"127.0.0.1:0", []string{"127.0.0.2/32"}, []string{"127.0.0.2"}, []string{"127.0.0.1", "127.0.0.3"}},
		{"127.0.0.1:0", []string{"127.7.0.0/16", "127.0.0.9/32"}, []string{"127.7.1.1", "127.7.255.3", "127.0.0.9"},
			[]string{"127.8.0.1", "127.6.255.255"}},
		{"127.0.0.1:0", []string{"127.128.0.0/9", "::1/128"}, []string{"127.200.0.1"}, []string{"127.0.0.1"}},
		{"[::1]:0", []string{"127.0.0.1/32", "::1/128"}, []string{"::1"}, nil},
		{"[::1]:0", []string{"::2/127", "2001:db8::/64"}, nil, []string{"::1"}},
		{"[::1]:0", []string{"::/64"}, []string{"::1"}, nil},
		{"[::1]:0", []string{"::/0"}, []string{"::1"}, nil},
		{"[::]:0", []string{"127.0.0.2/32"}, []string{"127.0.0.2"}, []string{"127.0.0.1", "::1"}},
	} {
		l, err := listenPlain(tt.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					b := make([]byte, 1)
					for {
						if _, err := c.Read(b); err != nil {
							return
						}
						_, _ = c.Write(b)
					}
				}()
			}
		}()
		port := l.Addr().(*net.TCPAddr).Port
		connect := func(from string, patience time.Duration) (net.Conn, error) {
			ip := net.ParseIP(from)
			to := net.IPv4(127, 0, 0, 1)
			if ip.To4() == nil {
				to = net.IPv6loopback
			}
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Timeout: patience}
			c, err := d.Dial("tcp", (&net.TCPAddr{IP: to, Port: port}).String())
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return c, err
		}
		echoes := func(c net.Conn) error {
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			_, err := c.Read(make([]byte, 1))
			return err
		}
		var before []net.Conn
		for _, from := range tt.silent {
			c, err := connect(from, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			before = append(before, c)
		}
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		set := func(prefixes []string) {
			t.Helper()
			var from []netip.Prefix
			for _, p := range prefixes {
				from = append(from, netip.MustParsePrefix(p))
			}
			if err := raw.Control(func(fd uintptr) { err = DropSYNs(int(fd), from) }); err != nil {
				t.Fatal(err)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		set(tt.drop)
		for _, from := range tt.silent {
			if _, err := connect(from, 100*time.Millisecond); !timedOut(err) {
				t.Errorf("drop %v: from %s: error %v", tt.drop, from, err)
			}
		}
		for _, from := range tt.answers {
			if c, err := connect(from, 10*time.Second); err != nil {
				t.Errorf("drop %v: from %s: %v", tt.drop, from, err)
			} else if err := echoes(c); err != nil {
				t.Errorf("drop %v: from %s: %v", tt.drop, from, err)
			}
		}
		for _, c := range before {
			if err := echoes(c); err != nil {
				t.Errorf("drop %v: a connection that exists: %v", tt.drop, err)
			}
		}
		set(nil)
		for _, from := range tt.silent {
			if _, err := connect(from, 10*time.Second); err != nil {
				t.Errorf("afterwards from %s: %v", from, err)
			}
		}
	}
}

// TestManySYNSources holds that the kernel takes the longest filter.
func TestManySYNSources(t *testing.T) {
	l, err := listenPlain("[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var from []netip.Prefix
	for n := range MaxSYNSources {
		from = append(from, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(n)}), 128))
	}
	if e := raw.Control(func(fd uintptr) { err = DropSYNs(int(fd), from) }); e != nil || err != nil {
		t.Error(e, err)
	}
	c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
