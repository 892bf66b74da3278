package main

import (
	"fmt"
	"net/netip"
	"runtime"
	"time"
)

// A table is the part of the report that has a scenario.
type table string

const (
	tableWork    table = ""        // that of all scenarios without limits
	tableFlood   table = "flood"   // what a flood does to a client, and what it costs to refuse it
	tableRate    table = "rate"    // how exactly a rate is kept
	tableStreams table = "streams" // how exactly and how steadily a bandwidth is kept
	tableCost    table = "cost"    // what features cost, and limits that refuse nobody
	tableGrowth  table = "growth"  // how the cost of work grows
)

// Flooders come from addresses apart from everyone else's: one, or all of a prefix of 16 bits, which is the scenarios'
// one client then.
var (
	floodAddress = netip.MustParsePrefix("127.0.0.2/32")
	floodPrefix  = netip.MustParsePrefix("127.1.0.0/16")
)

// limitScenarios are about limits. They run only if they are named.
func limitScenarios() []scenario {
	var all []scenario
	all = append(all, floodScenarios()...)
	all = append(all, udpFloodScenarios("floodudp-flows", trafficTrains, datagramTrain, datagramJunk,
		[]string{"limeload-l4", nameBefore, "nginx"}, rateLimit{100, 100},
		"datagrams there and back on 64 flows (-ping-rate), ")...)
	all = append(all, udpFloodScenarios("floodudp-dns", trafficDNSSingle, datagramQuestion, datagramQuestion,
		[]string{"limeload-l4", nameBefore, "nginx", "dnsdist"}, rateLimit{4000, 4000},
		"DNS questions (-ping-rate) from 64 sockets, ")...)
	all = append(all, rateScenarios()...)
	all = append(all, streamScenarios()...)
	all = append(all, costScenarios()...)
	for i := range all {
		all[i].named = true
	}
	return all
}

// floodScenarios are about what connects from one address do to pgbench on the same listener. pgbench connects from
// another address, and with 9 connections at once: 8 clients, and one that looks at the tables.
func floodScenarios() []scenario {
	balancers := []string{"limeload-l4", nameBefore, "haproxy", "nginx"}
	scenarioOf := func(name string, l limitation, flood *job, use string) scenario {
		return scenario{
			name: name, traffic: trafficPostgresOne, unit: "transaction", table: tableFlood, who: balancers, limits: l,
			use: use,
			job: job{Pattern: patternPostgres, Connections: 8, Lead: 500 * time.Millisecond, Beside: flood},
		}
	}
	flood := &job{Pattern: patternKnock, Flood: &floodJob{
		Source: floodAddress, Senders: runtime.NumCPU(), Slots: 512, Patience: 100 * time.Millisecond, Harm: true,
	}}
	idle := scenarioOf("flood-idle", limitation{}, nil,
		"pgbench -S (-pgbench-rate), 8 connections, without limits: what the next are compared with")
	limit := scenarioOf("flood-limit", limitation{ClientRate: rateLimit{10, 20}, Over: "reset"}, flood,
		"the same beside connects from one address as fast as they go (or -flood-rate), each client limited")
	drop := scenarioOf("flood-drop", limitation{ClientRate: rateLimit{10, 20}, Over: "drop"}, flood,
		"flood-limit, where a client over its limit hears nothing")
	open := scenarioOf("flood-open", limitation{}, flood, "the same without limits")
	limit.baseline, drop.baseline, open.baseline = idle.name, idle.name, idle.name
	return []scenario{idle, limit, drop, open}
}

// udpFloodScenarios are about what datagrams of ever new clients do to another client of the same listener.
func udpFloodScenarios(name string, t traffic, kind, flood datagramKind, who []string, limit rateLimit,
	use string) []scenario {
	scenarioOf := func(suffix string, l limitation, beside *job, use string) scenario {
		return scenario{
			name: name + suffix, traffic: t, unit: "datagram", table: tableFlood, who: who, limits: l, use: use,
			job: job{Pattern: patternPing, Connections: 64, Datagram: kind, Beside: beside},
		}
	}
	spray := &job{Pattern: patternSpray, Datagram: flood, Flood: &floodJob{
		Source: floodPrefix, Senders: runtime.NumCPU(), Harm: true,
	}}
	idle := scenarioOf("-idle", limitation{}, nil, use+"without limits: what the next are compared with")
	limited := scenarioOf("-limit", limitation{ClientRate: limit, Prefix: 16}, spray,
		"the same beside datagrams from 127.1.0.0/16 as fast as they go (or -flood-rate), each /16 limited")
	open := scenarioOf("-open", limitation{}, spray, "the same without limits")
	limited.baseline, open.baseline = idle.name, idle.name
	return []scenario{idle, limited, open}
}

// rateNames are the rates of rateScenarios, by what the scenarios are called.
var rateNames = []struct {
	name string
	rate rateLimit
}{
	// A burst holds what comes while the machine does something else.
	{"10", rateLimit{10, 2}},
	{"1000", rateLimit{1000, 20}},
	{"20k", rateLimit{20_000, 400}},
}

// offered returns how many come where so many are admitted: twice as many, and not exactly, so that they come in no
// fixed step with the limit.
func offered(rate int) int { return 2*rate + max(rate/17, 1) }

