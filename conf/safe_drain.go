package conf

import (
	"fmt"
	"slices"
)

// speaksSafely reports whether it is known of the listener's clients when nothing is lost by the end of a session: they
// speak Postgres or Redis.
func (l *Listener) speaksSafely() bool { return l.Profile == "postgres" || l.Profile == "redis" }

// checkSafeDrain reports pools that drain safely and have a listener of TCP whose clients speak something else, or only
// listeners of UDP, and pools that rebalance and do not drain safely.
func checkSafeDrain(r *report, c *Config) {
	for i := range c.Pools {
		p := &c.Pools[i]
		path := join(Path("pool", p.Name), "drain")
		if p.Drain != "safe" {
			if p.Rebalance.MaxSkew > 0 && !r.seen[path] {
				r.add(Path("pool", p.Name, "rebalance", "max_skew"), Error{Found: literal(p.Rebalance.MaxSkew),
					Message: "drain is " + quote(p.Drain), Allowed: `needs drain = "safe" beside rebalance, or 0`})
			}
			continue
		}
		tcp, udp := false, ""
		for j := range c.Listeners {
			l := &c.Listeners[j]
			switch {
			case !slices.Contains(l.Pools(), p.Name):
			case !l.speaks("tcp"):
				udp = Path("listener", l.Name)
			case l.speaksSafely() || r.seen[Path("listener", l.Name, "profile")]: // a mistaken profile is reported already
				tcp = true
			default:
				tcp = true
				at := Path("listener", l.Name)
				r.add(path, Error{Found: `"safe"`, Message: fmt.Sprintf(
					"%s on line %d has profile %s, and so it is not known when its sessions are at rest", at, r.lines[at],
					quote(l.Profile)), Allowed: `needs profile = "postgres" or "redis" there, or "plain"`})
			}
		}
		if udp != "" && !tcp {
			r.add(path, Error{Found: `"safe"`, Message: udp + " speaks udp, which has no sessions",
				Allowed: `needs a listener of tcp with profile = "postgres" or "redis", or "plain"`})
		}
	}
}
