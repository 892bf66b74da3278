package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fdconn"
	"github.com/limeload/limeload-l4/l4"
)

const (
	// sweepPause is the pause between two looks for sessions that have come to rest. A query or a transfer lasts longer,
	// and a look reads no socket.
	sweepPause = 100 * time.Millisecond

	// sweepBefore is how long the hand-over of sessions goes on before the answer. Nearly all that are only busy for a
	// moment have come to rest once by then.
	sweepBefore = 300 * time.Millisecond

	// answerWithin bounds each exchange with the new process once that is ready. Clients wait meanwhile, until it admits
	// them. One takes milliseconds, and a busy machine may delay it for seconds.
	answerWithin = 10 * time.Second
)

// batchOf returns how many sessions or flows go in one message. A session has two descriptors, a flow at most one.
func batchOf(p l4.Protocol) int {
	if p == l4.UDP {
		return fdconn.MaxFDs
	}
	return fdconn.MaxFDs / 2
}

// Upgrade has a new process of the program take over: it is started as this one was, prepares itself, and gets the
// listening sockets, the flows, and the sessions at rest. Then this daemon drains the rest and ends. After an error
// nothing has changed. The error is admin.ErrUpgrading or admin.ErrEnding, a *admin.RequestError, a *admin.ConfigError
// about the configuration that the new process has read, or a *admin.UpgradeError.
//
// It waits until the daemon serves, and until it has the turn; ctx bounds that alone.
func (d *Daemon) Upgrade(ctx context.Context, r admin.Upgrade) (admin.Upgraded, error) {
	deadline, err := r.Time()
	if err != nil {
		return admin.Upgraded{}, err
	}
	if !d.upgrading.CompareAndSwap(false, true) {
		return admin.Upgraded{}, admin.ErrUpgrading
	}
	defer d.upgrading.Store(false)
	if err := d.life.awaitServing(ctx); err != nil {
		return admin.Upgraded{}, err
	}
	_, giveBack, err := d.life.takeTurn(ctx)
	if err != nil {
		return admin.Upgraded{}, err
	}
	defer giveBack()
	ctx, cancel := d.life.untilEnd(context.WithoutCancel(ctx))
	defer cancel()
	d.life.want(handingOver)
	began := time.Now()
	u := &upgrade{daemon: d, deadline: deadline, until: began.Add(deadline)}
	done, err := u.run(ctx)
	if err != nil {
		err = d.noteUpgradeFailed(began, err)
		d.life.want(serving)
		return admin.Upgraded{}, err
	}
	done.Took = time.Since(began).Seconds()
	d.noteUpgraded(began, done)
	d.replaced.Store(u)
	d.life.want(draining)
	return done, nil
}

// upgradeBySignal is Upgrade for a signal. It logs its outcome.
func (d *Daemon) upgradeBySignal(ctx context.Context) {
	_, err := d.Upgrade(ctx, admin.Upgrade{})
	if errors.Is(err, admin.ErrUpgrading) || errors.Is(err, admin.ErrEnding) {
		d.log.Warn().AnErr("err", err).Str("event", "upgrade_failed").
			Msg("no upgrade") // all other errors are logged by Upgrade
	}
}

// An upgrade is the old process's side of one. The goroutine that has the turn of life uses it, and then Run.
type upgrade struct {
	// set once, then read-only
	daemon   *Daemon
	deadline time.Duration
	until    time.Time

	process  *newProcess
	handover *l4.Handover
	pending  []l4.Moving // detached, and perhaps not taken
	moved    map[l4.Protocol]int
	lost     bool // the new process does not answer any more
}

