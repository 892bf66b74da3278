package daemon

import (
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool/rate"
)

// limitSettings converts the limits of a listener for the data plane.
func limitSettings(c *conf.Limits) l4.Limits {
	l := l4.Limits{
		ClientSessions: c.ClientSessions, ClientRate: rateLimit(c.ClientRate), Rate: rateLimit(c.Rate),
		SessionBandwidth: int64(c.SessionBandwidth), ClientBandwidth: int64(c.ClientBandwidth),
		Prefix4: c.ClientPrefix4, Prefix6: c.ClientPrefix6,
		Tracked: c.TrackedClients, Track: c.TrackedClients > 0, DryRun: c.DryRun,
	}
	for _, over := range []l4.Over{l4.OverReset, l4.OverClose, l4.OverDrop, l4.OverDelay, l4.OverTell} {
		if over.String() == c.OverLimit {
			l.Over = over
		}
	}
	return l
}

// rateLimit converts a rate of the configuration for package rate.
func rateLimit(r conf.Rate) rate.Limit { return rate.Limit{Every: r.Every(), Burst: r.Burst} }