// rateScenarios are about how many are admitted of twice as many as the rate allows.
func rateScenarios() []scenario {
	limeloads := []string{"limeload-l4", nameBefore}
	var all []scenario
	add := func(kind, name string, t traffic, unit string, l limitation, j job, use string) {
		j.Flood.Senders = 1
		if j.Flood.Rate > 10_000 || l.Rate.PerSecond > 10_000 {
			j.Flood.Senders = runtime.NumCPU()
		}
		s := scenario{name: "rates-" + kind + "-" + name, traffic: t, unit: unit, table: tableRate, who: limeloads,
			limits: l, use: use, job: j}
		if kind == "delay" {
			s.who = append(s.who, "haproxy")
		}
		all = append(all, s)
	}
	for _, r := range rateNames {
		knock := func(f floodJob) job {
			f.Source, f.Ask = floodAddress, true
			return job{Pattern: patternKnock, Flood: &f}
		}
		more := offered(r.rate.PerSecond)
		add("client", r.name, trafficTCP, "session", limitation{ClientRate: r.rate, Over: "reset"},
			knock(floodJob{Rate: more, Slots: 1024, Patience: 2 * time.Second}),
			fmt.Sprintf("%d connects a second of one client that may have %s", more, r.rate))
		add("all", r.name, trafficTCP, "session", limitation{Rate: r.rate, Over: "reset"},
			knock(floodJob{Rate: more, Slots: 1024, Patience: 2 * time.Second}),
			fmt.Sprintf("%d connects a second to a listener that may have %s", more, r.rate))
		slots := min(max(r.rate.PerSecond/10, 16), 256)
		add("delay", r.name, trafficTCP, "session", limitation{Rate: r.rate, Over: "delay"},
			knock(floodJob{Slots: slots, Patience: time.Hour}),
			fmt.Sprintf("clients that always wait in the queue of a listener that may have %s", r.rate))
		spray := func() job {
			return job{Pattern: patternSpray, Datagram: datagramTrain,
				Flood: &floodJob{Source: floodPrefix, Rate: more, Ask: true}}
		}
		add("flows", r.name, trafficTrainsOnce, "flow", limitation{ClientRate: r.rate, Prefix: 16}, spray(),
			fmt.Sprintf("%d UDP flows a second of one client, a /16, that may have %s", more, r.rate))
		if r.rate.PerSecond < 20_000 {
			continue
		}
		questions := func() job {
			j := spray()
			j.Datagram = datagramQuestion
			return j
		}
		add("dns", r.name, trafficDNSSingle, "question", limitation{ClientRate: r.rate, Prefix: 16}, questions(),
			fmt.Sprintf("%d DNS questions a second of one client that may have %s", more, r.rate))
		add("dns-all", r.name, trafficDNSSingle, "question", limitation{Rate: r.rate}, questions(),
			fmt.Sprintf("%d DNS questions a second to a listener that may have %s", more, r.rate))
	}
	return all
}

// Bandwidths of streamScenarios, in bytes a second: what two CPUs manage for 100 sessions.
const (
	sessionBandwidth = 4 << 20
	clientBandwidth  = 64 << 20
)

// streamScenarios are about how exactly and how steadily a bandwidth is kept.
func streamScenarios() []scenario {
	var all []scenario
	for _, sessions := range []int{1, 10, 100} {
		for _, in := range []bool{true, false} {
			direction, name := "backend to client", "out"
			if in {
				direction, name = "client to backend", "in"
			}
			j := job{Pattern: patternStream, Connections: sessions, In: in}
			s := scenario{traffic: trafficMeter, unit: "GB", table: tableStreams, job: j}
			each, together := s, s
			each.name, each.who = fmt.Sprintf("bandwidth-s%d-%s", sessions, name),
				[]string{"limeload-l4", nameBefore, "nginx"}
			each.limits = limitation{SessionBandwidth: sessionBandwidth}
			each.use = fmt.Sprintf("%d sessions of %d MiB/s each, %s", sessions, sessionBandwidth>>20, direction)
			together.name, together.who = fmt.Sprintf("bandwidth-c%d-%s", sessions, name),
				[]string{"limeload-l4", nameBefore}
			together.limits = limitation{ClientBandwidth: clientBandwidth}
			together.use = fmt.Sprintf("%d sessions of one client that may have %d MiB/s, %s", sessions,
				clientBandwidth>>20, direction)
			all = append(all, each, together)
		}
	}
	return all
}

// costScenarios are about what a session costs where limits refuse nobody.
func costScenarios() []scenario {
	limeloads := []string{"limeload-l4", nameBefore}
	off := scenario{
		name: "limits-off", traffic: trafficTCP, unit: "connection", table: tableCost, who: limeloads,
		use: "connect's work: what the next is compared with",
		job: job{Pattern: patternConnect, Connections: 32, Answer: answerBytes},
	}
	on := off
	on.name, on.baseline = "limits-on", off.name
	on.use = "the same with a list of 1,000,000 prefixes and limits that refuse nobody"
	on.limits = harmlessLimits()
	return []scenario{off, on}
}
