package daemon

// takeOver begins to take over from another process, and returns the channel that gets the outcome; nil if there is no
// such process.
func (d *Daemon) takeOver() <-chan error {
	if d.from == nil {
		return nil
	}
	d.from.prepared()
	outcome := make(chan error, 1)
	d.from.working.Go(func() {
		err := d.from.follow(d.server)
		if err != nil {
			d.from.Refuse(err)
		}
		outcome <- err
	})
	return outcome
}

// beginAsMain is begin for a process that has taken over. The service manager learns that when the old process has said
// so, since it does not listen to this one before. Reloads and upgrades wait for that, too: the manager would not hear of
// them, and not of the process that takes over next.
func (d *Daemon) beginAsMain() {
	o := d.from
	o.admit(d.server)
	d.state.release()
	d.saveOrLog()
	d.continueLogLevel(o.offer.LogLevel)
	d.continueDrains(o.offer.Drains)
	o.offer = offer{} // it may be large
	d.fleet.start()
	d.admin.own(d)
	d.scrapes.own(d)
	d.admin.serve(d)
	d.scrapes.serve(d)
	d.begin()
	isMain := func() {
		d.notify.take()
		d.notify.ready(d.summary())
		d.life.allowReloads()
	}
	d.log.Info().Int("old_pid", o.hello.PID).Str("from", o.hello.Version).Str("to", d.version).
		Int("sessions", o.sessions).Int("flows", o.flows).Bool("old_gone", o.gone).Str("event", "took_over").
		Msg("took over")
	if o.gone {
		isMain()
		return
	}
	_ = o.conn.Send(kindFinished, noBody) // if it is gone, there is nobody to tell
	o.follows.Store(true)
	o.working.Go(func() {
		o.followLater(d.server, isMain)
		o.conn.Close()
		o.follows.Store(false)
		d.log.Info().Int("old_pid", o.hello.PID).Int("sessions", o.later).Str("event", "rest_taken_over").
			Msg("the old process has handed over the rest")
	})
}
