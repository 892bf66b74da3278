package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// maxFirstVerdicts bounds how long clients wait for the first checks of new backends, at the start and in a warm-up.
const maxFirstVerdicts = 5 * time.Second

// A state is one row of the table in the package comment.
type state int32

const (
	starting state = iota
	serving
	handingOver
	draining
)

// String is the state's name in the API.
func (s state) String() string {
	return [...]string{
		starting: "starting", serving: "serving", handingOver: "handing_over", draining: "draining",
	}[s]
}

// A life holds the state of a daemon and the turn that reloads, plans and late host names take. Only Daemon.Run changes
// the state; the methods current, untilEnd, awaitServing and takeTurn may be called from any goroutine. The zero value
// is of no use, see newLife.
//
// Invariant: at most one goroutine has the turn, and nobody gets it once end has returned.
type life struct {
	// set once, then read-only
	reloadable chan struct{} // closed by allowReloads
	// cancelled by end with the cause admin.ErrEnding; stored, since it cancels the turn of any caller
	ending context.Context
	cancel context.CancelCauseFunc
	turn   chan struct{} // holds an element while somebody has the turn
	wanted chan state    // from an upgrade, which has the turn, to Run

	now atomic.Int32 // a state
}

func newLife() *life {
	l := &life{reloadable: make(chan struct{}), turn: make(chan struct{}, 1), wanted: make(chan state)}
	l.ending, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// current returns the state.
func (l *life) current() state { return state(l.now.Load()) }

// serve changes the state to serving. Reloads and upgrades still wait for allowReloads.
func (l *life) serve() { l.now.Store(int32(serving)) }

// want makes Run change the state, and waits for that. Nothing happens once the daemon drains.
func (l *life) want(s state) {
	select {
	case l.wanted <- s:
	case <-l.ending.Done():
	}
}

// allowReloads lets the reloads and upgrades begin that wait in awaitServing.
func (l *life) allowReloads() { close(l.reloadable) }

// end changes the state to draining. It cancels what has the turn, waits for it, and keeps the turn for good.
func (l *life) end() {
	l.now.Store(int32(draining))
	l.cancel(admin.ErrEnding)
	l.turn <- struct{}{}
}

// untilEnd returns a context that ends with ctx or, with the cause admin.ErrEnding, when the daemon drains.
func (l *life) untilEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.ending, func() { cancel(admin.ErrEnding) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// endingOr returns admin.ErrEnding once the daemon drains, since that is then the cause of any other error, and else
// err.
func (l *life) endingOr(err error) error {
	if l.ending.Err() != nil {
		return admin.ErrEnding
	}
	return err
}

// awaitServing waits until reloads are allowed. The error is admin.ErrEnding if the daemon drains before that, or the
// error of ctx.
func (l *life) awaitServing(ctx context.Context) error {
	select {
	case <-l.reloadable:
		return nil
	case <-l.ending.Done():
	case <-ctx.Done():
	}
	return l.endingOr(ctx.Err())
}

// takeTurn waits for the turn. It returns the context of untilEnd for the work, and the function that gives the turn
// back. The error is admin.ErrEnding once the daemon drains, or the error of ctx.
func (l *life) takeTurn(ctx context.Context) (_ context.Context, giveBack func(), err error) {
	taken := false
	select {
	case l.turn <- struct{}{}:
		taken = true
	case <-l.ending.Done():
	case <-ctx.Done():
	}
	// Several cases may be ready, and select chooses at random: the end comes first, then ctx, then the turn.
	if err := l.endingOr(ctx.Err()); err != nil {
		if taken {
			<-l.turn
		}
		return nil, nil, err
	}
	ctx, cancel := l.untilEnd(ctx)
	return ctx, func() {
		cancel()
		<-l.turn
	}, nil
}

// Run takes the daemon through its whole life, as the table in the package comment has it, and returns when its last
// goroutine is gone. It may be called once. The error says why a daemon that was to take over from another process did
// not.
func (d *Daemon) Run(ctx context.Context, signals <-chan os.Signal) error {
	working, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup // stopWork ends it
	d.start(working, &work)
	hangups := newHangups(d)

	sig, err := d.serveUntilEnd(ctx, signals, hangups)

	d.life.end()
	d.fleet.changed()
	hangups.end()
	d.upgrades.Wait()
	d.endWatching()
	if u := d.replaced.Load(); u == nil {
		d.from.end()
		d.shutDown(sig == syscall.SIGTERM, signals)
	} else {
		d.fleet.end(true)
		u.forward(sig) // it came while the new process was taking over
		u.drain(signals)
	}

	d.tlsWatcher.end()
	d.accessWatcher.end()
	d.includeWatcher.end()
	d.stopNames()
	d.stopLogTime()
	d.naming.Wait()
	d.drains.end()
	for _, s := range d.servedPools() {
		s.end()
	}
	d.events.close()
	d.admin.end()
	d.scrapes.end()
	d.retiring.Wait()
	d.fleet.end(false)
	stopWork()
	work.Wait()
	d.echo.Close()
	return err
}

// start starts everything but the server. It needs no turn: nobody else can have it before the admin socket answers.
func (d *Daemon) start(ctx context.Context, work *sync.WaitGroup) {
	work.Go(func() { _ = d.checks.Run(ctx) })
	work.Go(func() { d.keepPrimaries(ctx) })
	work.Go(func() { d.rules.keep(ctx, d.saveOrLog) })
	work.Go(func() { d.notify.keepAlive(ctx, d.liveWithin) })
	for _, s := range d.servedPools() {
		s.start()
	}
	for _, warning := range fileWarnings(d.boot) {
		d.log.Warn().Str("configuration", warning).
			Str("event", "configuration_warning").Msg("allowed, but perhaps not meant")
	}
	for _, l := range d.boot.Listeners {
		d.log.Info().Str("listener", l.Name).Str("address", l.AddressText()).
			Str("pool", l.DefaultPool()).Str("event", "listening").Msg("listening")
	}
	d.logCertificates(d.contentWarnings, d.secured)
	d.watchFiles()
	d.tryNames()
	if d.from == nil {
		d.fleet.start()
		d.admin.serve(d)
		d.scrapes.serve(d)
	}
}

// serveUntilEnd starts to serve, and handles signals until one of them, or ctx, ends the daemon, or until a new process
// has taken over. It returns the signal, or nil.
//
// The server starts when the checks have judged every backend, so that a restart refuses no client only because no
// backend has a verdict yet. Clients wait in the kernel's queue until then, but no longer than maxFirstVerdicts.
//
// A process that takes over from another one then gets what that one has, before it is the main one and serves. The
// error says why that failed.
func (d *Daemon) serveUntilEnd(
	ctx context.Context, signals <-chan os.Signal, hangups *hangups,
) (sig os.Signal, err error) {
	limit := time.NewTimer(maxFirstVerdicts)
	defer limit.Stop()
	ready := d.judged()
	changed := d.changed // nil once it serves: then the warm-up of a reload reads it
	var takenOver <-chan error
	for {
		if ready && changed != nil {
			changed = nil
			// What reading the configuration has left is 2 of the process's first 4 MB, and more with many backends. A
			// process with few sessions would keep it, since it never allocates enough for a collection.
			debug.FreeOSMemory()
			d.server.Start()
			if takenOver = d.takeOver(); takenOver == nil {
				d.begin()
				d.life.allowReloads()
			}
		}
		select {
		case <-changed:
			ready = d.judged()
		case <-limit.C:
			ready = true
		case err := <-takenOver:
			if takenOver = nil; err != nil {
				return nil, err
			}
			d.beginAsMain()
		case s := <-d.life.wanted:
			if s == draining {
				return nil, nil
			}
			d.life.now.Store(int32(s))
			d.fleet.changed()
		case <-ctx.Done():
			return nil, nil
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
				hangups.reload()
			case syscall.SIGUSR2:
				d.upgrades.Go(func() { d.upgradeBySignal(ctx) })
			default:
				return sig, nil
			}
		}
	}
}

// begin is the transition from starting to serving, when the server has started. Reloads and upgrades are allowed later,
// so that the service manager reads READY before RELOADING, and that nobody else uses the watcher meanwhile.
func (d *Daemon) begin() {
	d.life.serve()
	d.fleet.changed()
	d.watchFile(d.config().Global.Watch)
	d.noteKernelTLS()
	d.log.Info().Str("version", d.version).Str("event", "ready").Msg("ready")
	d.notify.ready(d.summary())
}

// shutDown is the state draining. It goes on serving for drain_delay while /ready says no, then lets the sessions end
// until drain_timeout has passed. The next signal cuts both short; without drain they are left out.
func (d *Daemon) shutDown(drain bool, signals <-chan os.Signal) {
	cfg := d.config()
	d.events.publish(admin.Event{At: time.Now(), Kind: "draining"})
	d.notify.stopping("shutting down")
	ctx, hurry := context.WithCancel(context.Background())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer hurry()
	timeout := cfg.Global.DrainTimeout.Std()
	if drain {
		waiting.Go(func() { awaitSecond(ctx, signals, hurry) })
		d.delay(ctx, cfg.Global.DrainDelay.Std())
	}
	if drain && timeout > 0 {
		d.log.Info().Int("sessions", d.open()).Float64("drain_timeout", timeout.Seconds()).
			Str("event", "draining").Msg("draining")
	} else {
		hurry()
	}
	if err := d.shutDownServer(ctx, timeout); err != nil {
		d.log.Info().Str("event", "sessions_cut").Msg("sessions left were ended")
	}
	d.log.Info().Str("event", "stopped").Msg("stopped")
}

// shutDownServer waits for the sessions to end, until timeout has passed or ctx is done, and then ends those that are
// left. It reports to the service manager meanwhile.
func (d *Daemon) shutDownServer(ctx context.Context, timeout time.Duration) error {
	reporting, stopReport := context.WithCancel(ctx)
	var report sync.WaitGroup
	report.Go(func() { d.notify.reportDrain(reporting, d.open, time.Now().Add(timeout)) })
	defer report.Wait()
	defer stopReport()
	limited, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	return d.server.Shutdown(limited)
}

// open returns the number of open sessions and flows.
func (d *Daemon) open() int { return d.server.Sessions() + d.server.Flows() }

// awaitSecond calls hurry at the next signal that is to end the daemon. It returns when ctx is done.
func awaitSecond(ctx context.Context, signals <-chan os.Signal, hurry func()) {
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP && sig != syscall.SIGUSR2 {
				hurry()
			}
		case <-ctx.Done():
			return
		}
	}
}

