package conf

import (
	"fmt"
	"testing"
)

// TestSafeDrainMistakes holds which pools may drain safely: those whose clients of TCP all speak Postgres or Redis.
func TestSafeDrainMistakes(t *testing.T) {
	const head = "[pool.p]\nbackends = [{ address = '10.0.0.1:1' }]\ndrain = 'safe'\n"
	listener := func(name, address, keys string) string {
		return fmt.Sprintf("[listener.%s]\naddress = '%s'\npool = 'p'\n%s\n", name, address, keys)
	}
	const plain = `; needs profile = "postgres" or "redis" there, or "plain"`
	for name, tc := range map[string]struct{ listeners, want string }{
		"postgres": {listener("a", "127.0.0.1:1", "profile = 'postgres'"), ""},
		"redis":    {listener("a", "unix:/run/a", "profile = 'redis'"), ""},
		"no client": {"[listener.a]\naddress = '127.0.0.1:1'\npool = 'q'\n" +
			"[pool.q]\nbackends = [{ address = '10.0.0.2:1' }]\n", ""},
		"udp beside it": {
			listener("a", "127.0.0.1:1", "profile = 'redis'") + listener("b", "127.0.0.1:1", "protocol = 'udp'"), ""},
		"no profile": {listener("a", "127.0.0.1:1", ""), `lb.toml:3: pool.p.drain: found "safe"; listener.a on line 4 has ` +
			`profile "", and so it is not known when its sessions are at rest` + plain},
		"one of two": {listener("a", "127.0.0.1:1", "profile = 'redis'") + listener("b", "127.0.0.1:2", "profile = 'dns'"),
			`lb.toml:3: pool.p.drain: found "safe"; listener.b on line 8 has profile "dns", and so it is not known when its ` +
				`sessions are at rest` + plain},
		"by a route": {"[listener.a]\naddress = '127.0.0.1:1'\npool = ''\nroutes = [{ sni = ['x.test'], pool = 'p' }]\n",
			`lb.toml:3: pool.p.drain: found "safe"; listener.a on line 4 has profile "", and so it is not known when its ` +
				`sessions are at rest` + plain},
		"udp": {listener("a", "127.0.0.1:1", "protocol = 'udp'"), `lb.toml:3: pool.p.drain: found "safe"; listener.a ` +
			`speaks udp, which has no sessions; needs a listener of tcp with profile = "postgres" or "redis", or "plain"`},
		"a mistaken profile": {listener("a", "127.0.0.1:1", "profile = 'postgre'"), `lb.toml:7: listener.a.profile: found ` +
			`"postgre"; allowed is "", "postgres", "redis" or "dns", did you mean "postgres"?`},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			if tc.want != "" {
				want = append(want, tc.want)
			}
			wantErrors(t, head+tc.listeners, want...)
		})
	}
}

// TestRebalanceNeedsSafeDrain holds that rebalancing needs sessions that can leave safely.
func TestRebalanceNeedsSafeDrain(t *testing.T) {
	doc, at := with("pool.p", "rebalance = { max_skew = 1.2 }")
	wantErrors(t, doc, fmt.Sprintf(`lb.toml:%d: pool.p.rebalance.max_skew: found 1.2; drain is "plain"; needs drain = `+
		`"safe" beside rebalance, or 0`, at))
}
