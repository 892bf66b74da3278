package daemon

import (
	"context"
	"crypto/rand"
	"os"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

// A membership is this node's part in its fleet: the connection to etcd, and what uses it. A daemon without the table
// fleet has none: nothing of it runs, or takes memory. Its methods may be called from any goroutine.
//
// Each part is in a file fleet_*.go. A part registers with the fleet when it is made, and works in its method run.
type membership struct {
	// set once, then read-only
	daemon   *Daemon
	conf     *conf.Fleet // of the start: changes need a restart or an upgrade
	fleet    *fleet.Fleet
	instance string

	members *members
	changes *sharedChanges
	checks  *sharedChecks
	shares  *limitShares
	tickets *sharedTickets

	stop    context.CancelFunc // nil before start
	working sync.WaitGroup     // stop ends it
}

// newMembership returns the membership of a configuration, which does nothing before start; nil without the table fleet.
// It reads the files that the table names; an error has the place of the key.
func (d *Daemon) newMembership(cfg *conf.Config, from *files) (*membership, error) {
	c := cfg.Fleet
	if c == nil {
		return nil, nil
	}
	login, err := fleetLogin(cfg, from)
	if err != nil {
		return nil, err
	}
	node := c.Node
	if node == "" {
		if node, err = os.Hostname(); err != nil {
			return nil, cfg.ErrorAt("fleet.node", err)
		}
	}
	m := &membership{daemon: d, conf: c, instance: rand.Text()}
	m.fleet = fleet.New(fleet.Options{
		Name: c.Name, Node: node, Instance: m.instance, Before: d.from.instance(), Endpoints: c.Endpoints,
		Prefix: c.Prefix, Login: login, LinkChanged: m.linkChanged, Overruled: m.overruled,
	})
	m.members = newMembers(m)
	m.changes = newSharedChanges(m)
	m.checks = newSharedChecks(m)
	m.shares = newLimitShares(m)
	m.tickets = newSharedTickets(m)
	return m, nil
}

// fleetLogin returns the login of the fleet to etcd.
func fleetLogin(cfg *conf.Config, from *files) (etcd.Login, error) {
	c := cfg.Fleet
	password, err := readPassword(cfg, "fleet", c.PasswordFile, from)
	if err != nil {
		return etcd.Login{}, err
	}
	l := etcd.Login{User: c.User, Password: password}
	if c.UsesTLS() {
		l.TLS, err = clientTLS{c.ServerName, c.Verify, c.CA, c.Cert, c.Key}.read(cfg, "fleet", from)
	}
	return l, err
}

// resume puts what an earlier process knew in force in the server and the pools. It must be called before start.
// Nothing happens for nil.
func (m *membership) resume() {
	if m == nil {
		return
	}
	m.shares.apply()
	if m.daemon.from != nil {
		m.tickets.restore(m.daemon.from.offer.Tickets)
	}
}

// beforeReload prepares what a reload is about to put in force, and afterReload the rest. Nothing happens for nil.
func (m *membership) beforeReload(next *secured) {
	if m != nil {
		m.tickets.give(next)
	}
}

func (m *membership) afterReload() {
	if m != nil {
		m.changed()
		m.shares.apply()
		m.tickets.poke()
		for name := range m.daemon.servedPools() {
			m.poolChanged(name) // a change may have come after preparePool, for a pool that was not there yet
		}
	}
}

// start joins the fleet. Nothing happens for nil.
func (m *membership) start() {
	if m == nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.working.Go(func() { m.fleet.Run(ctx) })
	m.working.Go(func() { m.members.run(ctx) })
	m.working.Go(func() { m.changes.run(ctx) })
	m.working.Go(func() { m.checks.run(ctx) })
	m.working.Go(func() { m.shares.run(ctx) })
	m.working.Go(func() { m.tickets.run(ctx) })
}

// leaveWithin bounds how long an etcd that does not answer delays the end of the process. Then the other nodes learn of
// it when the lease ends.
const leaveWithin = 2 * time.Second

// end leaves the fleet, so that the others know at once; if a new process has taken over, it goes on in this one's
// place. Nothing happens for nil, nor at a second call.
func (m *membership) end(replaced bool) {
	if m == nil || m.stop == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	if !replaced {
		m.members.leave()
	}
	m.stop()
	m.stop = nil
	m.working.Wait()
	if !replaced {
		m.fleet.Leave(ctx)
	}
}

// linkChanged logs that the connection to etcd was made or lost, or that etcd refuses what this node writes.
func (m *membership) linkChanged(l fleet.Link) {
	log := m.daemon.log
	switch {
	case !l.Up:
		log.Warn().Str("endpoint", l.Endpoint).AnErr("err", l.Err).Str("event", "fleet_lost").
			Msg("no connection to the fleet's etcd: this node goes on with what it knows")
	case l.Err != nil:
		log.Error().Str("endpoint", l.Endpoint).AnErr("err", l.Err).Str("event", "fleet_write_refused").
			Msg("the fleet's etcd refuses what this node writes: the other nodes do not know of it")
	default:
		log.Info().Str("endpoint", l.Endpoint).Str("event", "fleet_connected").Msg("connected to the fleet's etcd")
	}
}

// overruled logs that a change of this node yields to that of another one.
func (m *membership) overruled(key string, by fleet.Record) {
	if key == fleet.Tickets {
		return // two nodes have made a key at once, and nobody has used it yet
	}
	m.daemon.log.Warn().Str("key", short(key)).Str("node", short(by.Node)).Str("by", short(by.By)).
		Str("event", "fleet_change_overruled").
		Msg("a change of this node yields to a later one of another node")
}
