package daemon

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// sourceConfig is the source of backends from the configuration. Those added through the API have the source "".
const sourceConfig = pool.Configuration

// A served pool is a pool with what runs for it: its checks, its discovery and its event log.
type served struct {
	// set once, then read-only
	daemon *Daemon
	pool   *pool.Pool
	events *pool.Subscription

	stopWork context.CancelFunc
	working  sync.WaitGroup // stopWork ends it
	watching sync.WaitGroup // the end of the subscription ends it

	mu sync.Mutex
	// mu guards the fields below. Only the goroutine that starts, changes or ends the pool sets them, and there is one
	// at a time
	checks *checkedPool // nil without checks
	finder *finder      // nil without discovery
	agents *agentPool   // nil without agents
}

// A finder is a running discovery.
type finder struct {
	kind    string // of the source, in the words of package pool
	runner  *discovery.Runner
	stop    context.CancelFunc
	working sync.WaitGroup // stop ends it
}

// newServed builds a pool of the configuration with its checks. Nothing runs before start.
func (d *Daemon) newServed(cfg *conf.Config, c *conf.Pool, from *files, secure *secured) (*served, error) {
	o := PoolOptions(c)
	o.Secure = secure.secure(c.Name)
	p, err := pool.New(o)
	if err != nil {
		return nil, err
	}
	p.SetRateShare(d.fleet.rateShare())
	s := &served{daemon: d, pool: p}
	if c.Health != nil {
		check, err := buildCheck(cfg, c, from, d.echo)
		if err != nil {
			return nil, err
		}
		s.checks = newCheckedPool(d.log, d.checks, p, check, c.Health.WantsPrimary())
	}
	s.agents = newAgentPool(d.log, d.checks, p, c)
	source, err := discoverySource(cfg, c, from)
	if err != nil {
		return nil, err
	}
	if source != nil {
		s.finder = newFinder(c.Discovery, source, p)
	}
	if _, err := p.Reconcile(sourceConfig, configSpecs(c)); err != nil {
		return nil, err
	}
	return s, nil
}

func newFinder(c *conf.Discovery, source discovery.Source, p *pool.Pool) *finder {
	return &finder{kind: c.Type, runner: buildDiscovery(c, source, p)}
}

// start starts the pool with its checks, its discovery and its event log.
func (s *served) start() {
	ctx, stop := context.WithCancel(context.Background())
	s.stopWork = stop
	s.events = s.pool.Subscribe(eventBuffer)
	log := newEventLog(s.daemon, s.pool, s.events)
	s.watching.Go(log.follow)
	s.working.Go(func() { s.pool.Run(ctx) })
	if s.finder != nil {
		s.finder.start(s.daemon.poke)
	}
	if s.checks != nil {
		s.checks.start(s.daemon.fleet.sharing())
	}
	if s.agents != nil {
		s.agents.start()
	}
}

// rivalries returns how often a second backend claimed to be the primary.
func (s *served) rivalries() int {
	if k, _ := s.works(); k != nil {
		return k.rivalries()
	}
	return 0
}

// refused reports whether every backend that answers refuses the credentials of its checks.
func (s *served) refused() bool {
	k, _ := s.works()
	return k != nil && k.credentials.Refused()
}

// lastRivalry returns when a second backend last claimed to be the primary; nil means never.
func (s *served) lastRivalry() *time.Time {
	if k, _ := s.works(); k != nil {
		return k.lastRivalry.Load()
	}
	return nil
}

// end ends what start has started. The sessions of the pool go on.
func (s *served) end() {
	if s.finder != nil {
		s.finder.end()
	}
	if s.agents != nil {
		s.agents.end(nil)
	}
	s.stopWork()
	s.working.Wait()
	if s.checks != nil {
		s.checks.end()
	}
	s.events.Close()
	s.watching.Wait()
}

// start starts the discovery. It calls answered after the first attempt, or when the discovery ends before that.
func (f *finder) start(answered func()) {
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	f.working.Go(func() { f.run(ctx) })
	f.working.Go(func() { f.announce(answered) })
}

func (f *finder) run(ctx context.Context) { _ = f.runner.Run(ctx) }

// announce waits for the first attempt. The runner closes First at its end at the latest, so stop also ends announce.
func (f *finder) announce(answered func()) {
	<-f.runner.First()
	answered()
}

// end stops the discovery and waits for its goroutines. The backends it found stay.
func (f *finder) end() {
	f.stop()
	f.working.Wait()
}

// setChecks sets the checks of the backends; nil for none.
func (s *served) setChecks(k *checkedPool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks = k
}

// changeAgents replaces the agents of the backends; nil asks none. What they have said before is forgotten if their
// port is another one.
func (s *served) changeAgents(k *agentPool) {
	if s.agents != nil {
		s.agents.end(k)
	}
	if s.agents = k; k != nil {
		k.start()
	}
}

// setFinder sets the discovery; nil for none.
func (s *served) setFinder(f *finder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finder = f
}

// works returns the checks and the discovery, either of which may be nil.
func (s *served) works() (*checkedPool, *finder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks, s.finder
}

// judged reports whether the pool's discovery has answered or failed once, and every backend has a verdict.
func (s *served) judged() bool {
	if _, f := s.works(); f != nil {
		select {
		case <-f.runner.First():
		default:
			return false
		}
	}
	for _, b := range s.pool.Backends() {
		if b.Verdict == pool.Unknown {
			return false
		}
	}
	return true
}

// servedPools returns a copy of the pools in force.
func (d *Daemon) servedPools() map[string]*served {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return maps.Clone(d.pools)
}

// judged reports whether all pools are judged.
func (d *Daemon) judged() bool {
	for _, s := range d.servedPools() {
		if !s.judged() {
			return false
		}
	}
	return true
}

// poke wakes up the start or the warm-up that waits for verdicts. It never blocks.
func (d *Daemon) poke() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}
