package test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/limeload/limeload-l4/test/harness"
)

// A certificate is a self-signed server certificate with its key.
type certificate struct {
	pair tls.Certificate
	file string // with the certificate alone
}

// makeCertificate makes a certificate for names and addresses that is in force until then.
func makeCertificate(t *testing.T, until time.Time, names ...string) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, BasicConstraintsValid: true, IsCA: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	file := filepath.Join(t.TempDir(), "cert.pem")
	check(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return certificate{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file}
}

// serveHTTP serves a handler on a free port, over TLS if there is a certificate.
func serveHTTP(t *testing.T, handler http.HandlerFunc, c *certificate) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	address := l.Addr().String()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: harness.Patience, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	if c != nil {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{c.pair}}
		l = tls.NewListener(l, server.TLSConfig)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return address
}

// A grpcHealth is the gRPC health service of "main": SERVING until ill is set.
type grpcHealth struct {
	healthpb.UnimplementedHealthServer
	ill *atomic.Bool
}

// Check answers one question.
func (h grpcHealth) Check(_ context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	switch {
	case r.Service != "main":
		return nil, status.Error(codes.NotFound, "unknown service")
	case h.ill.Load():
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// serveHealth serves grpc.health.v1 in plain.
func serveHealth(t *testing.T, ill *atomic.Bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, grpcHealth{ill: ill})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return l.Addr().String()
}

// TestChecks runs each kind of check through the binary against a server that works and then fails, or never worked:
// the log has a useful reason.
func TestChecks(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	good := makeCertificate(t, time.Now().Add(100*day), "127.0.0.1")
	expired := makeCertificate(t, time.Now().Add(-day), "127.0.0.1")
	other := makeCertificate(t, time.Now().Add(day), "other.example")
	var ill atomic.Bool
	answer := func(w http.ResponseWriter, r *http.Request) {
		if ill.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, "all is", r.URL.Path)
	}
	redis := harness.StartRedis(t)
	resolver := harness.StartDNS(t)
	resolver.SetZone(t, "db 60 IN A 10.0.0.1\n")
	script := filepath.Join(t.TempDir(), "probe")
	check(t, os.WriteFile(script, []byte("#!/bin/sh\necho $LIMELOAD_ADDRESS is asked for\ntest \"$1\" = well\n"),
		0o700))
	for _, tc := range []struct {
		name    string
		address string
		health  []string
		healthy string // part of the reason of the verdict healthy; "": never healthy
		ill     string // part of the reason of the verdict unhealthy; "": never unhealthy
	}{
		{"http", serveHTTP(t, answer, nil), []string{`type = "http"`, `path = "/well"`, `body = "all is /well"`}, "200",
			"503"},
		{"http, another body", serveHTTP(t, answer, nil), []string{`type = "http"`, `body = "nonsense"`}, "",
			"nonsense"},
		{"https", serveHTTP(t, answer, &good), []string{`type = "https"`, `ca = "` + good.file + `"`}, "200", "503"},
		{"https, unknown authority", serveHTTP(t, answer, &good), []string{`type = "https"`}, "", "certificate"},
		{"tls", serveHTTP(t, answer, &good), []string{`type = "tls"`, `ca = "` + good.file + `"`, `min_days = 30`},
			"99 days", ""},
		{"tls, soon over", serveHTTP(t, answer, &good), []string{`type = "tls"`, `ca = "` + good.file + `"`,
			`min_days = 200`}, "", "99 days"},
		{"tls, expired", serveHTTP(t, answer, &expired), []string{`type = "tls"`, `ca = "` + expired.file + `"`}, "",
			"expired"},
		{"tls, wrong name", serveHTTP(t, answer, &other), []string{`type = "tls"`, `ca = "` + other.file + `"`}, "",
			"other.example"},
		{"tls, nobody looks", serveHTTP(t, answer, &expired), []string{`type = "tls"`, `verify = false`}, "certificate",
			""},
		{"a script", redis.Address,
			[]string{`type = "tcp"`,
				`steps = [{ send = "PING\r\n" }, { expect = "+PONG" }, { send_hex = "494e464f0d0a" }, { expect_regexp = "redis_version:[0-9]+" }]`}, "", ""},
		{"a script that is not answered so", redis.Address,
			[]string{`type = "tcp"`, `steps = [{ send = "NONSENSE\r\n" }, { expect = "+PONG" }]`}, "", "step 2"},
		{"dns", resolver.Address, []string{`type = "dns"`, `query = "db.lb.test A"`}, "NOERROR", ""},
		{"dns by tcp, a name that is not there", resolver.Address, []string{`type = "dns"`, `query = "nothing.lb.test"`,
			`transport = "tcp"`}, "", "NXDOMAIN"},
		{"dns, and that is as good", resolver.Address, []string{`type = "dns"`, `query = "nothing.lb.test"`,
			`expect = ["NOERROR", "NXDOMAIN"]`}, "NXDOMAIN", ""},
		{"dns of a zone that is not its", resolver.Address, []string{`type = "dns"`, `query = "example.com AAAA"`}, "",
			"REFUSED"},
		{"udp where nobody listens", redis.Address, []string{`type = "udp"`, `payload = "hello"`}, "", "unreachable"},
		{"udp with an answer", resolver.Address,
			[]string{`type = "udp"`, `payload_hex = "abcd01000001000000000000026462026c6204746573740000010001"`,
				`answer_hex = "0a000001"`}, "answered", ""},
		{"icmp", redis.Address, []string{`type = "icmp"`}, "echo reply", ""},
		{"exec", redis.Address, []string{`type = "exec"`, `command = ["` + script + `", "well"]`}, "", ""},
		{"exec that fails", redis.Address, []string{`type = "exec"`, `command = ["` + script + `", "ill"]`}, "",
			redis.Address + " is asked for"},
		{"icmp by IPv6", "[::1]:1", []string{`type = "icmp"`}, "echo reply", ""},
		{"grpc", serveHealth(t, &ill), []string{`type = "grpc"`, `service = "main"`}, "serving", "not serving"},
		{"grpc of a service that there is not", serveHealth(t, &ill), []string{`type = "grpc"`}, "", "service unknown"},
		{"grpc of a server without the service", serveHTTP(t, answer, nil), []string{`type = "grpc"`}, "",
			"not a grpc server: content type"},
		{"grpc where there is none", redis.Address, []string{`type = "grpc"`}, "", "not http/2"},
		{"all of", redis.Address,
			[]string{`type = "all_of"`, `checks = [{ type = "tcp" }, { type = "redis", role = "primary" }]`}, "primary",
			""},
		{"all of, and one is not", redis.Address,
			[]string{`type = "all_of"`, `checks = [{ type = "tcp" }, { type = "http" }]`}, "", "check 2 of 2"},
		{"any of", redis.Address, []string{`type = "any_of"`, `checks = [{ type = "http" }, { type = "redis" }]`},
			"primary", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ill.Store(false)
			started := time.Now()
			b := world{
				Backends: []string{tc.address},
				Health: append(tc.health, `interval = "200ms"`, `fast_interval = "100ms"`, `timeout = "1s"`,
					`rise = 1`, `fall = 1`, `stale_after = "5s"`),
			}.start(t)
			if tc.healthy != "" || tc.ill == "" {
				if line := b.WaitVerdict(t, "b1", "healthy", started); !strings.Contains(line.Reason, tc.healthy) {
					t.Errorf("healthy since %q, expected %q in it", line.Reason, tc.healthy)
				}
			}
			if tc.ill == "" {
				return
			}
			ill.Store(true)
			if line := b.WaitVerdict(t, "b1", "unhealthy", started); !strings.Contains(line.Reason, tc.ill) {
				t.Errorf("unhealthy since %q, expected %q in it", line.Reason, tc.ill)
			}
		})
	}
}

