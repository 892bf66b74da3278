package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
)

// drains holds the drains under way that have a deadline or remove the backend at their end. Its methods may be called
// from any goroutine; its zero value is of no use, see newDrains.
type drains struct {
	// set once, then read-only
	ctx  context.Context // stop cancels it; stored, since drains outlive the calls that begin them
	stop context.CancelFunc

	running sync.WaitGroup

	mu sync.Mutex
	// mu guards the fields below
	byTarget map[string]*drain
}

// A drain is the drain of one backend. It is immutable.
type drain struct {
	pool, backend string
	progress      admin.DrainProgress // without Left
	from          admin.Origin        // who wants the removal
	stop          context.CancelFunc
}

func newDrains() *drains {
	ctx, stop := context.WithCancel(context.Background())
	return &drains{ctx: ctx, stop: stop, byTarget: make(map[string]*drain)}
}

// progress returns how far the drain of a backend has come; nil if there is none.
func (ds *drains) progress(pool string, b pool.BackendInfo) *admin.DrainProgress {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	dr := ds.byTarget[targetID(pool, b.ID)]
	if dr == nil {
		return nil
	}
	p := dr.progress
	p.Left = b.Leases + b.Former
	return &p
}

// cancel ends the drain of a backend, if there is one. The backend keeps its mode.
func (ds *drains) cancel(pool, backend string) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	id := targetID(pool, backend)
	if dr := ds.byTarget[id]; dr != nil {
		dr.stop()
		delete(ds.byTarget, id)
	}
}

// begin starts a drain, and cancels the previous drain of the same backend.
func (ds *drains) begin(
	pool, backend string, p admin.DrainProgress, from admin.Origin, run func(context.Context),
) {
	ctx, stop := context.WithCancel(ds.ctx)
	dr := &drain{pool: pool, backend: backend, progress: p, from: from, stop: stop}
	id := targetID(pool, backend)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if before := ds.byTarget[id]; before != nil {
		before.stop()
	}
	ds.byTarget[id] = dr
	ds.running.Go(func() {
		defer stop()
		run(ctx)
		ds.mu.Lock()
		defer ds.mu.Unlock()
		if ds.byTarget[id] == dr {
			delete(ds.byTarget, id)
		}
	})
}

// offered returns the drains under way, for a process that takes over.
func (ds *drains) offered() []offeredDrain {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	var all []offeredDrain
	for _, dr := range ds.byTarget {
		o := offeredDrain{Pool: dr.pool, Backend: dr.backend, Started: dr.progress.Started,
			Sessions: dr.progress.Sessions, Remove: dr.progress.Remove, By: dr.from.By, Local: dr.from.Local}
		if dr.progress.Deadline != nil {
			o.Deadline = *dr.progress.Deadline
		}
		all = append(all, o)
	}
	return all
}

// continueDrains goes on with the drains of another process.
func (d *Daemon) continueDrains(all []offeredDrain) {
	for _, o := range all {
		s, err := d.served(o.Pool)
		if err != nil {
			continue // the configuration has no such pool any more
		}
		p := admin.DrainProgress{Started: o.Started, Sessions: o.Sessions, Remove: o.Remove}
		var deadline time.Duration // 0 is none
		if !o.Deadline.IsZero() {
			p.Deadline = &o.Deadline
			deadline = max(time.Until(o.Deadline), time.Millisecond)
		}
		from := admin.Origin{By: o.By, Local: o.Local}
		d.drains.begin(o.Pool, o.Backend, p, from, func(ctx context.Context) {
			d.drain(ctx, s, o.Backend, deadline, drainRemoval{o.Remove, from})
		})
	}
}

// end cancels all drains and waits for them.
func (ds *drains) end() {
	ds.stop()
	ds.running.Wait()
}

