package main

import (
	"context"
	"fmt"
	"strings"
)

func dnsdist() contender {
	return contender{
		name:      "dnsdist",
		takes:     []traffic{trafficDNS, trafficDNSOnce, trafficDNSSingle, trafficDNSCached},
		rival:     true,
		processes: one,
		find: func(ctx context.Context, path string) (program, error) {
			p, _, err := lookUp(ctx, path, "apt-get install dnsdist", "--version")
			return p, err
		},
		config: dnsdistConfig,
		args:   func(file string, _ setup) []string { return []string{"--supervised", "--disable-syslog", "-C", file} },
	}
}

// dnsdistConfig is dnsdist as one would set it up for a plain name service, without a console or a web server.
//   - One listening socket, with a thread, for each worker (reusePort), as its tuning guide advises.
//   - The backends count as healthy (setUp), since no other contender checks them either.
//   - Many questions in one recvmmsg (setUDPMultipleMessagesVectorSize) and no record of the last ones
//     (setRingBuffersSize) were tried: 0.96 and 0.92 of its CPU per question in dns, medians of 3 rounds in which it
//     drifted by as much. They are left at their defaults.
//   - The packet cache has room for every question of the bench. Only trafficDNSCached has one.
func dnsdistConfig(_ program, s setup) string {
	var b strings.Builder
	for range s.workers {
		fmt.Fprintf(&b, "addLocal(%q, {reusePort=true})\n", s.listen)
	}
	fmt.Fprint(&b, "setACL({\"127.0.0.0/8\"})\nsetSecurityPollSuffix(\"\")\nsetServerPolicy(roundrobin)\nsetMaxUDPOutstanding(65535)\n")
	for _, a := range s.backends {
		fmt.Fprintf(&b, "newServer({address=%q}):setUp()\n", a)
	}
	b.WriteString(dnsdistLimits(s.limits))
	if s.traffic == trafficDNSCached {
		fmt.Fprintf(&b, "getPool(\"\"):setCache(newPacketCache(%d))\n", 10*questionCount)
	}
	return b.String()
}
