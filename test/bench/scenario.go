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
const scenarioWidth = len("feature-connect-bandwidth")

// gigabyte is the unit of bulk.
const gigabyte = 1e9

// unitRefusal is the unit of clients that are refused.
const unitRefusal = "refusal"

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

	backends int     // 0 for backendCount
	workers  int     // loops, threads or worker processes; 0 for as many as the run's
	feature  feature // of limeload-l4
	reload   bool    // the balancer reloads meanwhile

	// half names the scenario at half of whose peak this one is paced: the lowest rate of any balancer in the round.
	half string
}

// scenarios returns all scenarios, in the order in which they run.
func scenarios() []scenario {
	return slices.Concat(tcpScenarios(), udpScenarios(), tlsScenarios(), postgresScenarios(), serviceScenarios(),
		limitScenarios(), growthScenarios(), featureScenarios())
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
			name: "request64-4k", traffic: trafficTCP, unit: "request",
			use: "4 KiB out, 4 KiB back, closed loop on 64 kept connections",
			job: job{Pattern: patternKept, Connections: 64, Depth: 1, Payload: 4 << 10, Answer: 4 << 10, Raw: true},
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
			name: "half-peak", traffic: trafficTCP, unit: "request", half: "request64",
			use: "the same at half of the lowest peak that a balancer has in request64",
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
		if j.Rate == 0 {
			j.Rate = o.rate
		}
	case patternIdle:
		j.Connections = o.idle
	case patternPostgres:
		if s.name != "pgbench-select" { // it is a closed loop
			j.Rate = o.pgbenchRate
		}
	case patternKnock:
		if s.unit == unitRefusal {
			flood := *j.Flood // a copy, since the rate is the run's
			flood.Rate = o.refusedRate
			j.Flood = &flood
		}
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

// paced returns the scenario at the rate of its round, which the earlier measurements say. Others are as they are.
func (s scenario) paced(round int, earlier []measurement) (scenario, error) {
	if s.half == "" {
		return s, nil
	}
	var balancers, others []float64
	for _, m := range earlier {
		switch {
		case m.Scenario != s.half || m.Round != round || m.Error != "":
		case m.Contender == nameDirect:
			others = append(others, m.Rate)
		default:
			balancers = append(balancers, m.Rate)
		}
	}
	if len(balancers) == 0 {
		balancers = others
	}
	if len(balancers) == 0 {
		return s, fmt.Errorf("no rate to halve: nobody has done %s in round %d", s.half, round)
	}
	s.job.Rate = max(1, int(slices.Min(balancers)/2))
	return s, nil
}

// ownConfig reports whether balancers are configured for this scenario in another way than for others of its traffic.
func (s scenario) ownConfig() bool {
	return s.limits != (limitation{}) || s.feature != (feature{}) || s.backends > 0 || s.workers > 0 || s.reload
}

// sustained returns an error if clients that are refused were fewer than the rate: then the costs of two contenders are
// not those of the same work.
func (s scenario) sustained(r loadResult, j job) error {
	if s.unit != unitRefusal || r.Flood == nil {
		return nil
	}
	want := float64(j.Flood.Rate) * r.Flood.Elapsed.Seconds()
	if got := float64(r.Flood.Refused); got < 0.9*want {
		return fmt.Errorf("%.0f of %.0f connects were refused: ask for a lower -refused-rate", got, want)
	}
	return nil
}

// descriptors returns how many a balancer needs for the scenario's sessions.
func (s scenario) descriptors(o options) int {
	j := s.jobFor(o)
	return 2 * (j.Connections + j.Resting)
}

// units returns the work of a result in the scenario's unit.
func (s scenario) units(r loadResult) float64 {
	switch {
	case s.unit == "GB":
		return float64(r.Bytes) / gigabyte
	case s.unit == unitRefusal && r.Flood != nil:
		return float64(r.Flood.Refused)
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
