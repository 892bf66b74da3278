package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func nginx() contender {
	return contender{
		name: "nginx",
		takes: []traffic{trafficTCP, trafficDNS, trafficDNSOnce, trafficDNSSingle, trafficTrains, trafficTLSECDSA,
			trafficTLSRSA, trafficPostgres, trafficPostgresOne, trafficRedis, trafficMeter},
		rival:     true,
		reload:    syscall.SIGHUP,
		processes: func(workers int) int { return 1 + workers },
		find:      findNginx,
		config:    nginxConfig,
		args: func(file string, s setup) []string {
			return []string{"-p", s.dir, "-e", "stderr", "-c", file}
		},
	}
}

func findNginx(ctx context.Context, path string) (program, error) {
	p, out, err := lookUp(ctx, path, "apt-get install nginx-core libnginx-mod-stream", "-V")
	if err != nil {
		return program{}, err
	}
	p.module, err = streamModule(out)
	return p, err
}

// streamModule reads from the output of nginx -V where the stream module is; it
// returns "" when it is built in. Debian builds it as a module of its own package.
func streamModule(output string) (string, error) {
	dir := "modules"
	var builtIn, dynamic bool
	for _, f := range strings.Fields(output) {
		switch {
		case f == "--with-stream":
			builtIn = true
		case f == "--with-stream=dynamic":
			dynamic = true
		case strings.HasPrefix(f, "--modules-path="):
			dir = strings.TrimPrefix(f, "--modules-path=")
		}
	}
	switch {
	case builtIn:
		return "", nil
	case !dynamic:
		return "", fmt.Errorf("this nginx is built without the stream module: apt-get install nginx-core " +
			"libnginx-mod-stream")
	}
	file := filepath.Join(dir, "ngx_stream_module.so")
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("nginx's stream module is not there: apt-get install libnginx-mod-stream: %w", err)
	}
	return file, nil
}

// nginxConfig is nginx stream as one would set it up for plain TCP, without a log.
//   - reuseport: each worker has its own listening socket.
//   - tcp_nodelay is for both sides, and the default.
//   - proxy_half_close: a client's FIN passes on as a FIN and its answer is
//     awaited, as limeload-l4 and HAProxy do. Without it nginx closes both sides
//     at the first FIN, which cuts the answer of a client that half-closes.
//   - proxy_buffer_size is the default, stated; stream has no splice.
//   - worker_connections counts both sides of a session. nginx allocates all of
//     them when it starts (about 0.4 KiB each), so they are in its memory before
//     the first session and not in the memory per session.
func nginxConfig(p program, s setup) string {
	var b strings.Builder
	if p.module != "" {
		fmt.Fprintf(&b, "load_module %s;\n", p.module)
	}
	fmt.Fprintf(&b, "daemon off;\npid %s;\n", filepath.Join(s.dir, "nginx.pid"))
	fmt.Fprintf(&b, "worker_processes %d;\nworker_rlimit_nofile %d;\n", s.workers, s.descriptors)
	fmt.Fprintf(&b, "error_log stderr warn;\nevents {\n    worker_connections %d;\n}\n", s.descriptors-100)
	fmt.Fprint(&b, "stream {\n    access_log off;\n")
	b.WriteString(nginxZone(s.limits))
	nginxUpstream(&b, "bench", s.backends)
	switch {
	case s.traffic.udp():
		b.WriteString(nginxUDPServer(s))
	case s.traffic.tls():
		nginxServer(&b, "bench", s.listen, nginxTLS(s), "")
	default:
		nginxServer(&b, "bench", s.listen, "", nginxLimits(s.limits))
	}
	if s.extra.IsValid() {
		nginxServer(&b, "bench", s.extra, "", "")
	}
	if s.traffic == trafficPostgres {
		nginxUpstream(&b, "flood", s.floodBackends)
		nginxServer(&b, "flood", s.flood, nginxTLS(s), "")
	}
	fmt.Fprintln(&b, "}")
	return b.String()
}

func nginxUpstream(b *strings.Builder, name string, backends []netip.AddrPort) {
	fmt.Fprintf(b, "    upstream %s {\n", name)
	for _, a := range backends {
		fmt.Fprintf(b, "        server %s;\n", a)
	}
	fmt.Fprint(b, "    }\n")
}

// nginxServer writes the server of a TCP listener, which terminates TLS if tls is not empty. limits are its directives
// about them.
func nginxServer(b *strings.Builder, pool string, listen netip.AddrPort, tls, limits string) {
	ssl := ""
	if tls != "" {
		ssl = " ssl"
	}
	fmt.Fprintf(b, `    server {
        listen %s%s reuseport backlog=%d;
%s%s        tcp_nodelay on;
        proxy_half_close on;
        proxy_buffer_size 16k;
        proxy_connect_timeout 5s;
        proxy_timeout 1h;
        proxy_pass %s;
    }
`, listen, ssl, listenBacklog, tls, limits, pool)
}

// nginxTLS returns the directives of a server that terminates TLS, as one would set it up.
//   - ssl_protocols: the default of this version is without TLS 1.3 and with 1.0.
//   - Which cipher is chosen has its default: the client's order counts; see setup.aes128.
//   - Sessions resume by tickets alone, whose key the workers share. There is no cache by default.
func nginxTLS(s setup) string {
	text := fmt.Sprintf(`        ssl_certificate %s;
        ssl_certificate_key %s;
        ssl_protocols TLSv1.2 TLSv1.3;
`, s.certificate.cert, s.certificate.key)
	if s.aes128 {
		text += fmt.Sprintf("        ssl_ciphers %s;\n        ssl_conf_command Ciphersuites %s;\n", aes128Ciphers,
			aes128Suite)
	}
	return text
}

// nginxUDPServer is the server of nginx stream as one would set it up for UDP.
//   - proxy_responses: a session ends with the only answer, as its documentation advises for DNS. Without it a session,
//     and its socket to the backend, are kept until proxy_timeout, which is limeload-l4's default here.
//   - rcvbuf is limeload-l4's default: with the kernel's default, nginx loses bursts that others receive.
func nginxUDPServer(s setup) string {
	responses := ""
	if s.traffic == trafficDNSOnce || s.traffic == trafficDNSSingle {
		responses = "        proxy_responses 1;\n"
	}
	return fmt.Sprintf(`    server {
        listen %s udp reuseport rcvbuf=4m;
%s%s        proxy_timeout 30s;
        proxy_pass bench;
    }
`, s.listen, responses, nginxLimits(s.limits))
}
