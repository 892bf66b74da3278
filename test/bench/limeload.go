package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

func limeload() contender {
	return contender{
		name: "limeload-l4",
		takes: []traffic{trafficTCP, trafficDNS, trafficDNSOnce, trafficDNSSingle, trafficDNSCached, trafficTrains,
			trafficTrainsOnce, trafficTLSECDSA, trafficTLSRSA, trafficPostgres, trafficPostgresOne, trafficRedis,
			trafficMeter},
		processes: one,
		reload:    syscall.SIGHUP,
		find: func(ctx context.Context, path string) (program, error) {
			p, _, err := lookUp(ctx, path, "build it with `make build` or name it with -limeload", "version")
			return p, err
		},
		config: limeloadConfig,
		args:   func(file string, _ setup) []string { return []string{"--config", file} },
	}
}

// before returns the contender for an earlier limeload-l4, to compare with in the same run: between two runs a machine
// drifts by more than most changes make.
func before() contender {
	c := limeload()
	c.name, c.rival = nameBefore, true
	return c
}

const nameBefore = "before"

// limeloadConfig sets only what fairness requires: the number of loops, no log, and round robin like the others.
// Everything else has its default. TLS 1.2 and 1.3 are the default, and so is AES-128-GCM where the client's hardware
// has AES; there is no setting for ciphers.
func limeloadConfig(_ program, s setup) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[global]\nworkers = %d\ndrain_timeout = \"1s\"\n\n", s.workers)
	if s.feature.Log {
		fmt.Fprint(&b, "[log]\nlevel = \"info\"\naccess = true\n\n")
	} else {
		fmt.Fprint(&b, "[log]\nlevel = \"warn\"\naccess = false\n\n")
	}
	if s.feature.Fleet {
		fmt.Fprintf(&b, "[fleet]\nname = \"bench\"\nnode = \"bench\"\nendpoints = [\"http://%s\"]\n\n", s.etcd)
	}
	fmt.Fprintf(&b, "[listener.bench]\naddress = \"%s\"\npool = \"bench\"\n", s.listen)
	if s.traffic.udp() {
		fmt.Fprint(&b, "protocol = \"udp\"\n")
	}
	switch s.traffic {
	case trafficDNSOnce, trafficTrainsOnce:
		fmt.Fprint(&b, "responses = 1\n")
	case trafficDNSSingle:
		fmt.Fprint(&b, "profile = \"dns\"\n")
	case trafficDNSCached:
		fmt.Fprintf(&b, "profile = \"dns\"\ncache = { max_entries = %d }\n", 10*questionCount)
	}
	congestion := ""
	if s.feature.Congestion {
		congestion = fmt.Sprintf("congestion_control = \"%s\"\n", congestionControl())
	}
	b.WriteString(congestion)
	fmt.Fprintln(&b)
	b.WriteString(limeloadLimits("bench", s))
	if s.traffic.tls() {
		limeloadTLS(&b, "bench", s.certificate)
	}
	if s.extra.IsValid() {
		fmt.Fprintf(&b, "[listener.extra]\naddress = \"%s\"\npool = \"bench\"\n\n", s.extra)
	}
	limeloadPool(&b, "bench", s.backends)
	b.WriteString(congestion)
	if s.feature.Proxy {
		fmt.Fprint(&b, "send_proxy = \"v2\"\n")
	}
	if s.traffic == trafficPostgres {
		fmt.Fprintf(&b, "\n[listener.flood]\naddress = \"%s\"\npool = \"flood\"\n\n", s.flood)
		limeloadTLS(&b, "flood", s.certificate)
		limeloadPool(&b, "flood", s.floodBackends)
	}
	return b.String()
}

func limeloadTLS(b *strings.Builder, listener string, c certificate) {
	fmt.Fprintf(b, "[listener.%s.tls]\ncertificates = [{ cert = \"%s\", key = \"%s\" }]\n\n", listener, c.cert, c.key)
}

func limeloadPool(b *strings.Builder, name string, backends []netip.AddrPort) {
	fmt.Fprintf(b, "[pool.%s]\nalgorithm = \"round_robin\"\nbackends = [\n", name)
	for _, a := range backends {
		fmt.Fprintf(b, "  { address = \"%s\" },\n", a)
	}
	fmt.Fprint(b, "]\n")
}
