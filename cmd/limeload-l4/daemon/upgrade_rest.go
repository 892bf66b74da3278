package daemon

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// sweepFor hands over sessions that come to rest within a time.
func (u *upgrade) sweepFor(length time.Duration) {
	for end := time.Now().Add(length); u.daemon.open() > 0 && time.Now().Before(end); {
		time.Sleep(sweepPause)
		u.sweep()
	}
}

// sweep hands over the sessions that have come to rest, and what was counted, after finish. If the new process does not
// answer, this one keeps the rest. What was detached then goes back only if the new process is gone, since it might
// serve it otherwise.
func (u *upgrade) sweep() {
	if u.lost {
		return
	}
	err := u.move(l4.TCP)
	if err == nil {
		err = u.count()
	}
	if err != nil {
		u.lose(err)
	}
}

// lose gives the new process up.
func (u *upgrade) lose(err error) {
	u.lost = true
	u.daemon.log.Error().AnErr("err", err).Int("pid", u.process.pid).Str("event", "new_process_lost").
		Msg("the new process does not answer any more")
	if isEnd(err) {
		u.handover.Returned(u.pending)
	} else {
		u.handover.Moved(u.pending)
	}
	u.pending = nil
	u.process.conn.Close()
}

// drain is the state draining of a process that was replaced. Sessions that come to rest still go to the new process;
// those that are left when drain_timeout has passed, or after a signal, are ended.
func (u *upgrade) drain(signals <-chan os.Signal) {
	d := u.daemon
	ctx, hurry := context.WithTimeout(context.Background(), d.config().Global.DrainTimeout.Std())
	defer hurry()
	stopped := make(chan struct{})
	go func() { // ends with hurry
		defer close(stopped)
		awaitSecond(ctx, signals, hurry)
	}()
	d.log.Info().Int("sessions", d.open()).Float64("drain_timeout", d.config().Global.DrainTimeout.Std().Seconds()).
		Str("event", "draining").Msg("draining what could not be handed over")
	tick := time.NewTicker(sweepPause)
	defer tick.Stop()
	// What this process has taken over from an older one still comes, when upgrades follow one another quickly.
	for before := u.moved[l4.TCP]; (d.open() > 0 || d.from.mayHaveMore()) && ctx.Err() == nil && !u.lost; {
		select {
		case <-tick.C:
			u.sweep()
		case <-ctx.Done():
		}
		if n := u.moved[l4.TCP]; n > before {
			d.log.Debug().Int("sessions", n-before).Str("event", "rest_handed_over").
				Msg("sessions went to the new process")
			before = n
		}
	}
	d.from.end()
	if err := d.server.Shutdown(ctx); err != nil {
		d.log.Info().Str("event", "sessions_cut").Msg("sessions left were ended")
	}
	u.sweepCounters()
	hurry()
	<-stopped
	u.process.conn.Close()
	d.log.Info().Str("event", "stopped").Msg("stopped: the new process serves")
}

// sweepCounters hands over what was counted until the end.
func (u *upgrade) sweepCounters() {
	if u.lost {
		return
	}
	if err := u.count(); err != nil {
		u.lose(err)
	}
}

// forward passes a signal on that was meant for the daemon, to the process that is the main one now.
func (u *upgrade) forward(s os.Signal) {
	if number, is := s.(syscall.Signal); is { // nil is none
		_ = syscall.Kill(u.process.pid, number) // it may have ended
	}
}
