package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testSetup() setup {
	return setup{
		traffic: trafficTCP,
		listen:  netip.MustParseAddrPort("127.0.0.1:21000"),
		backends: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:40001"),
			netip.MustParseAddrPort("127.0.0.1:40002")},
		workers:     2,
		descriptors: 20_000,
		dir:         "/tmp/b",
	}
}

func TestLimeloadConfig(t *testing.T) {
	want := `[global]
workers = 2
drain_timeout = "1s"

[log]
level = "warn"
access = false

[listener.bench]
address = "127.0.0.1:21000"
pool = "bench"

[pool.bench]
algorithm = "round_robin"
backends = [
  { address = "127.0.0.1:40001" },
  { address = "127.0.0.1:40002" },
]
`
	if diff := cmp.Diff(want, limeloadConfig(program{}, testSetup())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What scenarios ask for besides.
func TestOwnSettings(t *testing.T) {
	s := testSetup()
	s.feature = feature{Proxy: true, Log: true, Fleet: true, Congestion: true}
	s.etcd = netip.MustParseAddrPort("127.0.0.1:2379")
	s.extra = netip.MustParseAddrPort("127.0.0.1:21001")
	s.limits = limitation{ClientSessions: 4, Over: "reset"}
	s.reloads = true
	for _, c := range []struct {
		config func(program, setup) string
		has    []string
	}{
		{limeloadConfig, []string{
			"]\ncongestion_control = \"" + congestionControl() + "\"\nsend_proxy = \"v2\"\n",
			"[log]\nlevel = \"info\"\naccess = true\n", "client_sessions = 4\n",
			"[fleet]\nname = \"bench\"\nnode = \"bench\"\nendpoints = [\"http://127.0.0.1:2379\"]\n",
			"[listener.extra]\naddress = \"127.0.0.1:21001\"\npool = \"bench\"\n",
		}},
		{haproxyConfig, []string{
			"listen extra\n    bind 127.0.0.1:21001", "tcp-request connection reject if { sc0_conn_cur gt 4 }\n",
		}},
		{nginxConfig, []string{
			"listen 127.0.0.1:21001 reuseport", "limit_conn_zone $binary_remote_addr zone=clients:10m;",
			"limit_conn clients 4;",
		}},
	} {
		got := c.config(program{}, s)
		for _, want := range c.has {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	}
	if got := haproxy().args("f", s); strings.Join(got, " ") != "-W -f f" {
		t.Errorf("HAProxy that reloads is run with %q", got)
	}
}

func TestHAProxyConfig(t *testing.T) {
	want := `global
    nbthread 2
    maxconn 9644
    maxpipes 256
    tune.pipesize 262144

defaults
    mode tcp
    no log
    maxconn 9644
    option splice-request
    option splice-response
    timeout connect 5s
    timeout client 1h
    timeout server 1h

listen bench
    bind 127.0.0.1:21000 backlog 4096
    balance roundrobin
    server b1 127.0.0.1:40001
    server b2 127.0.0.1:40002
`
	if diff := cmp.Diff(want, haproxyConfig(program{}, testSetup())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNginxConfig(t *testing.T) {
	want := `load_module /m/ngx_stream_module.so;
daemon off;
pid /tmp/b/nginx.pid;
worker_processes 2;
worker_rlimit_nofile 20000;
error_log stderr warn;
events {
    worker_connections 19900;
}
stream {
    access_log off;
    upstream bench {
        server 127.0.0.1:40001;
        server 127.0.0.1:40002;
    }
    server {
        listen 127.0.0.1:21000 reuseport backlog=4096;
        tcp_nodelay on;
        proxy_half_close on;
        proxy_buffer_size 16k;
        proxy_connect_timeout 5s;
        proxy_timeout 1h;
        proxy_pass bench;
    }
}
`
	if diff := cmp.Diff(want, nginxConfig(program{module: "/m/ngx_stream_module.so"}, testSetup())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := nginxConfig(program{}, testSetup()); strings.Contains(got, "load_module") {
		t.Errorf("a built-in module is loaded:\n%s", got)
	}
}

// The parts of the configurations that differ by UDP.
func TestUDPConfigs(t *testing.T) {
	for _, c := range []struct {
		name        string
		config      func(program, setup) string
		traffic     traffic
		has, hasNot string
	}{
		{"limeload-l4", limeloadConfig, trafficTCP, "pool = \"bench\"\n\n[pool", "udp"},
		{"limeload-l4", limeloadConfig, trafficDNS, "pool = \"bench\"\nprotocol = \"udp\"\n\n[pool", "responses"},
		{"limeload-l4", limeloadConfig, trafficDNSOnce, "protocol = \"udp\"\nresponses = 1\n\n[pool", "flow_key"},
		{"limeload-l4", limeloadConfig, trafficDNSSingle, "protocol = \"udp\"\nprofile = \"dns\"\n\n[pool", "cache"},
		{"limeload-l4", limeloadConfig, trafficDNSCached, "profile = \"dns\"\ncache = { max_entries = 10000 }\n\n[pool",
			"responses"},
		{"limeload-l4", limeloadConfig, trafficTrains, "protocol = \"udp\"\n\n[pool", "responses"},
		{"nginx", nginxConfig, trafficDNS,
			"listen 127.0.0.1:21000 udp reuseport rcvbuf=4m;\n        proxy_timeout 30s;", "proxy_responses"},
		{"nginx", nginxConfig, trafficDNSOnce, "rcvbuf=4m;\n        proxy_responses 1;\n        proxy_timeout 30s;",
			"tcp_nodelay"},
		{"nginx", nginxConfig, trafficDNSSingle, "proxy_responses 1;", "tcp_nodelay"},
		{"nginx", nginxConfig, trafficTCP, "tcp_nodelay on", "udp"},
		{"dnsdist", dnsdistConfig, trafficDNS,
			"reusePort=true})\naddLocal(\"127.0.0.1:21000\", {reusePort=true})\nsetACL", "Cache"},
		{"dnsdist", dnsdistConfig, trafficDNSCached,
			"newServer({address=\"127.0.0.1:40002\"}):setUp()\ngetPool(\"\"):setCache(newPacketCache(10000))\n",
			"nothing"},
	} {
		s := testSetup()
		s.traffic = c.traffic
		got := c.config(program{}, s)
		if !strings.Contains(got, c.has) || strings.Contains(got, c.hasNot) {
			t.Errorf("%s, %s: want %q and not %q in\n%s", c.name, c.traffic, c.has, c.hasNot, got)
		}
		if strings.Count(got, "{") != strings.Count(got, "}") {
			t.Errorf("%s, %s: braces do not match in\n%s", c.name, c.traffic, got)
		}
	}
}

// Who takes part where: nobody is measured at what it cannot do.
func TestWhoDoesWhat(t *testing.T) {
	want := map[string]string{
		"request64":  "limeload-l4 before haproxy nginx direct",
		"idle":       "limeload-l4 before haproxy nginx",
		"dns":        "limeload-l4 before nginx dnsdist direct",
		"dns-once":   "limeload-l4 before nginx dnsdist",
		"dns-single": "limeload-l4 before nginx dnsdist direct",
		"dns-paced":  "limeload-l4 before nginx dnsdist direct",
		"dns-cached": "limeload-l4 before dnsdist",
		"trains-in":  "limeload-l4 before nginx direct",

		"tls-handshake-rsa": "limeload-l4 before haproxy nginx",
		"tls-idle":          "limeload-l4 before haproxy nginx",
		"pgbench-alone":     "limeload-l4 before haproxy nginx",
	}
	for _, s := range scenarios() {
		var who []string
		for _, c := range contenders() {
			if c.does(s) {
				who = append(who, c.name)
			}
		}
		if list, ok := want[s.name]; ok && list != strings.Join(who, " ") {
			t.Errorf("%s is for %q, want %q", s.name, who, list)
		}
	}
}

func TestStreamModule(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ngx_stream_module.so")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		output string
		want   string
		err    string
	}{
		{"configure arguments: --modules-path=" + dir + " --with-stream=dynamic --with-stream_ssl_module", file, ""},
		{"configure arguments: --with-stream --with-threads", "", ""},
		{"configure arguments: --with-stream_ssl_module", "", "without the stream module"},
		{"configure arguments: --modules-path=/nowhere --with-stream=dynamic", "",
			"apt-get install libnginx-mod-stream"},
	} {
		got, err := streamModule(c.output)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("streamModule(%q) = %q, %v, want %q, %q", c.output, got, err, c.want, c.err)
		}
	}
}

func TestMissingProgramSaysWhatToInstall(t *testing.T) {
	for _, c := range []struct {
		contender contender
		want      string
	}{
		{haproxy(), "apt-get install haproxy"},
		{nginx(), "apt-get install nginx-core libnginx-mod-stream"},
		{dnsdist(), "apt-get install dnsdist"},
		{limeload(), "make build"},
	} {
		for _, path := range []string{"no-such-program", "/no/such/program"} {
			_, err := c.contender.find(t.Context(), path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s at %s: error %v, want %q in it", c.contender.name, path, err, c.want)
			}
		}
	}
}
