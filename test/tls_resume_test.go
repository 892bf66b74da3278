package test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A visitor is openssl's client with a file for its session.
type visitor struct {
	session string // the file
	args    []string
}

func newVisitor(t *testing.T, args ...string) *visitor {
	return &visitor{session: filepath.Join(t.TempDir(), "session"), args: args}
}

// begin connects without a session, and keeps the one it gets.
func (v *visitor) begin(t *testing.T, at string) {
	t.Helper()
	got := openSSL(t, at, append([]string{"-sess_out", v.session}, v.args...)...)
	if !strings.Contains(got, marker) || !strings.Contains(got, "New, TLSv1.") {
		t.Errorf("no new session:\n%s", got)
	}
}

// resumes connects with the session, which must work, and reports whether it was resumed.
func (v *visitor) resumes(t *testing.T, at string, args ...string) bool {
	t.Helper()
	got := openSSL(t, at, append(append([]string{"-sess_in", v.session}, v.args...), args...)...)
	resumed := strings.Contains(got, "Reused, TLSv1.")
	if !strings.Contains(got, marker) || !resumed && !strings.Contains(got, "New, TLSv1.") {
		t.Errorf("no session:\n%s", got)
	}
	return resumed
}

// ticketKeys writes a file with this ticket key, and returns the line for a table tls.
func (a *authority) ticketKeys(t testing.TB, name, key string) string {
	t.Helper()
	path := filepath.Join(a.dir, name)
	text := base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%-32s", key)))
	check(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
	return fmt.Sprintf("ticket_key_file = %q", path)
}

// bothVersions runs a test with a new visitor for each version of TLS.
func bothVersions(t *testing.T, run func(t *testing.T, v *visitor), args ...string) {
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version[1:], func(t *testing.T) { run(t, newVisitor(t, append([]string{version}, args...)...)) })
	}
}

// TestTLSResumption has openssl's client come back with its session: to the same process, after a restart, and to
// another balancer, with and without a shared file of ticket keys.
func TestTLSResumption(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	backend := harness.Serve(t, harness.Echo)
	start := func(t *testing.T, keys ...string) (b *harness.Balancer, at string) {
		b = world{Backends: []string{backend.Address()},
			Listener: []string{tlsTable(append(keys, ca.pairs("www"))...)}}.start(t)
		return b, b.Address(t, "main")
	}
	shared, other := ca.ticketKeys(t, "shared.keys", "shared"), ca.ticketKeys(t, "other.keys", "other")
	bothVersions(t, func(t *testing.T, v *visitor) {
		t.Parallel()
		version := strings.Replace(v.args[0], "-tls1_", "1.", 1)
		b, at := start(t)
		v.begin(t, at)
		for range 2 { // the first one gets a new ticket
			if !v.resumes(t, at) {
				t.Error("not resumed in one process")
			}
		}
		measured(t, b, map[string]float64{
			handshakesOf("client", version, false): 1, handshakesOf("client", version, true): 2,
		})
		if _, at := start(t); v.resumes(t, at) {
			t.Error("resumed by another process with random keys")
		}
		first, at := start(t, shared)
		v.begin(t, at)
		if !v.resumes(t, at) {
			t.Error("not resumed with a file of keys")
		}
		_, second := start(t, shared)
		if !v.resumes(t, second) {
			t.Error("not resumed by another balancer with the same file")
		}
		first.Signal(t, os.Interrupt)
		first.Wait(t)
		if _, at := start(t, shared); !v.resumes(t, at) {
			t.Error("not resumed after a restart")
		}
		if _, at := start(t, other); v.resumes(t, at) {
			t.Error("resumed with another file of keys")
		}
	})
}

// TestTLSResumptionByRules has openssl's client, which shows a certificate, carry its session between listeners that
// have the same ticket keys, and other rules for clients' certificates.
func TestTLSResumptionByRules(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, one, two := newAuthority(t, dir, "ca"), newAuthority(t, dir, "one"), newAuthority(t, dir, "two")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	one.pair(t, "somebody", ecdsaKey(t))
	keys := ca.ticketKeys(t, "ticket.keys", "shared")
	backend := harness.Serve(t, harness.Echo)
	rules := func(auth, name string) string {
		return fmt.Sprintf("client_auth = %q, client_ca = %q", auth, filepath.Join(dir, name+".crt"))
	}
	table := func(more ...string) []string {
		return []string{tlsTable(append(more, keys, ca.pairs("www"))...)}
	}
	check(t, os.WriteFile(filepath.Join(dir, "both.crt"), append(readFile(t, filepath.Join(dir, "one.crt")),
		readFile(t, filepath.Join(dir, "two.crt"))...), 0o600))
	_ = two
	all := []string{backend.Address()}
	b := harness.StartBalancer(t, configOf(t,
		service{name: "origin", backends: all, listener: table(rules("required", "one"))},
		service{name: "same", backends: all, listener: table(rules("required", "one"))},
		service{name: "optional", backends: all, listener: table(rules("optional", "one"))},
		service{name: "more", backends: all, listener: table(rules("required", "both"))},
		service{name: "none", backends: all, listener: table()},
	))
	shown := []string{"-cert", filepath.Join(dir, "somebody.crt"), "-key", filepath.Join(dir, "somebody.key")}
	bothVersions(t, func(t *testing.T, v *visitor) {
		v.begin(t, b.Address(t, "origin"))
		for listener, want := range map[string]bool{
			"origin": true, "same": true, "optional": false, "more": false, "none": false,
		} {
			if got := v.resumes(t, b.Address(t, listener)); got != want {
				t.Errorf("resumed at listener %s: %t", listener, got)
			}
		}
		// The session alone is not enough for a listener whose authorities do not know the certificate in it.
		stranger := newVisitor(t, v.args[0])
		stranger.begin(t, b.Address(t, "none"))
		got := openSSL(t, b.Address(t, "origin"), "-sess_in", stranger.session, v.args[0])
		if strings.Contains(got, marker) {
			t.Errorf("a session without a certificate is resumed where one is required:\n%s", got)
		}
	}, shown...)
}

func writeFile(path string, data []byte) error { return os.WriteFile(path, data, 0o600) }

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	return data
}
