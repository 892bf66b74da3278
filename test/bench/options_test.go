package main

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSelectScenarios(t *testing.T) {
	for _, c := range []struct {
		list string
		want string
	}{
		{"", "request64 request1 request64-4k connect bulk1-in bulk1-out bulk8-in bulk8-out paced half-peak idle " +
			"dns dns-once dns-single dns-paced dns-cached trains-in trains-out " +
			"tls-handshake-ecdsa tls-handshake-rsa tls-resume-ecdsa tls12-handshake-ecdsa tls12-handshake-rsa " +
			"tls12-resume-ecdsa tls-bulk1-in tls-bulk1-out tls-bulk4-in tls-bulk4-out tls-request64 tls-idle " +
			"pgbench-select pgbench-alone pgbench-beside-flood " +
			"redis-get redis-set redis-get-p16 redis-set-p16 refused reload"},
		{"connect", "connect"},
		{"paced, request64", "request64 paced"},                   // in their own order
		{"half-peak", "request64 half-peak"},                      // with what it is paced by
		{"feature-bulk-tls", "feature-bulk-off feature-bulk-tls"}, // and what it is compared with
		{"growth-loops", "growth-loops-1 growth-loops-2 growth-loops-4 growth-loops-8"},
		{"bulk", "bulk1-in bulk1-out bulk8-in bulk8-out"},
		{"bulk1,bulk1-in", "bulk1-in bulk1-out"},
		{"dns,trains", "dns trains-in trains-out"}, // dns is one's own name
		{"dns-", "dns-once dns-single dns-paced dns-cached"},
		{"flood-", "flood-idle flood-limit flood-drop flood-open"}, // named ones
		{"limits", "limits-off limits-on"},
		{"rates-client,bandwidth-c1-", "rates-client-10 rates-client-1000 rates-client-20k bandwidth-c1-in " +
			"bandwidth-c1-out"},
		{"tls12,tls-bulk1", "tls12-handshake-ecdsa tls12-handshake-rsa tls12-resume-ecdsa tls-bulk1-in tls-bulk1-out"},
	} {
		ss, err := selectScenarios(c.list)
		if err != nil {
			t.Errorf("-only %q: %v", c.list, err)
		}
		var names []string
		for _, s := range ss {
			names = append(names, s.name)
		}
		if diff := cmp.Diff(c.want, strings.Join(names, " ")); diff != "" {
			t.Errorf("-only %q (-want +got):\n%s", c.list, diff)
		}
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // in what is printed
	}{
		{"-only nothing", `no scenario "nothing"`},
		{"-only ,", "names no scenario"},
		{"-contenders envoy", `no contender "envoy"; known are limeload-l4, before, haproxy, nginx, dnsdist, direct`},
		{"-contenders direct,direct", "names direct twice"},
		{"-contenders ,", "names nobody"},
		{"-rounds 0", "-rounds 0: want at least 1"},
		{"-duration 3", `invalid value "3"`},
		{"-duration 1ms", "-duration 1ms: want at least 10ms"},
		{"-warmup 0s", "-warmup 0s: want at least 10ms"},
		{"-rate 0", "-rate 0: want 1 to 1000000"},
		{"-idle 0", "-idle 0: want at least 1"},
		{"-dns-rate 0", "-dns-rate 0: want 1 to 1000000"},
		{"-pgbench-rate 0", "-pgbench-rate 0: want 1 to 1000000"},
		{"-ping-rate 50001", "-ping-rate 50001: want 1 to 50000"},
		{"-flood-rate -1", "-flood-rate -1: want 0 to 1000000"},
		{"-refused-rate 0", "-refused-rate 0: want 1 to 1000000"},
		{"-workers 0", "-workers 0: want 1 to 256"},
		{"fast", `unexpected argument "fast"`},
	} {
		var stderr strings.Builder
		if _, err := parseOptions(strings.Fields(c.args), &stderr); err == nil {
			t.Errorf("%s: no error", c.args)
		}
		if !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: printed %q, want %q in it", c.args, stderr.String(), c.want)
		}
	}
}

