package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
)

// Run serves until signals or ctx end it, and returns when all is gone: TERM drains, a second one or an INT ends at once, HUP
// reloads. It is called once.
func (d *Daemon) Run(ctx context.Context, signals <-chan os.Signal) {
	checking, stopChecks := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { _ = d.checks.Run(checking) })
	background.Go(func() { d.keepPrimaries(checking) })
	background.Go(func() { d.notify.keepAlive(checking, d.liveWithin) })
	for _, s := range d.servedPools() {
		s.start()
	}
	defer d.naming.Wait() // without applying, which it may wait for
	defer d.echo.Close()  // when the last check is gone
	defer func() {
		d.applying.Lock() // a reload under way ends first
		defer d.applying.Unlock()
		d.stopNames()
		d.drains.end()
		for _, s := range d.servedPools() {
			s.end()
		}
		d.events.close()
		d.admin.end()
		d.retiring.Wait()
		stopChecks()
		background.Wait()
	}()

	for _, warning := range d.boot.Warnings() {
		d.log.Warn().Str("configuration", warning).Msg("allowed, but perhaps not meant")
	}
	for _, l := range d.boot.Listeners {
		d.log.Info().Str("listener", l.Name).Str("address", conf.ResolvedText(l.Address, l.Bind)).Str("pool", l.Pool).Msg("listening")
	}
	d.applying.Lock()
	d.tryNames()
	d.applying.Unlock()
	d.admin.serve(d)
	d.shutDown(d.serveUntilEnd(ctx, signals), signals)
}

// servedPools is a copy of the pools in force.
func (d *Daemon) servedPools() map[string]*served {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return maps.Clone(d.pools)
}

// maxFirstVerdicts bounds how long clients wait for the first checks of all backends at a start.
const maxFirstVerdicts = 5 * time.Second

// judged tells whether each pool is judged.
func (d *Daemon) judged() bool {
	for _, s := range d.servedPools() {
		if !s.judged() {
			return false
		}
	}
	return true
}

// serveUntilEnd sets the server going and waits for what ends the daemon; it tells whether that may drain first.
//
// The server starts once the checks have judged every backend, so that a restart refuses no client only because
// nothing is known yet; clients wait in the kernel's queue meanwhile, but no longer than maxFirstVerdicts.
func (d *Daemon) serveUntilEnd(ctx context.Context, signals <-chan os.Signal) (drain bool) {
	reloads := newReloads(d)
	defer reloads.end()
	limit := time.NewTimer(maxFirstVerdicts)
	defer limit.Stop()
	ready := d.judged()
	changed := d.changed
	for {
		if ready && changed != nil {
			d.begin()
			changed = nil
		}
		select {
		case <-changed:
			ready = d.judged()
		case <-limit.C:
			ready = true
		case <-ctx.Done():
			return false
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				return sig == syscall.SIGTERM
			}
			reloads.ask()
		}
	}
}

// begin serves clients from now on.
func (d *Daemon) begin() {
	d.server.Start()
	d.phase.Store(serving)
	close(d.started)
	d.applying.Lock()
	d.watchFile(d.config().Global.Watch)
	d.applying.Unlock()
	d.log.Info().Str("version", d.version).Msg("ready")
	d.notify.ready(d.summary())
}

// summary says in a line what is served.
func (d *Daemon) summary() string {
	cfg := d.config()
	return fmt.Sprintf("serving %d %s over %d %s", len(cfg.Listeners), plural(len(cfg.Listeners), "listener"), len(cfg.Pools), plural(len(cfg.Pools), "pool"))
}

// liveWithin is Live for the service manager's watchdog.
func (d *Daemon) liveWithin(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return d.Live(ctx)
}

// reloads makes a reload of each SIGHUP, one at a time: of those that come while one is under way, one more follows.
type reloads struct {
	asked chan struct{} // has room for one
	stop  context.CancelFunc
	done  chan struct{}
}

func newReloads(d *Daemon) *reloads {
	ctx, stop := context.WithCancel(context.Background())
	r := &reloads{asked: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	go r.run(ctx, d)
	return r
}

func (r *reloads) ask() {
	select {
	case r.asked <- struct{}{}:
	default: // the one that waits reads what the file says then
	}
}

func (r *reloads) run(ctx context.Context, d *Daemon) {
	defer close(r.done)
	for {
		select {
		case <-r.asked:
			_, _ = d.Reload(ctx) // what came of it is logged
		case <-ctx.Done():
			return
		}
	}
}

func (r *reloads) end() {
	r.stop()
	<-r.done
}

// shutDown ends the server: after drain_timeout at the latest, or at once with the next signal. Before that it goes on for
// drain_delay while /ready says no.
func (d *Daemon) shutDown(drain bool, signals <-chan os.Signal) {
	d.phase.Store(draining)
	d.beginEnd()
	d.stopWatching()
	cfg := d.config()
	d.events.publish(admin.Event{At: time.Now(), Kind: "draining"})
	d.notify.stopping("shutting down")
	ctx, hurry := context.WithCancel(context.Background())
	var listening sync.WaitGroup
	defer listening.Wait()
	defer hurry()
	timeout := cfg.Global.DrainTimeout.Std()
	if drain {
		listening.Go(func() { awaitSecond(ctx, signals, hurry) })
		d.delay(ctx, cfg.Global.DrainDelay.Std())
	}
	if drain && timeout > 0 {
		d.log.Info().Int("sessions", d.open()).Float64("drain_timeout", timeout.Seconds()).Msg("draining")
	} else {
		hurry()
	}
	if err := d.shutDownServer(ctx, timeout); err != nil {
		d.log.Info().Msg("sessions left were ended")
	}
	d.log.Info().Msg("stopped")
}

// shutDownServer lets the sessions go on to their end, until timeout has passed or ctx is done, and tells the service manager
// meanwhile.
func (d *Daemon) shutDownServer(ctx context.Context, timeout time.Duration) error {
	telling, told := context.WithCancel(ctx)
	var teller sync.WaitGroup
	teller.Go(func() { d.notify.tellDrain(telling, d.open, time.Now().Add(timeout)) })
	defer teller.Wait()
	defer told()
	limited, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	return d.server.Shutdown(limited)
}

// open is how many sessions and flows there are.
func (d *Daemon) open() int { return d.server.Sessions() + d.server.Flows() }

// awaitSecond calls hurry at the next signal that ends the daemon; it returns when ctx is done.
func awaitSecond(ctx context.Context, signals <-chan os.Signal, hurry func()) {
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				hurry()
			}
		case <-ctx.Done():
			return
		}
	}
}

// delay goes on serving for so long, until ctx is done.
func (d *Daemon) delay(ctx context.Context, length time.Duration) {
	if length <= 0 {
		return
	}
	d.log.Info().Float64("drain_delay", length.Seconds()).Msg("not ready any more: still serving for a while")
	telling, told := context.WithTimeout(ctx, length)
	defer told()
	d.notify.tellDelay(telling, time.Now().Add(length))
	<-telling.Done()
}

// stopWatching ends the watching of the file, and waits for a reload that it may have begun.
func (d *Daemon) stopWatching() {
	d.applying.Lock()
	d.watchFile(false)
	done := d.watcher.done
	d.applying.Unlock()
	if done != nil {
		<-done
	}
}