// run hands over. After an error the daemon has everything it had, but for what the new process had taken when it died.
func (u *upgrade) run(ctx context.Context) (done admin.Upgraded, err error) {
	d := u.daemon
	if os.Getpid() == 1 {
		return done, errors.New("this process is number 1, and a container ends with it; start another container instead")
	}
	if len(d.program) == 0 {
		return done, errors.New("this daemon was not started as a program that can be started again")
	}
	d.log.Info().Str("program", d.program[0]).Str("event", "upgrade_begins").
		Msg("upgrade: a new process is to take over")
	d.notify.upgrading()
	ctx, cancel := context.WithDeadline(ctx, u.until)
	defer cancel()
	d.holdChanges()
	if u.process, err = startNewProcess(d.program, d.notify.environment()); err != nil {
		d.allowChanges()
		return done, err
	}
	u.handover, err = d.server.HandOver()
	if err == nil {
		err = u.handOver(ctx)
	}
	if err != nil {
		err = u.process.explain(ctx, u.deadline, err)
		u.process.kill()
		if u.handover != nil {
			u.handover.Returned(u.pending)
			u.handover.Resume()
		}
		d.allowChanges()
		return done, err
	}
	u.sweepFor(sweepBefore)
	left, _ := u.handover.Left(context.WithoutCancel(ctx)) // only what people read; the deadline may have passed
	return admin.Upgraded{
		OldPID: os.Getpid(), NewPID: u.process.pid, OldVersion: d.version, NewVersion: u.process.hello.Version,
		Sessions: u.moved[l4.TCP], Flows: u.moved[l4.UDP], Left: left, Until: d.config().Global.DrainTimeout.Std().Seconds(),
	}, nil
}

// handOver lets the new process prepare itself, and gives it what the daemon serves. Up to the first flow or session ctx
// may cancel that. From then on the new process is given up only if it does not answer, however long all of it takes:
// what has gone over is lost with it.
func (u *upgrade) handOver(ctx context.Context) error {
	stop := u.process.bound(ctx)
	ready, err := u.prepare()
	if !stop() || err != nil {
		return errors.Join(err, ctx.Err())
	}
	u.process.patience = min(answerWithin, u.deadline)
	u.moved = make(map[l4.Protocol]int)
	u.handover.Pause()
	if err := u.move(l4.UDP); err != nil {
		return err
	}
	if err := u.process.ask(kindAdmit, noBody, nil, kindAdmitted, &struct{}{}); err != nil {
		return err
	}
	if err := u.move(l4.TCP); err != nil {
		return err
	}
	if err := u.count(); err != nil {
		return err
	}
	u.process.patience = max(answerWithin, u.deadline) // it writes the state file now, and the disk may be slow
	if err := u.process.ask(kindFinish, noBody, nil, kindFinished, &struct{}{}); err != nil {
		return err
	}
	u.process.patience = answerWithin
	u.finish(ready)
	return nil
}

// prepare returns when the new process has done all that can fail.
func (u *upgrade) prepare() (ready prepared, err error) {
	d, n := u.daemon, u.process
	own := newHello(d.version, os.Getpid())
	if err := n.ask(kindHello, own, nil, kindHello, &n.hello); err != nil {
		return ready, err
	}
	if err := own.fits(n.hello); err != nil {
		return ready, err
	}
	offered, fds, err := u.offer()
	if err != nil {
		return ready, err
	}
	listening := u.handover.Sockets()
	offered.Sockets = len(listening)
	if err := n.conn.Send(kindOffer, offered, fds...); err != nil {
		return ready, err
	}
	for len(listening) > 0 {
		some := listening[:min(len(listening), fdconn.MaxFDs)]
		listening = listening[len(some):]
		fds := make([]int, len(some))
		for i, s := range some {
			fds[i] = s.FD
		}
		if err := n.conn.Send(kindSockets, sockets{some}, fds...); err != nil {
			return ready, err
		}
	}
	if err := n.receive(kindPrepared, &ready); err != nil {
		return ready, err
	}
	return ready, u.count() // with the clients that sticky pools remember, before it admits any
}

// offer returns what the new process must know, with the descriptors of the sockets of HTTP.
func (u *upgrade) offer() (o offer, fds []int, err error) {
	d := u.daemon
	o = offer{State: d.collectState(), Drains: d.drains.offered()}
	if d.fleet != nil {
		o.Instance, o.Tickets = d.fleet.instance, d.fleet.tickets.offered()
	}
	if level := d.LogLevel(); level.Until != nil || level.Level != logLevel(d.config()).String() {
		o.LogLevel = level
	}
	for name, a := range d.httpSockets() {
		fd, err := descriptorOf(a.listener)
		if err != nil {
			return o, nil, err
		}
		o.HTTP = append(o.HTTP, offeredSocket{Name: name, Address: a.place})
		fds = append(fds, fd)
	}
	return o, fds, nil
}

