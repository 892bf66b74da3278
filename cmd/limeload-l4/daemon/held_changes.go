package daemon

import (
	"context"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// holdChanges refuses run-time changes from now on, so that the new process gets all there are, and leaves the state file
// to it.
func (d *Daemon) holdChanges() {
	d.changes.Lock()
	d.changesHeld = make(chan struct{})
	d.changes.Unlock()
	d.state.hold()
}

// allowChanges ends holdChanges.
func (d *Daemon) allowChanges() {
	d.state.release()
	d.saveOrLog() // a rule may have ended meanwhile
	d.changes.Lock()
	close(d.changesHeld)
	d.changesHeld = nil
	d.changes.Unlock()
}

// beginChange begins a run-time change, and returns the function that ends it. In a fleet there is one at a time. The
// error is admin.ErrUpgrading.
func (d *Daemon) beginChange() (end func(), err error) {
	d.changes.RLock()
	if d.changesHeld != nil {
		d.changes.RUnlock()
		return nil, admin.ErrUpgrading
	}
	return d.takeChangeTurn(), nil
}

// takeChangeTurn completes the beginning of a run-time change, and returns the function that ends it.
func (d *Daemon) takeChangeTurn() (end func()) {
	if d.fleet == nil {
		return d.changes.RUnlock
	}
	d.fleet.changes.turn.Lock()
	return func() {
		d.fleet.changes.turn.Unlock()
		d.changes.RUnlock()
	}
}

// awaitChange is beginChange for a change that waits for the end of an upgrade. The error is that of ctx.
func (d *Daemon) awaitChange(ctx context.Context) (end func(), err error) {
	for {
		d.changes.RLock()
		held := d.changesHeld
		if held == nil {
			return d.takeChangeTurn(), nil
		}
		d.changes.RUnlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
