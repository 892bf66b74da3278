package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// A daemon is a running balancer: one configuration's pools, checks and listeners.
type daemon struct {
	cfg       *conf.Config
	log       zerolog.Logger
	pools     map[string]*pool.Pool
	checks    *healthcheck.Scheduler
	checked   []*checkedPool
	echo      *healthcheck.ICMP // for all checks that ping
	discovery []*discovery.Runner
	server    *l4.Server
}

// serve runs the balancer until a signal ends it: TERM drains, a second TERM, or an INT at any time, ends at once.
// Nothing is started before everything that can fail has been done.
func serve(ctx context.Context, file string, stderr io.Writer) error {
	cfg, err := load(ctx, file)
	if err != nil {
		return err
	}
	log, writer := newLog(cfg.Log, stderr)
	go writer.run()
	defer writer.Close()
	d, err := newDaemon(cfg, log)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may leave; sessions go on
	defer signal.Reset(syscall.SIGPIPE)

	d.run(ctx, signals)
	return nil
}

// newDaemon makes pools, checks and the server and opens the listeners. Clients that connect from now on wait
// in the kernel's queue.
func newDaemon(cfg *conf.Config, log zerolog.Logger) (*daemon, error) {
	pools, err := buildPools(cfg)
	if err != nil {
		return nil, err
	}
	d := &daemon{cfg: cfg, log: log, pools: pools, discovery: buildDiscovery(cfg, pools), echo: healthcheck.NewICMP()}
	if d.checks, d.checked, err = buildChecks(cfg, pools, d.echo, log); err != nil {
		return nil, err
	}
	d.server, err = l4.New(l4.Options{
		Loops: cfg.Global.Workers, MaxSessions: cfg.Global.MaxSessions, Access: cfg.Log.Access, Log: log,
	})
	if err != nil {
		return nil, err
	}
	if err := d.server.Apply(buildPlan(cfg, pools)); err != nil {
		_ = d.server.Shutdown(context.Background()) // it has not started
		return nil, d.located(err)
	}
	return d, nil
}

// located says of an error about a listener where in the file the cause stands.
func (d *daemon) located(err error) error {
	var listen *l4.ListenError
	if !errors.As(err, &listen) {
		return err
	}
	e := d.cfg.ErrorAt(conf.Path("listener", listen.Listener, "address"), listen.Err)
	e.Allowed = remedy(listen.Err)
	for _, l := range d.cfg.Listeners {
		if l.Name == listen.Listener {
			e.Found = fmt.Sprintf("%q", l.Address)
		}
	}
	return e
}

// remedy is what to do about an address that cannot be listened on.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "end what listens there already (see `ss -ltnp`), or choose another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "needs an address of this machine (see `ip address`)"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose another port"
	}
	return ""
}

// run serves until signals or ctx end it, and returns when all is gone.
func (d *daemon) run(ctx context.Context, signals <-chan os.Signal) {
	working, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	changed, stopEvents := d.watch()
	var background sync.WaitGroup
	background.Go(func() { _ = d.checks.Run(working) })
	for _, r := range d.discovery {
		background.Go(func() { _ = r.Run(working) })
	}
	for _, p := range d.pools {
		background.Go(func() { p.Run(working) })
	}
	defer d.echo.Close() // when the last check is gone
	defer background.Wait()
	defer stopEvents()
	defer stopWork()

	for _, warning := range d.cfg.Warnings() {
		d.log.Warn().Str("configuration", warning).Msg("allowed, but perhaps not meant")
	}
	for _, l := range d.cfg.Listeners {
		d.log.Info().Str("listener", l.Name).Str("address", resolved(l.Address, l.Bind)).Str("pool", l.Pool).Msg("listening")
	}
	d.shutDown(d.serveUntilEnd(ctx, signals, changed), signals)
}

// watch has the events of all pools logged and followed by the checks, and returns a channel that has something in it after
// one of them and after each first answer of a discovery.
func (d *daemon) watch() (changed <-chan struct{}, stop func()) {
	notify := make(chan struct{}, 1)
	poke := func() {
		select {
		case notify <- struct{}{}:
		default:
		}
	}
	var observers sync.WaitGroup
	var subs []*pool.Subscription
	for _, p := range d.pools {
		l := &eventLog{log: d.log, pool: p, events: p.Subscribe(eventBuffer)}
		pokes := p.Subscribe(1)
		subs = append(subs, l.events, pokes)
		observers.Go(l.follow)
		observers.Go(func() {
			for range pokes.C() {
				poke()
			}
		})
	}
	for _, c := range d.checked {
		subs = append(subs, c.changed)
		observers.Go(func() { c.follow(d.log) })
	}
	for _, r := range d.discovery {
		observers.Go(func() { // ends at the latest with the runner
			<-r.First()
			poke()
		})
	}
	return notify, func() {
		for _, s := range subs {
			s.Close()
		}
		observers.Wait()
	}
}

// maxFirstVerdicts bounds how long clients wait for the first checks of all backends at a start.
const maxFirstVerdicts = 5 * time.Second

// judged tells whether each discovery has answered or failed once, and there is a verdict on every backend.
func (d *daemon) judged() bool {
	for _, r := range d.discovery {
		select {
		case <-r.First():
		default:
			return false
		}
	}
	for _, p := range d.pools {
		for _, b := range p.Backends() {
			if b.Verdict == pool.Unknown {
				return false
			}
		}
	}
	return true
}

// serveUntilEnd sets the server going and waits for what ends the daemon; it tells whether that may drain first.
//
// The server starts once the checks have judged every backend, so that a restart refuses no client only because
// nothing is known yet; clients wait in the kernel's queue meanwhile, but no longer than maxFirstVerdicts.
func (d *daemon) serveUntilEnd(ctx context.Context, signals <-chan os.Signal, changed <-chan struct{}) (drain bool) {
	limit := time.NewTimer(maxFirstVerdicts)
	defer limit.Stop()
	ready := d.judged()
	for started := false; ; {
		if ready && !started {
			d.server.Start()
			d.log.Info().Str("version", version()).Msg("ready")
			started, changed = true, nil
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
			d.log.Warn().Msg("this version cannot reload its configuration; restart it instead")
		}
	}
}

// shutDown ends the server: after drain_timeout at the latest, or at once with the next signal.
func (d *daemon) shutDown(drain bool, signals <-chan os.Signal) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if drain && d.cfg.Global.DrainTimeout > 0 {
		timeout := d.cfg.Global.DrainTimeout.Std()
		d.log.Info().Int("sessions", d.server.Sessions()).Float64("drain_timeout", timeout.Seconds()).Msg("draining")
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
		go func() {
			for {
				select {
				case sig := <-signals:
					if sig != syscall.SIGHUP {
						cancel()
					}
				case <-ctx.Done():
					return
				}
			}
		}()
	} else {
		cancel()
	}
	if err := d.server.Shutdown(ctx); err != nil {
		d.log.Info().Msg("sessions left were ended")
	}
	d.log.Info().Msg("stopped")
}
