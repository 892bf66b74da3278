package discovery

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// sourceOf returns a source that asks these Sentinels.
func sourceOf(sentinels []*harness.Sentinel) *Sentinel {
	o := SentinelOptions{Master: harness.SentinelMaster}
	for _, s := range sentinels {
		o.Endpoints = append(o.Endpoints, s.Address)
	}
	return NewSentinel(o)
}

// roles returns what summary does of a master and its replicas.
func roles(master *harness.Redis, replicas ...*harness.Redis) string {
	all := []string{"primary " + master.Address}
	for _, r := range replicas {
		all = append(all, "replica "+r.Address)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// TestSentinelsOfRedis asks three Sentinels of Redis about a master with two replicas: with one of them hung and one
// killed, and over a failover that somebody asks for.
func TestSentinelsOfRedis(t *testing.T) {
	t.Parallel()
	master, replicas := harness.StartReplicated(t, 2)
	sentinels := harness.StartSentinels(t, master, 2)
	s := sourceOf(sentinels)
	if got, want := summary(s.Find(t.Context())), roles(master, replicas...); got != want {
		t.Fatalf("found %s, want %s", got, want)
	}
	changes := watchSentinels(t, s)
	sentinels[0].Do(t, "sentinel", "failover", harness.SentinelMaster)
	var got string
	for next := roles(master, replicas...); ; { // each change is asked about, until another server is the master
		harness.Receive(t, "a change", changes)
		if got = summary(s.Find(t.Context())); got != next && !strings.Contains(got, "primary "+master.Address) {
			break
		}
	}
	promoted := replicas[0]
	if strings.Contains(got, "primary "+replicas[1].Address) {
		promoted = replicas[1]
	}
	if !strings.Contains(got, "primary "+promoted.Address) {
		t.Fatalf("found %s, want a replica as the primary", got)
	}
	rest := slices.DeleteFunc([]*harness.Redis{master, replicas[0], replicas[1]}, func(r *harness.Redis) bool {
		return r == promoted
	})
	harness.Eventually(t, "the old master and the other replica follow", func() error {
		if got := summary(s.Find(t.Context())); got != roles(promoted, rest...) {
			return errors.New(got)
		}
		return nil
	})

	sentinels[1].Signal(t, syscall.SIGSTOP)
	found, err := s.Find(t.Context())
	if got := summary(found, err); got != roles(promoted, rest...) {
		t.Errorf("with one that hangs found %s", got)
	}
	if want := "Sentinel " + sentinels[1].Address + ": no answer: timed out"; fmt.Sprint(found.Unusable) != want {
		t.Errorf("unusable %v, want %s", found.Unusable, want)
	}
	sentinels[2].Kill(t)
	_, err = s.Find(t.Context())
	want := fmt.Sprintf("ask Sentinels for %q: no majority of 3 endpoints: %s names %s (config epoch 1), %s: no answer: "+
		"timed out, %s: no answer: connection refused", harness.SentinelMaster, sentinels[0].Address, promoted.Address,
		sentinels[1].Address, sentinels[2].Address)
	if !errors.Is(err, ErrNoMajority) || err.Error() != want {
		t.Errorf("with one of three found %v, want %s", err, want)
	}
	sentinels[1].Signal(t, syscall.SIGCONT)
	harness.Eventually(t, "the one that hung answers", func() error {
		if got := summary(s.Find(t.Context())); got != roles(promoted, rest...) {
			return errors.New(got)
		}
		return nil
	})
}

// TestSentinelMistakes has Sentinels and servers that do not fit the configuration. Each error says what to do.
func TestSentinelMistakes(t *testing.T) {
	t.Parallel()
	redis := harness.StartRedis(t)
	plain := harness.StartSentinel(t, harness.SentinelConfig(t, redis.Address))
	locked := harness.StartSentinel(t, harness.SentinelConfig(t, redis.Address, "requirepass secret",
		"user watcher on >other +auth +ping +subscribe +sentinel|get-master-addr-by-name +sentinel|master "+
			"+sentinel|replicas +sentinel|masters allchannels"))
	certificate, key, trusting := certificateFiles(t)
	secure := harness.StartSecureSentinel(t, harness.SentinelConfig(t, redis.Address), certificate, key)
	good := "primary " + redis.Address
	for _, tt := range []struct {
		name     string
		endpoint string
		options  SentinelOptions
		want     string // after the endpoint; good: no error
		kind     error
	}{
		{"well", plain.Address, SentinelOptions{}, good, nil},
		{"another name", plain.Address, SentinelOptions{Master: "other"}, `no such master: it watches "mymaster"`,
			ErrNoSuchMaster},
		{"no Sentinel", redis.Address, SentinelOptions{},
			"not a Sentinel: it does not know the command SENTINEL, as an ordinary Redis server", ErrNoSentinel},
		{"no password", locked.Address, SentinelOptions{},
			"the login is refused: the Sentinel wants a login: needs password_file", ErrLogin},
		{"another password", locked.Address, SentinelOptions{Password: "wrong"},
			"the login is refused: wrong user or password", ErrLogin},
		{"the password", locked.Address, SentinelOptions{Password: "secret"}, good, nil},
		{"a user", locked.Address, SentinelOptions{User: "watcher", Password: "other"}, good, nil},
		{"a password that is not wanted", plain.Address, SentinelOptions{Password: "secret"},
			"the login is refused: the Sentinel has no password, so password_file must not be there", ErrLogin},
		{"TLS", secure.Address, SentinelOptions{TLS: trusting("")}, good, nil},
		{"TLS with another name", secure.Address, SentinelOptions{TLS: trusting("other.internal")},
			`no TLS connection: its certificate is not for "other.internal": set server_name to a name that the certificate has`,
			ErrTLS},
		{"plain to TLS", secure.Address, SentinelOptions{},
			"no answer: it closed the connection; if it speaks TLS, it needs tls = true", ErrNoAnswer},
		{"TLS to plain", plain.Address, SentinelOptions{TLS: trusting("")},
			"no TLS connection: no answer to the handshake; if it does not speak TLS, it needs tls = false", ErrTLS},
		{"nobody", harness.FreeAddress(t), SentinelOptions{}, "no answer: connection refused", ErrNoAnswer},
		{"a host that does not exist", "nowhere.invalid:1", SentinelOptions{},
			"no answer: look up nowhere.invalid: no such host", ErrNoAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.options
			o.Endpoints = []string{tt.endpoint}
			if o.Master == "" {
				o.Master = harness.SentinelMaster
			}
			found, err := NewSentinel(o).Find(t.Context())
			want := tt.want
			if want != good {
				want = fmt.Sprintf("ask Sentinels for %q: %s: %s", o.Master, tt.endpoint, tt.want)
			}
			if got := summary(found, err); got != want {
				t.Errorf("found\n%s, want\n%s", got, want)
			}
			if tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Errorf("the error is not %v", tt.kind)
			}
		})
	}
}

// certificateFiles returns the paths of a certificate for 127.0.0.1 and of its key, and what returns the settings of a
// client that trusts it and asks for a name; "" is that of the endpoint.
func certificateFiles(t *testing.T) (certificate, key string, trusting func(name string) *tls.Config) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	server.Close()
	der, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	must(t, err)
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	return certificate, key, func(name string) *tls.Config { return &tls.Config{RootCAs: trusted, ServerName: name} }
}
