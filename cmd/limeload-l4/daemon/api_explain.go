package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// refusalQueued is the refusal of a client that would wait in the queue.
const refusalQueued = "queued"

// Explain returns where a client would be sent now, and why. It changes nothing.
func (d *Daemon) Explain(q admin.ExplainQuery) (admin.Explanation, error) {
	client, err := explainedClient(q.Client)
	if err != nil {
		return admin.Explanation{}, err
	}
	name, err := d.explainedPool(q)
	if err != nil {
		return admin.Explanation{}, err
	}
	access, allowed := d.explainedAccess(q, client.Addr())
	if !allowed {
		return denied(q, access), nil
	}
	if name == "" {
		e := unrouted(q)
		e.Access = access
		return e, nil
	}
	s, err := d.served(name)
	if err != nil {
		return admin.Explanation{}, err
	}
	x := s.pool.Explain(pool.PickContext{Client: client, Name: explainedName(q, s.pool)})
	e := admin.Explanation{
		Access: access, Listener: q.Listener, Pool: name, Client: q.Client, Algorithm: x.Algorithm,
		Deterministic: x.Deterministic,
		DecidedBy:     x.By.String(), Backend: x.Backend, Refusal: refusal(x, s.pool),
		Candidates: []admin.Candidate{}, Others: []admin.NotPicked{},
	}
	if x.Addr.IsValid() {
		e.Address = x.Addr.String()
	}
	for _, c := range x.Candidates {
		e.Candidates = append(e.Candidates,
			admin.Candidate{Backend: c.ID, Weight: int(c.Weight), Share: c.Share, Sessions: c.Leases})
	}
	for _, o := range x.Others {
		not := admin.NotPicked{Backend: o.ID, Why: o.Why.String(), Reason: o.Reason}
		if o.Why.OfVerdict() {
			if reason, known := d.reason(s.pool, o.ID); known {
				not.Reason = reason
			}
		}
		e.Others = append(e.Others, not)
	}
	e.Text = explanationText(e, x)
	if access != nil && access.DecidedBy != byDefault {
		e.Text += " " + access.Text
	}
	return e, nil
}

// explainedName returns the key of the name that counts for a pool; 0 if the query has none.
func explainedName(q admin.ExplainQuery, p *pool.Pool) uint32 {
	name := strings.ToLower(q.SNI)
	if p.NeedsName(pool.MQTTClientID) {
		name = q.MQTTClientID
	}
	if name == "" {
		return 0
	}
	return pool.NameKey([]byte(name))
}

// explainedClient parses the client of a query: an address with or without a port.
func explainedClient(text string) (netip.AddrPort, error) {
	client, err := netip.ParseAddrPort(text)
	if err != nil {
		var addr netip.Addr
		addr, err = netip.ParseAddr(text)
		client = netip.AddrPortFrom(addr, 0)
	}
	if err != nil {
		return client, &admin.RequestError{Field: "client", Value: text,
			Want: `an address, such as "10.0.0.7" or "10.0.0.7:4711"`}
	}
	return netip.AddrPortFrom(client.Addr().Unmap(), client.Port()), nil
}

// explainedPool returns the pool of a query: the named one, or the one to which the named listener sends the client; ""
// if it refuses the client.
func (d *Daemon) explainedPool(q admin.ExplainQuery) (string, error) {
	if q.Listener == "" {
		return q.Pool, nil
	}
	p, err := d.server.PoolFor(q.Listener, q.SNI, q.ALPN)
	switch {
	case err != nil:
		return "", fmt.Errorf("listener %q: %w", q.Listener, admin.ErrUnknownListener)
	case p == nil:
		return "", nil
	}
	return p.Name(), nil
}

// denied explains that a listener does not let the client in.
func denied(q admin.ExplainQuery, access *admin.AccessDecision) admin.Explanation {
	return admin.Explanation{
		Access: access, Listener: q.Listener, Client: q.Client, DecidedBy: pool.ByNothing.String(),
		Refusal: l4.Denied.String(), Candidates: []admin.Candidate{}, Others: []admin.NotPicked{}, Deterministic: true,
		Text: fmt.Sprintf("%s would be refused: %s. %s", q.Client, l4.Denied, access.Text),
	}
}

// unrouted explains that no route of a listener fits the client.
func unrouted(q admin.ExplainQuery) admin.Explanation {
	why := "without a server name"
	if q.SNI != "" {
		why = fmt.Sprintf("with the server name %q", q.SNI)
	}
	if len(q.ALPN) > 0 {
		why += fmt.Sprintf(" and the protocols %q", q.ALPN)
	}
	return admin.Explanation{
		Listener: q.Listener, Client: q.Client, DecidedBy: pool.ByNothing.String(), Refusal: l4.NoRoute.String(),
		Candidates: []admin.Candidate{}, Others: []admin.NotPicked{}, Deterministic: true,
		Text: fmt.Sprintf("%s would be refused: no route of listener %s fits a client %s.", q.Client, q.Listener, why),
	}
}

// refusal returns why a client would get no backend, as its access line would say; "" if it would get one.
func refusal(x pool.Explanation, p *pool.Pool) string {
	none := errors.Is(x.Err, pool.ErrNoBackend)
	switch {
	case x.Err == nil:
		return ""
	case x.MayWait:
		return refusalQueued
	case none && p.HoldMax() > 0:
		return l4.HoldFull.String()
	case none:
		return l4.NoBackend.String()
	case p.QueueMax() > 0:
		return l4.QueueFull.String()
	}
	return l4.BackendsFull.String()
}

// explanationText returns the explanation in sentences.
func explanationText(e admin.Explanation, x pool.Explanation) string {
	var text strings.Builder
	switch {
	case e.Refusal == refusalQueued && errors.Is(x.Err, pool.ErrNoBackend):
		fmt.Fprintf(&text, "%s would wait for a backend: none is eligible, and %d sessions wait already.",
			e.Client, x.Waiting)
	case e.Refusal == refusalQueued && x.Ramping:
		fmt.Fprintf(&text, "%s would wait for a backend: %d sessions that were held wait already, and slow_start "+
			"spreads them.", e.Client, x.Waiting)
	case e.Refusal == refusalQueued:
		fmt.Fprintf(&text, "%s would wait for a backend: every eligible one is full, and %d sessions wait already.",
			e.Client, x.Waiting)
	case e.Refusal != "":
		fmt.Fprintf(&text, "%s would be refused: %s.", e.Client, e.Refusal)
	default:
		address := e.Address
		if x.Addr.IsPortless() {
			address += ", at the client's port"
		}
		fmt.Fprintf(&text, "%s would get %s (%s): ", e.Client, e.Backend, address)
		switch x.By {
		case pool.BySticky:
			text.WriteString("the client had it before, and it is still eligible.")
		case pool.ByTrial:
			text.WriteString("its breaker is half-open and lets a few try whether it works.")
		default:
			fmt.Fprintf(&text, "%s chose it among %d of tier %d.", e.Algorithm, len(e.Candidates), x.Tier)
			if !e.Deterministic {
				text.WriteString(" It draws: the next client may get another of them.")
			}
		}
	}
	if x.TriesAll {
		text.WriteString(" No backend is healthy, and when_none has all that are enabled tried.")
	}
	if x.FallsBack {
		text.WriteString(" No replica is eligible, and fallback has the primary serve.")
	}
	for _, o := range e.Others {
		fmt.Fprintf(&text, " Not %s: %s (%s).", o.Backend, o.Why, o.Reason)
	}
	return text.String()
}