// TestWhenNoneIsHealthy makes every check fail. A pool that requires a primary refuses, whatever when_none says;
// another pool with when_none = "all" tries all backends.
func TestWhenNoneIsHealthy(t *testing.T) {
	t.Parallel()
	quick := []string{`interval = "200ms"`, `fast_interval = "100ms"`, `timeout = "500ms"`, `rise = 1`, `fall = 1`}
	t.Run("replicas", func(t *testing.T) {
		master := harness.StartRedis(t)
		host, port := hostPort(t, master.Address)
		var replicas []string
		for range 2 {
			r := harness.StartRedis(t)
			r.Do(t, "replicaof", host, port)
			replicas = append(replicas, r.Address)
		}
		started := time.Now()
		b := world{
			Backends: replicas, Pool: []string{`when_none = "all"`},
			Health: append([]string{`type = "redis"`, `role = "primary"`}, quick...),
		}.start(t)
		b.WaitVerdict(t, "b1", "wrong_role", started)
		b.WaitVerdict(t, "b2", "wrong_role", started)
		for range 10 {
			_ = refusal(t, b.Address(t, "main"))
		}
		harness.Eventually(t, "ten clients are refused", func() error {
			var refused int
			for _, l := range b.Sessions() {
				if l.Reason == "no_backend" {
					refused++
				}
			}
			if refused != 10 {
				return fmt.Errorf("%d were", refused)
			}
			return nil
		})
	})
	t.Run("resolvers", func(t *testing.T) {
		var resolvers []string
		for i := range 3 { // they answer clients, but not checks
			resolvers = append(resolvers, harness.ServeUDP(t, harness.NameDatagrams(backendName(i))).Address())
		}
		started := time.Now()
		b := world{
			Backends: resolvers, Listener: []string{`protocol = "udp"`, `responses = 1`},
			Pool:   []string{`when_none = "all"`, `algorithm = "round_robin"`},
			Health: []string{`type = "dns"`, `query = "db.lb.test A"`, `timeout = "200ms"`, `fall = 1`},
		}.start(t)
		for i := range 3 {
			b.WaitVerdict(t, backendName(i), "unhealthy", started)
		}
		b.WaitLine(t, "all are tried", func(l harness.Line) bool {
			return l.Message == "no backend is healthy: all are tried"
		})
		got := map[string]int{}
		for range 30 {
			answer, err := harness.AskUDP(harness.DialUDP(t, b.Address(t, "main")), []byte("who?"))
			check(t, err)
			got[string(answer)]++
		}
		if got["b1"] != 10 || got["b2"] != 10 || got["b3"] != 10 {
			t.Errorf("flows went to %v", got)
		}
	})
	t.Run("equals", func(t *testing.T) {
		started := time.Now()
		b := world{
			Backends: addressesOf(namedBackends(t, 3)),
			Pool:     []string{`when_none = "all"`, `algorithm = "round_robin"`},
			Health:   append([]string{`type = "http"`}, quick...), // which none of them speaks
		}.start(t)
		for i := range 3 {
			b.WaitVerdict(t, backendName(i), "unhealthy", started)
		}
		b.WaitLine(t, "all are tried", func(l harness.Line) bool {
			return l.Message == "no backend is healthy: all are tried"
		})
		if got := newCaller(t, b).calls(t, 30, false); got["b1"] != 10 || got["b2"] != 10 || got["b3"] != 10 {
			t.Errorf("sessions went to %v", got)
		}
	})
}
