package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

func haproxy() contender {
	return contender{
		name: "haproxy",
		takes: []traffic{trafficTCP, trafficTLSECDSA, trafficTLSRSA, trafficPostgres, trafficPostgresOne,
			trafficRedis},
		rival:     true,
		processes: one, // -db: no master process
		reload:    syscall.SIGUSR2,
		find: func(ctx context.Context, path string) (program, error) {
			p, _, err := lookUp(ctx, path, "apt-get install haproxy", "-v")
			return p, err
		},
		config: haproxyConfig,
		args: func(file string, s setup) []string {
			if s.reloads {
				return []string{"-W", "-f", file} // a master process, which hands over the sockets to a new worker
			}
			return []string{"-db", "-f", file}
		},
	}
}

// haproxyConfig is HAProxy as one would set it up for plain TCP, without a log.
//   - TCP_NODELAY: in mode tcp HAProxy sets it on both sides itself.
//   - splice-request and splice-response make it splice, which strace -c on its
//     threads confirms in bulk (2.6.12: splice(2) and epoll_wait and hardly
//     anything else). splice-auto alone was seen not to engage.
//   - tune.pipesize 256 KiB, where the default is the kernel's 64 KiB: with that it
//     used 450 ms of CPU per GB in bulk8-out where it uses 280 ms with this (medians
//     of 6 alternating runs). The size is a choice of each program's; limeload-l4's
//     is 1 MiB. Given as much, HAProxy draws level with it in bulk: 0.92 to 1.08 of
//     its CPU per GB over the four bulk scenarios (medians of 7).
//   - One listening socket, which its threads share by load
//     (tune.listener.multi-queue, on by default).
//   - TLS has its defaults: TLS 1.2 and 1.3, and its own order of ciphers, in which AES-256-GCM comes first; see
//     setup.aes128. It cannot splice what it encrypts.
//   - HAProxy reserves two descriptors for each of maxconn and maxpipes and does
//     not start when the limit is lower.
func haproxyConfig(_ program, s setup) string {
	var b strings.Builder
	maxconn := (s.descriptors - 2*haproxyPipes - haproxyReserve) / 2
	fmt.Fprintf(&b, "global\n    nbthread %d\n    maxconn %d\n    maxpipes %d\n    tune.pipesize %d\n\n",
		s.workers, maxconn, haproxyPipes, haproxyPipeBytes)
	fmt.Fprintf(&b, `defaults
    mode tcp
    no log
    maxconn %d
    option splice-request
    option splice-response
    timeout connect 5s
    timeout client 1h
    timeout server 1h

`, maxconn)
	tls := haproxyTLS(s)
	if s.traffic.tls() {
		haproxyListen(&b, "bench", s.listen, tls, s.backends)
	} else {
		haproxyListen(&b, "bench", s.listen, "", s.backends)
		b.WriteString(haproxyLimits(s.limits))
	}
	if s.extra.IsValid() {
		fmt.Fprintln(&b)
		haproxyListen(&b, "extra", s.extra, "", s.backends)
	}
	if s.traffic == trafficPostgres {
		fmt.Fprintln(&b)
		haproxyListen(&b, "flood", s.flood, tls, s.floodBackends)
	}
	return b.String()
}

func haproxyListen(b *strings.Builder, name string, listen netip.AddrPort, bind string, backends []netip.AddrPort) {
	fmt.Fprintf(b, "listen %s\n    bind %s backlog %d%s\n    balance roundrobin\n", name, listen, listenBacklog, bind)
	for i, a := range backends {
		fmt.Fprintf(b, "    server b%d %s\n", i+1, a)
	}
}

// haproxyTLS returns what a bind line has to terminate TLS.
func haproxyTLS(s setup) string {
	text := " ssl crt " + s.certificate.both
	if s.aes128 {
		text += " ciphers " + aes128Ciphers + " ciphersuites " + aes128Suite
	}
	return text
}

// AES-128-GCM alone, in OpenSSL's names for TLS 1.2 and 1.3.
const (
	aes128Ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
	aes128Suite   = "TLS_AES_128_GCM_SHA256"
)

const (
	haproxyPipeBytes = 256 << 10 // see haproxyConfig

	// haproxyPipes is far more than the bulk streams need. The default is a quarter
	// of maxconn, which would cost a fifth of the sessions that descriptors allow.
	haproxyPipes = 256

	haproxyReserve = 200 // descriptors for listeners, epoll and the like
)

// listenBacklog is the queue of connections to accept that every balancer asks
// for: limeload-l4's default, and what net.core.somaxconn allows on Linux.
const listenBacklog = 4096
