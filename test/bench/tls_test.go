package main

import (
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Every scenario of TLS, with this test binary as the balancer.
func TestTLSBalancer(t *testing.T) {
	t.Parallel()
	b := relayBench(t, "-only tls -rounds 1 -duration 50ms -warmup 20ms -idle 100", "")
	b.ports.next = 30_000 // as in runBench
	all, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := len(tlsScenarios()); len(all) != want {
		t.Errorf("%d measurements, want %d", len(all), want)
	}
	for _, m := range all {
		if m.Error != "" {
			t.Errorf("%s: %s", m.Scenario, m.Error)
			continue
		}
		if m.CPUPerUnit <= 0 || m.Rate <= 0 || m.ClientCPU <= 0 || m.BackendCPU <= 0 {
			t.Errorf("%s: %+v", m.Scenario, m)
		}
		want := map[string]string{
			"tls-resume-ecdsa":      "TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, resumed",
			"tls12-handshake-ecdsa": "TLS 1.2, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, X25519, full",
			"tls12-handshake-rsa":   "TLS 1.2, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, X25519, full",
			"tls12-resume-ecdsa":    "TLS 1.2, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, X25519, resumed",
		}[m.Scenario]
		if want == "" {
			want = "TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, full"
		}
		if m.TLS != want {
			t.Errorf("%s: negotiated %q, want %q", m.Scenario, m.TLS, want)
		}
		if i := m.Idle; (i != nil) != (m.Scenario == "tls-idle") || i != nil && i.DescriptorsPerSession != 2 {
			t.Errorf("%s: idle figures %+v, want 2 descriptors per session", m.Scenario, i)
		}
	}
}

// A balancer that breaks sessions, does not terminate TLS or resumes nothing is a failed measurement that says why.
func TestBadTLSBalancer(t *testing.T) {
	for _, c := range []struct{ fault, only, want string }{
		{"cut", "tls-request64", ": handshake: "},
		{"cut", "tls-idle", ": handshake: "},
		{"no tickets", "tls-resume-ecdsa", "handshake is resumed: false, want true"},
	} {
		t.Run(c.fault+" "+c.only, func(t *testing.T) {
			b := relayBench(t, "-rounds 1 -duration 50ms -warmup 20ms -idle 10 -only "+c.only, c.fault)
			all, err := b.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(all) != 1 || !strings.Contains(all[0].Error, c.want) {
				t.Errorf("measured %+v, want one error with %q", all, c.want)
			}
		})
	}
}

// What the real ones negotiate, and pgbench beside a flood.
func TestTLSPeers(t *testing.T) {
	t.Parallel()
	o, err := parseOptions(strings.Fields("-contenders haproxy,nginx -rounds 1 -duration 100ms -warmup 20ms -tls-aes128 "+
		"-only tls-resume-ecdsa,tls12-resume-ecdsa,pgbench"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	all := runBench(t, o, 26_000)
	if len(all) != 10 {
		t.Errorf("%d measurements, want 10", len(all))
	}
	for _, m := range all {
		want := map[string]string{
			"tls-resume-ecdsa":   "TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, resumed",
			"tls12-resume-ecdsa": "TLS 1.2, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, X25519, resumed",
		}[m.Scenario]
		flooded := m.Scenario == "pgbench-beside-flood"
		if m.Error != "" || m.P99 <= 0 || m.TLS != want || (m.Handshakes > 0) != flooded ||
			(m.CPUPerUnit > 0) == flooded {
			t.Errorf("%s, %s: %+v", m.Contender, m.Scenario, m)
		}
	}
}

// The programs themselves check the configurations for every kind of traffic.
func TestConfigsAreValid(t *testing.T) {
	dir := t.TempDir()
	certificates, err := writeCertificates(dir)
	if err != nil {
		t.Fatal(err)
	}
	certificates[trafficPostgres] = certificates[trafficFlood]
	for _, c := range []struct {
		contender contender
		path      string
		args      []string
	}{
		{haproxy(), "haproxy", []string{"-c", "-f"}},
		{nginx(), "nginx", []string{"-p", dir, "-e", "stderr", "-t", "-c"}},
	} {
		p, err := c.contender.find(t.Context(), c.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, traffic := range c.contender.takes {
			for _, aes128 := range []bool{false, true} {
				s := tlsSetup(traffic)
				s.dir, s.aes128, s.certificate = dir, aes128, certificates[traffic]
				file := filepath.Join(dir, c.path+".conf")
				text := c.contender.config(p, s)
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.CommandContext(t.Context(), p.path, append(c.args, file)...).CombinedOutput()
				if err != nil || strings.Contains(string(out), "[WARNING]") || strings.Contains(string(out), "[warn]") {
					t.Errorf("%s, %s: %v: %s\n%s", c.path, traffic, err, out, text)
				}
			}
		}
	}
}

func tlsSetup(t traffic) setup {
	s := testSetup()
	s.traffic = t
	s.certificate = certificate{cert: "/c/a.crt", key: "/c/a.key", both: "/c/a.pem"}
	if t == trafficPostgres {
		s.flood, s.floodBackends = netip.MustParseAddrPort("127.0.0.1:21001"), s.backends[1:]
	}
	return s
}

// The parts of the configurations that are about TLS.
func TestTLSConfigs(t *testing.T) {
	for _, c := range []struct {
		name    string
		config  func(program, setup) string
		traffic traffic
		aes128  bool
		want    string // from the listener on
	}{
		{"limeload-l4", limeloadConfig, trafficTLSRSA, true, `[listener.bench]
address = "127.0.0.1:21000"
pool = "bench"

[listener.bench.tls]
certificates = [{ cert = "/c/a.crt", key = "/c/a.key" }]

[pool.bench]
algorithm = "round_robin"
backends = [
  { address = "127.0.0.1:40001" },
  { address = "127.0.0.1:40002" },
]
`},
		{"limeload-l4", limeloadConfig, trafficPostgres, false, `[listener.bench]
address = "127.0.0.1:21000"
pool = "bench"

[pool.bench]
algorithm = "round_robin"
backends = [
  { address = "127.0.0.1:40001" },
  { address = "127.0.0.1:40002" },
]

[listener.flood]
address = "127.0.0.1:21001"
pool = "flood"

[listener.flood.tls]
certificates = [{ cert = "/c/a.crt", key = "/c/a.key" }]

[pool.flood]
algorithm = "round_robin"
backends = [
  { address = "127.0.0.1:40002" },
]
`},
		{"haproxy", haproxyConfig, trafficTLSECDSA, false, `listen bench
    bind 127.0.0.1:21000 backlog 4096 ssl crt /c/a.pem
    balance roundrobin
    server b1 127.0.0.1:40001
    server b2 127.0.0.1:40002
`},
		{"haproxy", haproxyConfig, trafficPostgres, true, `listen bench
    bind 127.0.0.1:21000 backlog 4096
    balance roundrobin
    server b1 127.0.0.1:40001
    server b2 127.0.0.1:40002

listen flood
    bind 127.0.0.1:21001 backlog 4096 ssl crt /c/a.pem ciphers ` +
			`ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256 ciphersuites TLS_AES_128_GCM_SHA256
    balance roundrobin
    server b1 127.0.0.1:40002
`},
		{"nginx", nginxConfig, trafficTLSECDSA, true, `listen 127.0.0.1:21000 ssl reuseport backlog=4096;
        ssl_certificate /c/a.crt;
        ssl_certificate_key /c/a.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        tcp_nodelay on;
        proxy_half_close on;
        proxy_buffer_size 16k;
        proxy_connect_timeout 5s;
        proxy_timeout 1h;
        proxy_pass bench;
    }
}
`},
		{"nginx", nginxConfig, trafficPostgres, false, `listen 127.0.0.1:21000 reuseport backlog=4096;
        tcp_nodelay on;
        proxy_half_close on;
        proxy_buffer_size 16k;
        proxy_connect_timeout 5s;
        proxy_timeout 1h;
        proxy_pass bench;
    }
    upstream flood {
        server 127.0.0.1:40002;
    }
    server {
        listen 127.0.0.1:21001 ssl reuseport backlog=4096;
        ssl_certificate /c/a.crt;
        ssl_certificate_key /c/a.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        tcp_nodelay on;
        proxy_half_close on;
        proxy_buffer_size 16k;
        proxy_connect_timeout 5s;
        proxy_timeout 1h;
        proxy_pass flood;
    }
}
`},
	} {
		s := tlsSetup(c.traffic)
		s.aes128 = c.aes128
		got := c.config(program{}, s)
		first, _, _ := strings.Cut(c.want, "\n")
		if at := strings.Index(got, first); at >= 0 {
			got = got[at:]
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", c.name, c.traffic, diff)
		}
	}
}

func TestPGBenchLog(t *testing.T) {
	got, err := parsePGBenchLog("0 1 351 0 1669000000 123 17\n3 2 1024 0 1669000000 456 0\n", span{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]time.Duration{351 * time.Microsecond, 1024 * time.Microsecond}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"0 1 351\n", "0 1 failed 0 1669000000 123 17\n"} {
		if _, err := parsePGBenchLog(bad, span{}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestPGBenchArgs(t *testing.T) {
	targets := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:21000"), netip.MustParseAddrPort("127.0.0.1:21001")}
	p, err := newPGBench(program{path: "pgbench"}, job{Connections: 8, Rate: 300, Targets: targets}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want := "--host 127.0.0.1 --port 21000 --username limeload --no-vacuum --select-only --protocol prepared --client 8 " +
		"--jobs 1 --time 2 --log --log-prefix /l/x --rate 300 postgres"
	if got := strings.Join(p.args(1100*time.Millisecond, "/l/x"), " "); got != want {
		t.Errorf("arguments %q, want %q", got, want)
	}
	p.job.Rate = 0
	want = strings.Replace(want, "--rate 300", "--sampling-rate 0.05", 1)
	if got := strings.Join(p.args(1100*time.Millisecond, "/l/x"), " "); got != want {
		t.Errorf("arguments without a rate %q, want %q", got, want)
	}
	for _, j := range []job{{}, {Flooders: 1, Targets: targets[:1]}} {
		if _, err := newPGBench(program{}, j, t.TempDir()); err == nil {
			t.Errorf("%d listeners and %d flooders are taken", len(j.Targets), j.Flooders)
		}
	}
}

func TestParsePGBench(t *testing.T) {
	text := "transaction type: <builtin: select only>\nnumber of transactions actually processed: 31234\n" +
		"number of failed transactions: 0 (0.000%)\n"
	if n, err := parsePGBench([]byte(text)); n != 31234 || err != nil {
		t.Errorf("%d transactions, %v", n, err)
	}
	if _, err := parsePGBench([]byte("pgbench: fatal: no")); err == nil {
		t.Error("an output without the number is taken")
	}
}

func TestPostgresVersion(t *testing.T) {
	for path, want := range map[string]int{"/usr/lib/postgresql/15/bin/pgbench": 15, "/usr/bin/pgbench": 0} {
		if got := postgresVersion(path); got != want {
			t.Errorf("version in %s is %d, want %d", path, got, want)
		}
	}
}
