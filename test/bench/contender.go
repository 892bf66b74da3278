package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// A setup has the parameters of a balancer's configuration.
type setup struct {
	traffic     traffic
	listen      netip.AddrPort
	backends    []netip.AddrPort
	workers     int    // loops, threads or worker processes
	descriptors int    // what RLIMIT_NOFILE allows each process
	dir         string // for what the balancer writes

	certificate certificate // of the listener that terminates TLS
	aes128      bool        // which has AES-128-GCM as its only cipher, if the balancer has a setting for it

	limits  limitation // of the first listener
	feature feature
	etcd    netip.AddrPort // of feature.Fleet

	reloads bool           // it is to be able to reload
	extra   netip.AddrPort // a further listener, which only the reloaded configuration has; the zero value for none
	denied  string         // the file of its prefixes; "" for none

	// the second listener of trafficPostgres, which terminates TLS
	flood         netip.AddrPort
	floodBackends []netip.AddrPort
}

// A program is an installed balancer.
type program struct {
	path    string
	version string
	digest  string // SHA-256 of the file
	module  string // nginx: the stream module to load; "" when it is built in
}

// A contender is one way from client to backend. The direct one has no program:
// its functions are nil.
type contender struct {
	name string

	// takes is the traffic it can be configured for; nil for all of it.
	takes []traffic

	// rival says that the others are compared with this one: reports have the ratio to the best rival.
	rival bool

	// processes returns how many processes it has with that many workers.
	processes func(workers int) int

	// find looks up the program. Its error says what to install.
	find func(ctx context.Context, path string) (program, error)

	// config returns the text of the configuration file.
	config func(program, setup) string

	// reload is the signal to its first process that makes it read its configuration again.
	reload syscall.Signal

	// args returns the arguments that run it in the foreground.
	args func(configFile string, s setup) []string
}

// contenders returns all contenders, in the order of the report.
func contenders() []contender {
	return []contender{limeload(), before(), haproxy(), nginx(), dnsdist(),
		{name: nameDirect, takes: []traffic{trafficTCP, trafficDNS, trafficDNSSingle, trafficTrains, trafficTrainsOnce,
			trafficMeter}}}
}

func contenderNames() []string {
	var names []string
	for _, c := range contenders() {
		names = append(names, c.name)
	}
	return names
}

// nameDirect is the contender without a balancer.
const nameDirect = "direct"

func (c contender) direct() bool { return c.find == nil }

// does reports whether c takes part in s.
func (c contender) does(s scenario) bool {
	if c.direct() && (s.job.Pattern == patternIdle || s.reload || s.unit == unitRefusal) {
		return false // there is no process to look at
	}
	if s.who != nil && !slices.Contains(s.who, c.name) {
		return false
	}
	return c.takes == nil || slices.Contains(c.takes, s.traffic)
}

// pathIn returns the program that the options name for c.
func (c contender) pathIn(o options) string {
	switch c.name {
	case nameBefore:
		return o.before
	case "haproxy":
		return o.haproxy
	case "nginx":
		return o.nginx
	case "dnsdist":
		return o.dnsdist
	}
	return o.limeload
}

func one(int) int { return 1 }

// lookUp finds a program and runs it with args to get its version; it returns all output. hint says how to install it.
func lookUp(ctx context.Context, path, hint string, args ...string) (program, string, error) {
	found, err := exec.LookPath(path)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return program{}, "", fmt.Errorf("%s is not there: %s", path, hint)
	}
	if err != nil {
		return program{}, "", err
	}
	out, err := exec.CommandContext(ctx, found, args...).CombinedOutput()
	if err != nil {
		return program{}, "", fmt.Errorf("%s %s: %w: %s", found, strings.Join(args, " "), err, out)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return program{path: found, version: strings.TrimSpace(first)}, string(out), nil
}
