package session_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// portlessPool has one backend at 127.0.0.2, without a port.
func portlessPool(t *testing.T) *pool.Pool {
	t.Helper()
	p := newPool(t)
	at := pool.At(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), 0))
	if err := p.Add(pool.Spec{ID: "b", Addr: at, Weight: 1}); err != nil {
		t.Fatal(err)
	}
	return p
}

// namingAt serves the text of its own address, on a free port of 127.0.0.2.
func namingAt(t *testing.T) (port uint16) {
	t.Helper()
	ls, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ls.Close() })
	go func() {
		for {
			c, err := ls.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.LocalAddr().String())
			c.Close()
		}
	}()
	return ls.Addr().(*net.TCPAddr).AddrPort().Port()
}

func local(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

// TestPortlessBackend holds that each client of a listener with two ports gets its own port of a backend without one,
// also behind a PROXY header that names another, and that the log has the port.
func TestPortlessBackend(t *testing.T) {
	for _, header := range []string{"", "PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"} {
		first, second := namingAt(t), namingAt(t)
		one := spec(portlessPool(t))
		one.Address, one.More = local(first), []l4.Place{{Address: local(second)}}
		if header != "" {
			one.Proxy = l4.ProxySettings{Versions: l4.ProxyV1, Trusted: loopback, Timeout: patience}
		}
		lines, log := newCapture()
		start(t, l4.Options{Loops: 2, Access: true, Log: log}, one)
		for i := range 6 {
			port := first
			if i%2 == 1 {
				port = second
			}
			c := dial(t, local(port).String())
			if _, err := io.WriteString(c, header); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("127.0.0.2:%d", port)
			if got, err := io.ReadAll(c); err != nil || string(got) != want {
				t.Fatalf("port %d: got %q, %v", port, got, err)
			}
			c.Close()
			if line := <-lines.Lines(); !bytes.Contains(line, []byte(`"backend_address":"`+want+`"`)) {
				t.Errorf("access line %s", line)
			}
		}
	}
}

// TestPortlessInList holds that the list of sessions has the port, and that both addresses of the backend find one.
func TestPortlessInList(t *testing.T) {
	ls, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ls.Close()
	at := ls.Addr().(*net.TCPAddr).AddrPort()
	one := spec(portlessPool(t))
	one.Address = local(at.Port())
	s := start(t, l4.Options{Loops: 1}, one)
	dial(t, one.Address.String())
	c, err := ls.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for filter, want := range map[string]int{at.String(): 1, "127.0.0.2": 1, "b": 1, "127.0.0.2:1": 0} {
		got, err := s.List(t.Context(), l4.SessionFilter{Backend: filter})
		list := got.Sessions
		if err != nil || len(list) != want || want == 1 && list[0].BackendAddress != pool.At(at) {
			t.Errorf("by %s: %+v", filter, list)
		}
	}
}
