package main

import (
	"context"
	"fmt"
	"strings"
)

func haproxy() contender {
	return contender{
		name:      "haproxy",
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
//   - tune.pipesize: limeload-l4 splices through pipes of 256 KiB, so HAProxy gets
//     them too. With the default of 64 KiB it used 450 ms of CPU per GB in
//     bulk8-out where it uses 280 ms with this (medians of 6 alternating runs).
//   - One listening socket, which its threads share by load
//     (tune.listener.multi-queue, on by default).
//   - HAProxy reserves two descriptors for each of maxconn and maxpipes and does
//     not start when the limit is lower.
func haproxyConfig(_ program, s setup) string {
	var b strings.Builder
	maxconn := (s.descriptors - 2*haproxyPipes - haproxyReserve) / 2
	fmt.Fprintf(&b, "global\n    nbthread %d\n    maxconn %d\n    maxpipes %d\n    tune.pipesize %d\n\n",
		s.workers, maxconn, haproxyPipes, 256<<10)
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
	// haproxyPipes is far more than the bulk streams need. The default is a quarter
	// of maxconn, which would cost a fifth of the sessions that descriptors allow.
	haproxyPipes = 256

	haproxyReserve = 200 // descriptors for listeners, epoll and the like
)

// listenBacklog is the queue of connections to accept that every balancer asks
// for: limeload-l4's default, and what net.core.somaxconn allows on Linux.
const listenBacklog = 4096
