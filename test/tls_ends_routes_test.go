package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// textOverTLS connects with TLS, and returns what the server sends until it ends the connection.
func textOverTLS(at, name string, protocols ...string) (string, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: harness.Patience}, "tcp", at,
		&tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protocols})
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	return string(text), err
}

// TestTLSEndsWithRoutes chooses the pool of a client whose TLS ends at the listener, by its server name and protocols.
func TestTLSEndsWithRoutes(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "all", ecdsaKey(t), "*.example.com")
	var pools strings.Builder
	for _, name := range []string{"one", "two", "three"} {
		fmt.Fprintf(&pools, "[pool.%s]\nbackends = [%q]\n", name, harness.Serve(t, harness.Name(name)).Address())
	}
	b := harness.StartBalancer(t, fmt.Sprintf(`
[listener.main]
address = %q
pool = ""
routes = [
  { sni = ["one.example.com"], pool = "one" },
  { sni = ["*.example.com"], alpn = ["dot"], pool = "two" },
  { sni = ["three.example.com"], pool = "three" },
]
%s
%s
`, harness.FreeAddress(t), tlsTable(ca.pairs("all"), `alpn = ["h2", "dot"]`), pools.String()))
	at := b.Address(t, "main")
	for _, tt := range []struct {
		name, protocols string
		want            string // or the end of the error
	}{
		{"one.example.com", "", "one"},
		{"ONE.example.com", "h2", "one"},
		{"other.example.com", "dot", "two"},
		{"other.example.com", "h2,dot", "two"},
		{"three.example.com", "dot", "three"},
		{"other.example.com", "h2", "unrecognized name"},
		{"other.example.com", "", "unrecognized name"},
		{"other.test", "dot", "unrecognized name"},
		{"", "", "unrecognized name"},
		{"one.example.com", "x", "no application protocol"},
	} {
		got, err := textOverTLS(at, tt.name, strings.FieldsFunc(tt.protocols, func(r rune) bool { return r == ',' })...)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasSuffix(got, tt.want) {
			t.Errorf("%q with %q: %q, want %q", tt.name, tt.protocols, got, tt.want)
		}
	}
	if n := refusals(t, b, "no_route"); n != 4 {
		t.Errorf("%d refusals with no_route", n)
	}
	for _, tt := range []trial{
		{args: "-servername other.test", want: []string{"unrecognized name", "SSL alert number 112"}},
		{args: "-servername one.example.com -tls1_2", want: []string{"subject=CN = all\n", "one"}},
	} {
		tt.run(t, at)
	}
}

// TestTLSEndsHashSNI holds that all sessions for one name go to one backend when TLS ends at the listener, and that the
// names spread.
func TestTLSEndsHashSNI(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "all", ecdsaKey(t), "*.example.com")
	var addresses []string
	for _, name := range []string{"a", "b", "c"} {
		addresses = append(addresses, harness.Serve(t, harness.Name(name)).Address())
	}
	at := world{Backends: addresses, Pool: []string{`algorithm = "client_hash"`, `hash_key = "sni"`},
		Listener: []string{tlsTable(ca.pairs("all"))}}.start(t).Address(t, "main")
	spread := make(map[string]bool)
	for i := range 20 {
		name := fmt.Sprintf("tenant%d.example.com", i)
		first, err := textOverTLS(at, name)
		check(t, err)
		for range 2 {
			if got, err := textOverTLS(at, name); err != nil || got != first {
				t.Errorf("%s comes to %q and to %q, %v", name, first, got, err)
			}
		}
		spread[first] = true
	}
	if len(spread) != 3 {
		t.Errorf("20 names come to %d of 3 backends", len(spread))
	}
}
