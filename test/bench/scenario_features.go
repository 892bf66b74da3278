package main

// A feature is what limeload-l4 does besides in a scenario. The zero value is nothing.
type feature struct {
	Proxy bool // each connection to a backend begins with a header of the PROXY protocol
	Log   bool // each session has its access line, in a file
	Fleet bool // a table [fleet], with an etcd

	Congestion bool // the system's congestion control on both sides, whatever it is
}

// featureScenarios are about what limeload-l4 costs with one of its features, each compared with the same work without.
func featureScenarios() []scenario {
	connect := scenario{
		traffic: trafficTCP, unit: "connection",
		job: job{Pattern: patternConnect, Connections: 32, Answer: answerBytes},
	}
	request := scenario{
		traffic: trafficTCP, unit: "request",
		job: job{Pattern: patternKept, Connections: 64, Depth: 1, Answer: answerBytes},
	}
	stream := scenario{
		traffic: trafficTCP, unit: "GB",
		job: job{Pattern: patternKept, Connections: 8, Depth: 1, Answer: bulkBytes},
	}
	mib := scenario{
		traffic: trafficTCP, unit: "request of 1 MiB",
		job: job{Pattern: patternKept, Connections: 16, Depth: 1, Payload: 1 << 20, Answer: 1 << 20, Raw: true},
	}
	var all []scenario
	add := func(work, name, use string, s scenario) {
		s.name, s.use = "feature-"+work+"-"+name, use
		s.named, s.table, s.who = true, tableCost, []string{"limeload-l4", nameBefore}
		if name != "off" {
			s.baseline = "feature-" + work + "-off"
		}
		all = append(all, s)
	}
	with := func(s scenario, change func(*scenario)) scenario {
		change(&s)
		return s
	}
	tls := func(s *scenario) { s.traffic, s.job.TLS = trafficTLSECDSA, &tlsJob{} }
	bandwidth := func(s *scenario) { s.limits = limitation{SessionBandwidth: 1 << 40} }
	fleet := func(s *scenario) { s.feature.Fleet = true }
	congestion := func(s *scenario) { s.feature.Congestion = true }
	const systems = "the system's congestion control on both sides, which over loopback is Reno otherwise"

	add("connect", "off", "connect's work: what the next are compared with", connect)
	add("connect", "limits", "limits of sessions and rates that refuse nobody, and a list of 1,000,000 prefixes",
		with(connect, func(s *scenario) { s.limits = harmlessLimits() }))
	add("connect", "bandwidth", "a bandwidth for each session that nobody reaches", with(connect, bandwidth))
	add("connect", "proxy", "a header of the PROXY protocol (version 2) to the backend",
		with(connect, func(s *scenario) { s.feature.Proxy = true }))
	add("connect", "log", "an access line for each session, to a file",
		with(connect, func(s *scenario) { s.feature.Log = true }))
	add("connect", "fleet", "the table [fleet], with an etcd beside", with(connect, fleet))
	add("connect", "tls", "TLS 1.3 that it terminates, a full handshake with P-256", with(connect, func(s *scenario) {
		tls(s)
		s.unit = "handshake"
	}))
	add("request", "off", "request64's work: what the next are compared with", request)
	add("request", "limits", "limits of sessions and rates that refuse nobody, and a list of 1,000,000 prefixes",
		with(request, func(s *scenario) { s.limits = harmlessLimits() }))
	add("request", "bandwidth", "a bandwidth for each session that nobody reaches", with(request, bandwidth))
	add("request", "fleet", "the table [fleet], with an etcd beside", with(request, fleet))
	add("request", "tls", "TLS 1.3 that it terminates", with(request, tls))
	add("request", "cc", systems, with(request, congestion))
	add("mib", "off", "1 MiB out, 1 MiB back, on 16 kept connections: what the next is compared with", mib)
	add("mib", "cc", systems, with(mib, congestion))
	add("bulk", "off", "8 streams, backend to client: what the next are compared with", stream)
	add("bulk", "bandwidth", "a bandwidth for each session that nobody reaches", with(stream, bandwidth))
	add("bulk", "cc", systems, with(stream, congestion))
	add("bulk", "tls", "TLS 1.3 that it terminates", with(stream, tls))
	return all
}

// harmlessLimits are limits that refuse no client of the bench.
func harmlessLimits() limitation {
	return limitation{
		ClientRate: rateLimit{1_000_000, 1_000_000}, Rate: rateLimit{1_000_000, 1_000_000}, ClientSessions: 100_000,
		Denied: 1_000_000, Over: "reset",
	}
}