// httpSockets returns the sockets on which the daemon answers HTTP, by their name in a hand-over.
func (d *Daemon) httpSockets() map[string]*httpSocket {
	all := make(map[string]*httpSocket)
	if d.admin.listener != nil {
		all[adminSocketName] = &d.admin.httpSocket
	}
	if d.scrapes.listener != nil {
		all[metricsSocketName] = &d.scrapes.httpSocket
	}
	return all
}

// descriptorOf returns the descriptor of a listener, which stays the listener's.
func descriptorOf(l net.Listener) (fd int, err error) {
	s, is := l.(syscall.Conn)
	if !is {
		return 0, fmt.Errorf("%s: it has no descriptor", l.Addr())
	}
	raw, err := s.SyscallConn()
	if err == nil {
		err = raw.Control(func(n uintptr) { fd = int(n) })
	}
	return fd, err
}

// move hands over what is at rest. It stops when the new process has no room. What that has refused is not offered again.
func (u *upgrade) move(p l4.Protocol) error {
	for {
		u.pending = u.handover.Detach(p, batchOf(p))
		if len(u.pending) == 0 {
			return nil
		}
		message, fds := newMoving(p, u.pending)
		var answer taken
		if err := u.process.ask(kindMoving, message, fds, kindTaken, &answer); err != nil {
			return err
		}
		moved, returned, err := answer.split(u.pending)
		if err != nil {
			return err
		}
		u.pending = nil
		u.handover.Moved(moved)
		u.handover.Returned(returned)
		u.moved[p] += len(moved)
		if err := u.process.conn.Send(kindBegin, noBody); err != nil {
			return err
		}
		if answer.Full {
			return nil
		}
	}
}

// count hands over what was counted since the last call.
func (u *upgrade) count() error {
	return u.process.ask(kindCounters, u.handover.Counters(), nil, kindCounted, &struct{}{})
}

// finish makes the new process the main one. There is no way back.
func (u *upgrade) finish(ready prepared) {
	d := u.daemon
	d.events.publish(u.event(time.Now()))
	for name, a := range d.httpSockets() {
		if slices.Contains(ready.HTTP, name) {
			admin.Leave(a.listener)
		}
		a.server.BeginShutdown()
	}
	u.handover.Finish()
	d.notify.pass(u.process.pid)
	u.process.conn.SetDeadline(time.Now().Add(answerWithin))
	if err := u.process.conn.Send(kindMain, noBody); err != nil {
		u.lose(err)
	}
}

// event is the event that ends the streams of events.
func (u *upgrade) event(now time.Time) admin.Event {
	return admin.Event{
		At: now, Kind: "upgraded", From: u.daemon.version, To: u.process.hello.Version,
		Text: fmt.Sprintf("process %d took over %d sessions and %d flows", u.process.pid, u.moved[l4.TCP], u.moved[l4.UDP]),
	}
}

// noteUpgradeFailed logs and publishes why an upgrade has failed, and returns the error for the API.
func (d *Daemon) noteUpgradeFailed(began time.Time, err error) error {
	if _, known := errors.AsType[*admin.ConfigError](err); !known && !errors.Is(err, admin.ErrEnding) {
		err = &admin.UpgradeError{Err: err}
	}
	d.log.Error().AnErr("err", err).Str("event", "upgrade_failed").
		Msg("upgrade failed: this process goes on")
	d.notify.ready("the last upgrade failed, and the old process goes on: " + err.Error())
	d.events.publish(admin.Event{At: began, Kind: "upgrade_failed", Reason: err.Error()})
	return err
}

// noteUpgraded logs an upgrade.
func (d *Daemon) noteUpgraded(began time.Time, u admin.Upgraded) {
	left := 0
	for _, n := range u.Left {
		left += n
	}
	d.log.Info().Int("pid", u.NewPID).Str("from", u.OldVersion).Str("to", u.NewVersion).Int("sessions", u.Sessions).
		Int("flows", u.Flows).Int("left", left).Float64("took", time.Since(began).Seconds()).Str("event", "upgraded").
		Msg("upgraded")
}
