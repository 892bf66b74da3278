package conf

import "testing"

// TestAgentNeedsAHost holds that a backend without a host cannot have an agent.
func TestAgentNeedsAHost(t *testing.T) {
	const doc = `[listener.a]
address = "127.0.0.1:6379"
pool = "p"
[pool.p]
backends = [{ address = "10.0.0.1:1" }, { address = "unix:/run/x" }]
agent = { port = 8080 }
`
	wantErrors(t, doc, `lb.toml:6: pool.p.agent.port: found 8080; pool.p.backends[1] is a Unix socket, and has no host `+
		`where an agent could listen; needs 0, or only backends with an IP address`)
}
