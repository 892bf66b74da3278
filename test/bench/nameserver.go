package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// questionCount is how many names are asked for: few enough for a cache to have them all after the warm-up.
const questionCount = 1000

// benchZone is the zone of the name server.
const benchZone = "bench.test."

func questionName(i int) string { return fmt.Sprintf("h%d.%s", i, benchZone) }

// startNameServer runs NSD, an authoritative name server without a cache, on several ports, as the one process of all
// backends.
func startNameServer(ctx context.Context, nsd program, ports *portFinder, dir string) (*server, error) {
	dir, err := os.MkdirTemp(dir, "nsd-")
	if err != nil {
		return nil, err
	}
	s := &server{}
	for range backendCount {
		a, err := ports.find()
		if err != nil {
			return nil, err
		}
		s.addrs = append(s.addrs, a)
	}
	file := filepath.Join(dir, "nsd.conf")
	for name, text := range map[string]string{file: nsdConfig(dir, s.addrs), filepath.Join(dir, "zone"): zoneText()} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if s.proc, err = start("nsd", exec.Command(nsd.path, "-d", "-c", file), dir); err != nil {
		return nil, err
	}
	for _, a := range s.addrs {
		if s.pids, err = waitReady(ctx, s.proc, trafficDNS, a, nsdProcesses); err != nil {
			return nil, fmt.Errorf("%w (and %w)", err, s.proc.stop())
		}
	}
	return s, nil
}

// nsdProcesses is how many NSD consists of: the one that starts the others, the one for transfers, and a server.
const nsdProcesses = 3

func nsdConfig(dir string, addrs []netip.AddrPort) string {
	var b strings.Builder
	fmt.Fprint(&b, "server:\n")
	for _, a := range addrs {
		fmt.Fprintf(&b, "\tip-address: %s@%d\n", a.Addr(), a.Port())
	}
	fmt.Fprintf(&b, `	server-count: 1
	username: ""
	chroot: ""
	zonesdir: "%[1]s"
	database: ""
	pidfile: ""
	zonelistfile: "%[1]s/zone.list"
	xfrdfile: ""
	xfrdir: "%[1]s"
	rrl-ratelimit: 0
	receive-buffer-size: 4194304
remote-control:
	control-enable: no
zone:
	name: "%[2]s"
	zonefile: "zone"
`, dir, benchZone)
	return b.String()
}

func zoneText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %[1]s\n$TTL 3600\n@ SOA ns.%[1]s admin.%[1]s 1 3600 600 86400 3600\n@ NS ns.%[1]s\n"+
		"ns A 127.0.0.1\n", benchZone)
	for i := range questionCount {
		fmt.Fprintf(&b, "h%d A 192.0.2.%d\n", i, i%250)
	}
	return b.String()
}

// writeQuestions makes dnsperf's file of questions.
func writeQuestions(dir string) (string, error) {
	var b strings.Builder
	for i := range questionCount {
		fmt.Fprintf(&b, "%s A\n", questionName(i))
	}
	file := filepath.Join(dir, "questions")
	return file, os.WriteFile(file, []byte(b.String()), 0o644)
}