// delay returns after length, or when ctx is done.
func (d *Daemon) delay(ctx context.Context, length time.Duration) {
	if length <= 0 {
		return
	}
	d.log.Info().Float64("drain_delay", length.Seconds()).
		Str("event", "drain_delayed").Msg("not ready any more: still serving for a while")
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	d.notify.reportDelay(ctx, time.Now().Add(length))
	<-ctx.Done()
}

// summary returns one line about what is served, for the service manager.
func (d *Daemon) summary() string {
	cfg := d.config()
	listeners, pools := len(cfg.Listeners), len(cfg.Pools)
	return fmt.Sprintf("serving %d %s over %d %s",
		listeners, plural(listeners, "listener"), pools, plural(pools, "pool"))
}

// liveWithin is Live for the watchdog of the service manager.
func (d *Daemon) liveWithin(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return d.Live(ctx)
}

// hangups reloads the configuration at each SIGHUP, one reload at a time. However many signals arrive during a reload,
// one more reload follows.
type hangups struct {
	pending chan struct{} // has room for one
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newHangups(d *Daemon) *hangups {
	ctx, stop := context.WithCancel(context.Background())
	h := &hangups{pending: make(chan struct{}, 1), stop: stop}
	h.running.Go(func() { h.run(ctx, d) })
	return h
}

// reload asks for a reload, and does not wait for it.
func (h *hangups) reload() {
	select {
	case h.pending <- struct{}{}:
	default: // the reload that is pending will read the file as it is then
	}
}

func (h *hangups) run(ctx context.Context, d *Daemon) {
	for {
		select {
		case <-h.pending:
			_, err := d.Reload(ctx) // it logs its outcome
			if u := d.replaced.Load(); u != nil && errors.Is(err, admin.ErrEnding) {
				u.forward(syscall.SIGHUP) // the new process may have read the file before it was changed
			}
		case <-ctx.Done():
			return
		}
	}
}

// end stops the goroutine and waits for it.
func (h *hangups) end() {
	h.stop()
	h.running.Wait()
}