// DrainBackend gives a backend no new sessions. It ends the existing ones at the deadline, if there is one, and then
// may remove the backend.
func (d *Daemon) DrainBackend(name, id string, r admin.Drain) (admin.Backend, error) {
	g := d.give(admin.Origin{By: r.By, Local: r.Local})
	answer, err := d.drainBackend(name, id, r, g)
	return g.answer(answer, err)
}

func (d *Daemon) drainBackend(name, id string, r admin.Drain, g *giving) (admin.Backend, error) {
	end, err := d.beginChange()
	if err != nil {
		return admin.Backend{}, err
	}
	defer end()
	s, err := d.served(name)
	if err != nil {
		return admin.Backend{}, err
	}
	deadline, err := r.Time()
	if err != nil {
		return admin.Backend{}, err
	}
	b, err := s.info(id)
	if err != nil {
		return admin.Backend{}, err
	}
	if err := s.pool.SetMode(id, pool.Drain); err != nil {
		return admin.Backend{}, err
	}
	d.drains.cancel(name, id)
	p := admin.DrainProgress{Started: time.Now(), Sessions: b.Leases + b.Former, Remove: r.Remove}
	var ends time.Time
	if deadline > 0 {
		ends = p.Started.Add(deadline)
		p.Deadline = &ends
	}
	g.settings(s.pool, id, ends, fieldMode)
	// Read before the drain starts: a backend without sessions is removed at once.
	answer, err := d.changedBackend(s, id)
	if deadline > 0 || r.Remove {
		p.Left = answer.Sessions + b.Former
		remove := drainRemoval{wanted: r.Remove, from: g.from}
		d.drains.begin(name, id, p, g.from, func(ctx context.Context) { d.drain(ctx, s, id, deadline, remove) })
		answer.Drain = &p
	}
	return answer, err
}

// A drainRemoval says whether the backend is removed at the end of its drain, and who wants that.
type drainRemoval struct {
	wanted bool
	from   admin.Origin
}

// drain waits for the end of a backend's drain, removes the backend if asked to, and reports the end.
func (d *Daemon) drain(ctx context.Context, s *served, id string, deadline time.Duration, remove drainRemoval) {
	ended, err := d.awaitDrained(ctx, s, id, deadline)
	if err != nil {
		return // another call or a reload has cancelled the drain
	}
	// At an upgrade the backend may have no sessions here because they went over: the new process goes on with the drain.
	end, err := d.awaitChange(ctx)
	if err != nil {
		return
	}
	defer end()
	if remove.wanted {
		if err := s.pool.Remove(id); err != nil {
			return
		}
		d.give(remove.from).backend(s.pool, id)
		if err := d.saveState(); err != nil {
			d.log.Error().AnErr("err", err).Str("event", "state_not_saved").Msg("state not saved")
		}
	}
	d.log.Info().Str("pool", s.pool.Name()).Str("backend", id).Int("ended", ended).Bool("removed", remove.wanted).
		Str("event", "backend_drained").Msg("backend drained")
	d.events.publish(admin.Event{
		At: time.Now(), Kind: "drained", Pool: s.pool.Name(), Backend: id,
		Text: fmt.Sprintf("%d sessions ended", ended),
	})
}

// awaitDrained waits until a backend has no sessions left. It ends the remaining ones at the deadline (0 is none), and
// returns how many they were. If a reload gives the backend another address, it also waits for the sessions at the old
// one, and ends them. If a reload removes the backend or sets another mode, that is an error.
func (d *Daemon) awaitDrained(
	ctx context.Context, s *served, id string, deadline time.Duration,
) (ended int, err error) {
	if deadline > 0 {
		untilDeadline, cancel := context.WithTimeout(ctx, deadline)
		err = s.pool.WaitDrained(untilDeadline, id)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return 0, err
		}
		if ended, err = d.endSessions(ctx, s.pool.Name(), id); err != nil {
			return 0, err
		}
	}
	return ended, s.pool.WaitDrained(ctx, id)
}
