package main

import (
	"fmt"
	"slices"
	"strings"
)

// bulkBytes is the length of one upload or download. Two are in progress on each stream, so there is no gap between
// them. The end of a measurement waits for at most two on each stream, and they are small enough for that not to
// matter.
const bulkBytes = 16 << 20

// scenarioWidth is the room for a scenario's name in tables: the longest has that many letters.
const scenarioWidth = len("tls12-handshake-ecdsa")

// gigabyte is the unit of bulk.
const gigabyte = 1e9

// A scenario is one kind of work. All contenders do the same ones.
type scenario struct {
	name    string
	traffic traffic
	unit    string // what rate, CPU time and latency are of
	use     string // one line for people
	job     job    // without targets and times

	named    bool       // it runs only if it is named
	table    table      // of the report
	limits   limitation // of the listener
	who      []string   // contenders that take part, of those that take the traffic; nil for all
	baseline string     // a scenario that this one is compared with; "" for none
}

// scenarios returns all scenarios, in the order in which they run.
func scenarios() []scenario {
	return slices.Concat(tcpScenarios(), udpScenarios(), tlsScenarios(), postgresScenarios(), limitScenarios())
}

func tcpScenarios() []scenario {
	return []scenario{
		{
			name: "request64", traffic: trafficTCP, unit: "request",
			use: fmt.Sprintf("%d bytes out, %d back, closed loop on 64 kept connections", requestBytes, answerBytes),
			job: job{Pattern: patternKept, Connections: 64, Depth: 1, Answer: answerBytes},
		},
		{
			name: "request1", traffic: trafficTCP, unit: "request",
			use: "the same on 1 kept connection",
			job: job{Pattern: patternKept, Connections: 1, Depth: 1, Answer: answerBytes},
		},
		{
			name: "connect", traffic: trafficTCP, unit: "connection",
			use: "connect, request, answer, close (by the client), 32 at a time",
			job: job{Pattern: patternConnect, Connections: 32, Answer: answerBytes},
		},
		bulk("bulk1-in", 1, bulkBytes, answerBytes, "1 stream, client to backend"),
		bulk("bulk1-out", 1, 0, bulkBytes, "1 stream, backend to client"),
		bulk("bulk8-in", 8, bulkBytes, answerBytes, "8 streams, client to backend"),
		bulk("bulk8-out", 8, 0, bulkBytes, "8 streams, backend to client"),
		{
			name: "paced", traffic: trafficTCP, unit: "request",
			use: "request64's work at a fixed rate (-rate), open loop: latency at equal load",
			job: job{Pattern: patternPaced, Connections: 64, Answer: answerBytes},
		},
		{
			name: "idle", traffic: trafficTCP, unit: "session",
			use: "sessions at rest (-idle), after one request each: memory and descriptors",
			job: job{Pattern: patternIdle, Answer: answerBytes},
		},
	}
}

func bulk(name string, streams int, payload, answer int64, use string) scenario {
	return scenario{
		name: name, traffic: trafficTCP, unit: "GB", use: use,
		job: job{Pattern: patternKept, Connections: streams, Depth: maxDepth, Payload: payload, Answer: answer},
	}
}

func udpScenarios() []scenario {
	return []scenario{
		dns("dns", trafficDNS, "name service: dnsperf from 64 sockets, 200 questions under way; flows are kept"),
		dns("dns-once", trafficDNSOnce, "the same, where a flow ends with its answer"),
		dns("dns-single", trafficDNSSingle,
			"the same, each question by itself: profile \"dns\", for nginx a flow that ends with its answer"),
		dns("dns-paced", trafficDNSSingle,
			"dns-single's work at a fixed rate (-dns-rate): CPU and latency at equal load"),
		dns("dns-cached", trafficDNSCached, "dns's work for those that answer from a cache"),
		trains("trains-in", trainBytes, trainHead, "8 sockets, client to backend"),
		trains("trains-out", trainHead, trainBytes, "8 sockets, backend to client"),
	}
}

func dns(name string, t traffic, use string) scenario {
	return scenario{
		name: name, traffic: t, unit: "question", use: use,
		job: job{Pattern: patternDNS, Connections: 64, Depth: 200},
	}
}

func trains(name string, payload, answer int64, use string) scenario {
	return scenario{
		name: name, traffic: trafficTrains, unit: "GB",
		use: fmt.Sprintf("%d datagrams of %d bytes at once, as QUIC sends, %s", trainDatagrams, trainDatagram, use),
		job: job{Pattern: patternTrains, Connections: 8, Payload: payload, Answer: answer},
	}
}

// jobFor returns the scenario's job under the given options, still without targets.
func (s scenario) jobFor(o options) job {
	j := s.job
	j.Warmup, j.Duration = o.warmup, o.duration
	switch j.Pattern {
	case patternDNS:
		if s.name == "dns-paced" {
			j.Rate = o.dnsRate
		}
	case patternPaced:
		j.Rate = o.rate
	case patternIdle:
		j.Connections = o.idle
	case patternPostgres:
		j.Rate = o.pgbenchRate
	case patternPing:
		j.Rate = o.pingRate
	}
	if j.Beside != nil { // a copy, since the rate is the run's
		beside, flood := *j.Beside, *j.Beside.Flood
		flood.Rate = o.floodRate
		beside.Flood, beside.Warmup, beside.Duration = &flood, o.warmup, o.duration
		j.Beside = &beside
	}
	return j
}

// hasLatency reports whether latency is meaningful: in bulk it is only the inverse of the rate.
func (s scenario) hasLatency() bool { return s.unit != "GB" }

// units returns the work of a result in the scenario's unit.
func (s scenario) units(r loadResult) float64 {
	if s.unit == "GB" {
		return float64(r.Bytes) / gigabyte
	}
	return float64(r.Requests)
}

func scenarioUses() string {
	var b strings.Builder
	for _, s := range scenarios() {
		mark := ' '
		if s.named {
			mark = '*'
		}
		fmt.Fprintf(&b, "%c %-*s %s\n", mark, scenarioWidth, s.name, s.use)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
