package main

import (
	"context"
	"fmt"
	"strings"
)

func haproxy() contender {
	return contender{
		name:      "haproxy",
		takes:     []traffic{trafficTCP},
		rival:     true,
		processes: one, // -db: no master process
		find: func(ctx context.Context, path string) (program, error) {
			p, _, err := lookUp(ctx, path, "apt-get install haproxy", "-v")
			return p, err
		},
		config: haproxyConfig,
		args:   func(file string, _ setup) []string { return []string{"-db", "-f", file} },
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
	fmt.Fprintf(&b, "listen bench\n    bind %s backlog %d\n    balance roundrobin\n", s.listen, listenBacklog)
	for i, a := range s.backends {
		fmt.Fprintf(&b, "    server b%d %s\n", i+1, a)
	}
	return b.String()
}

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
