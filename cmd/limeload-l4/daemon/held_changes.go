package daemon

import "github.com/limeload/limeload-l4/cmd/limeload-l4/admin"

// holdChanges refuses run-time changes from now on, so that the new process gets all there are, and leaves the state file
// to it.
func (d *Daemon) holdChanges() {
	d.changes.Lock()
	d.changesHeld = true
	d.changes.Unlock()
	d.state.hold()
}

// allowChanges ends holdChanges.
func (d *Daemon) allowChanges() {
	d.state.release()
	d.saveOrLog() // a drain may have ended meanwhile, or a rule
	d.changes.Lock()
	d.changesHeld = false
	d.changes.Unlock()
}

// beginChange begins a run-time change, and returns the function that ends it. The error is admin.ErrUpgrading.
func (d *Daemon) beginChange() (end func(), err error) {
	d.changes.RLock()
	if d.changesHeld {
		d.changes.RUnlock()
		return nil, admin.ErrUpgrading
	}
	return d.changes.RUnlock, nil
}
