package conf

import "testing"

// TestRebalanceMistakes holds which pools may rebalance: those in which a session does not come back.
func TestRebalanceMistakes(t *testing.T) {
	const head = "[listener.a]\naddress = '127.0.0.1:1'\npool = 'p'\nprofile = 'redis'\n" +
		"[pool.p]\nbackends = [{ address = '10.0.0.1:1' }]\ndrain = 'safe'\nrebalance = { max_skew = 1.2 }\n"
	const found = "lb.toml:8: pool.p.rebalance.max_skew: found 1.2; "
	const back = " a session comes back to the backend that it has left; needs "
	for keys, want := range map[string]string{
		"":                           "",
		"algorithm = 'least_conn'\n": "",
		"algorithm = 'maglev'\n":     found + `with algorithm "maglev"` + back + "another algorithm, such as least_conn, or 0",
		"algorithm = 'first'\n":      found + `with algorithm "first"` + back + "another algorithm, such as least_conn, or 0",
		"sticky = { ttl = '1m' }\n":  found + "with sticky.ttl" + back + "a pool without sticky, or 0",
	} {
		var errors []string
		if want != "" {
			errors = append(errors, want)
		}
		t.Run(keys, func(t *testing.T) { wantErrors(t, head+keys, errors...) })
	}
}
