package probe

import (
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/healthcheck"
)

// TestProxied holds that a check's connection to the target's own port begins with a header, and to no other, and that
// the check itself follows it.
func TestProxied(t *testing.T) {
	const v1, v2 = "PROXY UNKNOWN\r\n", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	step, err := SendText("hello")
	must(t, err)
	script, err := NewScript(step)
	must(t, err)
	got := make(chan string, 10)
	serve := func() netip.AddrPort {
		l, to := listen(t, "127.0.0.1:0")
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				text, _ := io.ReadAll(c)
				got <- string(text)
				c.Close()
			}
		}()
		return to.Addr
	}
	own, other := serve(), serve()
	for _, test := range []struct {
		name    string
		checker healthcheck.Checker
		version int
		target  healthcheck.Target
		want    string
	}{
		{"version 1", TCP{}, 1, healthcheck.Target{Addr: own}, v1},
		{"version 2", TCP{}, 2, healthcheck.Target{Addr: own}, v2},
		{"its own port by number", TCP{Port: own.Port()}, 2, healthcheck.Target{Addr: own}, v2},
		{"a script", script, 2, healthcheck.Target{Addr: own}, v2 + "hello"},
		{"a part", AllOf{script}, 1, healthcheck.Target{Addr: own}, v1 + "hello"},
		{"another port", TCP{Port: other.Port()}, 2, healthcheck.Target{Addr: own}, ""},
		{"another address", script, 2, healthcheck.Target{Addr: other, Exact: true}, "hello"},
		{"a part at another address", AllOf{script}, 2, healthcheck.Target{Addr: other, Exact: true}, "hello"},
	} {
		checker := Proxied{Checker: test.checker, Version: test.version}
		if _, err := checker.Check(deadlineIn(t, patience), test.target); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if sent := <-got; sent != test.want {
			t.Errorf("%s: sent %q, want %q", test.name, sent, test.want)
		}
	}
}

// TestProxiedHTTP holds that the header comes before a request.
func TestProxiedHTTP(t *testing.T) {
	l, to := listen(t, "127.0.0.1:0")
	first := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		text, n := make([]byte, 1000), 0
		for err == nil && !strings.HasSuffix(string(text[:n]), "\r\n\r\n") {
			var more int
			more, err = c.Read(text[n:])
			n += more
		}
		first <- string(text[:n])
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	}()
	check := Proxied{Checker: HTTP{Status: []StatusRange{{From: 200, To: 299}}}, Version: 1}
	if _, err := check.Check(deadlineIn(t, patience), to); err != nil {
		t.Error(err)
	}
	if got := <-first; !strings.HasPrefix(got, "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n") {
		t.Errorf("%q", got)
	}
}