func TestParseOptionsBefore(t *testing.T) {
	o, err := parseOptions([]string{"-before", "old"}, io.Discard)
	if err != nil || strings.Join(o.contenders, " ") != "limeload-l4 before" {
		t.Errorf("with an earlier program alone: %q, %v", o.contenders, err)
	}
	o, err = parseOptions([]string{"-before", "old", "-contenders", "limeload-l4,before,nginx"}, io.Discard)
	if err != nil || strings.Join(o.contenders, " ") != "limeload-l4 before nginx" {
		t.Errorf("with contenders: %q, %v", o.contenders, err)
	}
	if o, err = parseOptions(nil, io.Discard); err != nil || strings.Contains(strings.Join(o.contenders, " "),
		"before") {
		t.Errorf("without: %q, %v", o.contenders, err)
	}
	if _, err := parseOptions([]string{"-contenders", "before"}, io.Discard); err == nil {
		t.Error("before without a program is taken")
	}
}

func TestParseOptionsHelp(t *testing.T) {
	if _, err := parseOptions([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error %v, want flag.ErrHelp", err)
	}
}

func TestFlagsAreReported(t *testing.T) {
	o, err := parseOptions([]string{"-rounds", "2", "-duration", "50ms"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"rounds": "2", "duration": "50ms", "idle": "9000"} {
		if got := o.flags[name]; got != want {
			t.Errorf("flag %s is reported as %q, want %q", name, got, want)
		}
	}
}

// What a scenario's job has to be for the load generator to do it.
func TestJobsAreWhole(t *testing.T) {
	o, err := parseOptions(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios() {
		j := s.jobFor(o)
		ours := !s.traffic.udp() && s.traffic.serverOf() == trafficTCP && j.Flood == nil // our own protocol
		least := int64(answerBytes)
		if j.Raw {
			least = 1
		}
		if j.Connections < 1 && j.Flood == nil || ours && j.Answer < least || j.Duration != o.duration ||
			j.Warmup != o.warmup {
			t.Errorf("%s: job %+v", s.name, j)
		}
		if j.Pattern == patternKept && (j.Depth < 1 || j.Depth > maxDepth) {
			t.Errorf("%s: depth %d", s.name, j.Depth)
		}
		if j.Pattern == patternDNS && (j.Depth < j.Connections || (j.Rate == o.dnsRate) != (s.name == "dns-paced")) {
			t.Errorf("%s: job %+v", s.name, j)
		}
		if j.Pattern == patternTrains && max(j.Payload, j.Answer) != trainBytes {
			t.Errorf("%s: job %+v", s.name, j)
		}
		if (j.TLS != nil) != s.traffic.tls() || j.Flooders > 0 && s.traffic != trafficPostgres {
			t.Errorf("%s: job %+v", s.name, j)
		}
		if j.Pattern == patternPostgres && (j.Rate == o.pgbenchRate) == (s.name == "pgbench-select") {
			t.Errorf("%s: rate %d, want %d", s.name, j.Rate, o.pgbenchRate)
		}
		if flood := j.Pattern == patternKnock || j.Pattern == patternSpray; flood != (j.Flood != nil) {
			t.Errorf("%s: job %+v", s.name, j)
		}
		if b := j.Beside; b != nil && (b.Flood == nil || b.Flood.Rate != o.floodRate || !b.Flood.Harm) {
			t.Errorf("%s: job beside %+v", s.name, b)
		}
		if j.Pattern == patternPing && j.Rate != o.pingRate {
			t.Errorf("%s: rate %d, want %d", s.name, j.Rate, o.pingRate)
		}
		if (j.Redis != nil) != (s.traffic == trafficRedis) || j.Raw && (j.Payload < 1 || j.TLS != nil) {
			t.Errorf("%s: job %+v", s.name, j)
		}
		if s.backends > manyBackends || s.descriptors(o) > 19_000 { // more than a machine's usual limit of 20,000
			t.Errorf("%s: %d backends, %d descriptors", s.name, s.backends, s.descriptors(o))
		}
		if len(s.name) > scenarioWidth || s.named != (s.table != tableWork) {
			t.Errorf("%s: %+v", s.name, s)
		}
		rate := o.rate
		if s.reload {
			rate = reloadRate
		}
		if j.Pattern == patternPaced && j.Rate != rate {
			t.Errorf("%s: rate %d, want %d", s.name, j.Rate, rate)
		}
	}
}
