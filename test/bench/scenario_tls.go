package main

// tlsConnections is how many connections do handshakes at once, as in connect.
const tlsConnections = 32

// tlsScenarios are about TLS that the balancer terminates. Backends are reached by plain TCP.
func tlsScenarios() []scenario {
	const use = "connect, handshake, request, answer, close (by the client), 32 at a time; "
	tls12 := tlsJob{TLS12: true}
	return []scenario{
		handshakes("tls-handshake-ecdsa", trafficTLSECDSA, tlsJob{}, use+"full handshakes of TLS 1.3, P-256"),
		handshakes("tls-handshake-rsa", trafficTLSRSA, tlsJob{}, "the same, RSA-2048"),
		handshakes("tls-resume-ecdsa", trafficTLSECDSA, tlsJob{Resume: true}, "the same, P-256, resumed by ticket"),
		handshakes("tls12-handshake-ecdsa", trafficTLSECDSA, tls12, use+"full handshakes of TLS 1.2, P-256"),
		handshakes("tls12-handshake-rsa", trafficTLSRSA, tls12, "the same, RSA-2048"),
		handshakes("tls12-resume-ecdsa", trafficTLSECDSA, tlsJob{TLS12: true, Resume: true},
			"the same, P-256, resumed by ticket"),
		tlsBulk("tls-bulk1-in", 1, bulkBytes, answerBytes, "1 stream of TLS 1.3, client to backend"),
		tlsBulk("tls-bulk1-out", 1, 0, bulkBytes, "1 stream of TLS 1.3, backend to client"),
		tlsBulk("tls-bulk4-in", 4, bulkBytes, answerBytes, "4 streams of TLS 1.3, client to backend"),
		tlsBulk("tls-bulk4-out", 4, 0, bulkBytes, "4 streams of TLS 1.3, backend to client"),
		{
			name: "tls-request64", traffic: trafficTLSECDSA, unit: "request",
			use: "request64's work over TLS 1.3",
			job: job{Pattern: patternKept, Connections: 64, Depth: 1, Answer: answerBytes, TLS: &tlsJob{}},
		},
		{
			name: "tls-idle", traffic: trafficTLSECDSA, unit: "session",
			use: "idle's sessions over TLS 1.3: memory and descriptors",
			job: job{Pattern: patternIdle, Answer: answerBytes, TLS: &tlsJob{}},
		},
	}
}

func handshakes(name string, t traffic, j tlsJob, use string) scenario {
	return scenario{
		name: name, traffic: t, unit: "handshake", use: use,
		job: job{Pattern: patternConnect, Connections: tlsConnections, Answer: answerBytes, TLS: &j},
	}
}

// tlsBulk has one request under way on each stream: the gap between two of them is short beside their 16 MiB.
func tlsBulk(name string, streams int, payload, answer int64, use string) scenario {
	return scenario{
		name: name, traffic: trafficTLSECDSA, unit: "GB", use: use,
		job: job{
			Pattern: patternKept, Connections: streams, Depth: 1, Payload: payload, Answer: answer, TLS: &tlsJob{},
		},
	}
}

// postgresScenarios are about Postgres, and what a flood of handshakes on one listener does to the clients of another.
func postgresScenarios() []scenario {
	return []scenario{
		{
			name: "pgbench-select", traffic: trafficPostgresOne, unit: "transaction",
			use: "pgbench -S, prepared statements, closed loop on 8 connections",
			job: job{Pattern: patternPostgres, Connections: 8},
		},
		{
			name: "pgbench-alone", traffic: trafficPostgres, unit: "transaction",
			use: "pgbench -S at a fixed rate (-pgbench-rate), 8 connections: latency",
			job: job{Pattern: patternPostgres, Connections: 8},
		},
		{
			name: "pgbench-beside-flood", traffic: trafficPostgres, unit: "transaction",
			use: "the same, while one client floods another listener with TLS handshakes",
			job: job{Pattern: patternPostgres, Connections: 8, Flooders: 64},
		},
	}
}
