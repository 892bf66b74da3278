package discovery

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

const (
	// defaultRefresh is the default of the configuration.
	defaultRefresh = 30 * time.Second
	// firstRetry is the pause after a first failure. A server that restarts is back within seconds, and one question a
	// second harms nobody.
	firstRetry = time.Second
	// lastRetry bounds the pause after failures, which doubles with each one; a shorter refresh bounds it too. If
	// answers are valid for hours, an outage of minutes must not become one of hours.
	lastRetry = 30 * time.Second
	// jitterShare lengthens each pause by up to a tenth, so that a fleet that started together does not always ask
	// together. It never shortens a pause: before the TTL has run out, a cache would give the old answer again.
	jitterShare = 0.1
	// findTimeout bounds one Find, whatever timeouts a resolv.conf has and however many targets an SRV record. The
	// default of resolv.conf(5) with three dead servers takes 30 s for one name.
	findTimeout = time.Minute
	// maxQuestions bounds the questions a second of one source in the long run. Otherwise a thousand targets with a TTL
	// of a second would cause two thousand every second.
	maxQuestions = 100
	// watchRetry is how often a source that cannot be watched is asked, and watching is tried again: the folder of a
	// file may appear later, or the kernel may have no watches left. For a local file both cost next to nothing.
	watchRetry = 2 * time.Second
)

// OnError says what happens to a pool's backends when their source gives no answer. The zero value is Keep.
type OnError uint8

// What to do on an error.
const (
	Keep  OnError = iota // the last known backends stay
	Empty                // the pool loses the source's backends until there is an answer
)

// String returns the setting as in the configuration.
func (o OnError) String() string {
	switch o {
	case Keep:
		return "keep"
	case Empty:
		return "empty"
	}
	return "on_error(" + strconv.Itoa(int(o)) + ")"
}

// A Pool is what a Runner changes and reports to; a *pool.Pool is one.
type Pool interface {
	// Reconcile replaces the backends of source with those of specs, or changes nothing on an error.
	Reconcile(source string, specs []pool.Spec, known ...pool.Judgement) (pool.Reconciled, error)
	// NoteDiscovery reports the result of an attempt to the pool's observers.
	NoteDiscovery(source string, found int, changed pool.Reconciled, err error)
}

// Options are the settings of a Runner, fixed for its life.
type Options struct {
	Name    string        // of the source, for the pool: "dns", "srv", "file", "patroni", "sentinel" or "etcd"
	Source  Source        // required
	Pool    Pool          // required
	Refresh time.Duration // from one question to the next, unless the answer's TTL is shorter; 0 = 30 s
	OnError OnError
	// Known are the backends that the pool has from an earlier runner of the same source, which has ended. Their roles
	// count until the first attempt.
	Known []pool.Spec
	// Random returns numbers from 0 to below 1, for the jitter; nil means those of math/rand. Only Run calls it.
	Random func() float64
}

// A Runner asks a source periodically and applies its answers to a pool. First may be called from any goroutine; Run is
// called once. The zero value is of no use, see New.
//
// An answer that equals the one in effect is not applied again, unless some of its backends were ignored because
// another source had them, which may have changed.
//
// While the source gives no answer, its backends may stay, but none of them has a role: what the source said of a
// cluster is no longer true then.
//
// It reports to the pool the first answer, every answer that changed something, and each change between answers and
// errors or from one error's text to another. An answer of which a part is of no use is reported with an error, and
// again when that error's text changes. It does not report the same error or answer again.
type Runner struct {
	// set once, then read-only
	o     Options
	first chan struct{} // closed by Run
	wake  chan struct{} // holds one signal; never closed

	ran atomic.Bool

	// only the goroutine of Run uses the fields below
	applied  bool        // there is an answer in effect
	inEffect []pool.Spec // its backends, and before the first answer those of Options.Known
	unusable string      // what else it names, as reported
	ignored  int         // how many of these the pool ignored because another source has them
	working  bool        // the last attempt succeeded
	failures int         // in a row, up to now
	failure  string      // text of the last one, as reported
}

// New returns a runner that does nothing before Run.
func New(o Options) *Runner {
	if o.Refresh <= 0 {
		o.Refresh = defaultRefresh
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return &Runner{o: o, first: make(chan struct{}), wake: make(chan struct{}, 1), inEffect: o.Known}
}

// First returns a channel that is closed once the first attempt is over and reported, at the latest when Run returns. A
// start that waits for it has the source's backends if that attempt succeeded.
func (r *Runner) First() <-chan struct{} { return r.first }

// Run asks and applies until ctx is done, and returns nil when everything it started has ended. The backends stay in
// the pool. A second Run returns ErrRan.
func (r *Runner) Run(ctx context.Context) error {
	if !r.ran.CompareAndSwap(false, true) {
		return ErrRan
	}
	var firstOver sync.Once
	over := func() { firstOver.Do(func() { close(r.first) }) }
	defer over()

	var watching sync.WaitGroup
	defer watching.Wait()
	if w, watches := r.o.Source.(watcher); watches {
		watching.Go(func() { r.watch(ctx, w) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(r.lengthen(r.ask(ctx)))
		over()
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.wake:
		}
	}
	return nil
}

// watch makes Run ask the source after each change, and every few seconds while the source cannot be watched.
func (r *Runner) watch(ctx context.Context, w watcher) {
	retry := time.NewTicker(watchRetry) // after a long watch a tick is ready
	defer retry.Stop()
	for ctx.Err() == nil {
		// The error is not reported, since it only causes a delay. If the file cannot be read either, Find returns that
		// error.
		_ = w.Watch(ctx, r.askSoon)
		select {
		case <-ctx.Done():
		case <-retry.C:
			r.askSoon()
		}
	}
}

// askSoon ends the pause of Run. It never blocks.
func (r *Runner) askSoon() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// ask makes one attempt and returns the pause after it.
func (r *Runner) ask(ctx context.Context) time.Duration {
	found, err := r.find(ctx)
	if ctx.Err() != nil {
		return 0 // the run is over, so the result no longer matters
	}
	if err == nil {
		err = r.succeed(found.Backends, found.Unusable)
	}
	if err != nil {
		return r.fail(err)
	}
	pause := r.o.Refresh
	if found.TTL > 0 {
		pause = min(pause, max(found.TTL, minTTL))
	}
	return max(pause, time.Duration(found.Asked)*time.Second/maxQuestions)
}

func (r *Runner) find(ctx context.Context) (Found, error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	found, err := r.o.Source.Find(ctx)
	if err == nil {
		err = checkNumber(len(found.Backends))
	}
	return found, err
}

// succeed applies an answer, and reports it if it is news. On an error it has done neither. unusable is what else the
// source names, or nil.
func (r *Runner) succeed(backends []pool.Spec, unusable error) error {
	changed := pool.Reconciled{Ignored: r.ignored}
	if !r.applied || r.ignored > 0 || !slices.Equal(backends, r.inEffect) {
		var err error
		if changed, err = r.o.Pool.Reconcile(r.o.Name, backends); err != nil {
			return err
		}
	}
	text := ""
	if unusable != nil {
		text = unusable.Error()
	}
	if !r.working || membership(changed) || changed.Ignored != r.ignored || text != r.unusable {
		r.o.Pool.NoteDiscovery(r.o.Name, len(backends), changed, unusable)
	}
	r.unusable = text
	r.applied, r.inEffect, r.ignored = true, backends, changed.Ignored
	r.working, r.failures = true, 0
	return nil
}

// fail handles an error as OnError says, reports it if it is news, and returns the pause after it.
func (r *Runner) fail(err error) time.Duration {
	var changed pool.Reconciled
	// An error of Reconcile would matter less than err, which is the reason for the call.
	if r.o.OnError == Empty {
		changed, _ = r.o.Pool.Reconcile(r.o.Name, nil)
		r.applied, r.inEffect, r.ignored = false, nil, 0
	} else if backends, had := withoutRoles(r.inEffect); had {
		changed, _ = r.o.Pool.Reconcile(r.o.Name, backends)
		r.inEffect, r.ignored = backends, changed.Ignored
	}
	if text := err.Error(); r.failures == 0 || text != r.failure || membership(changed) {
		r.o.Pool.NoteDiscovery(r.o.Name, 0, changed, err)
		r.failure = text
	}
	longest := min(lastRetry, r.o.Refresh)
	pause := firstRetry
	for i := 0; i < r.failures && pause < longest; i++ {
		pause *= 2
	}
	r.working = false
	r.failures++
	return min(pause, longest)
}

// withoutRoles returns a copy of the backends in which none has a role, and whether one had.
func withoutRoles(backends []pool.Spec) (cleared []pool.Spec, had bool) {
	cleared = slices.Clone(backends)
	for i := range cleared {
		had = had || cleared[i].Role != pool.RoleUnknown
		cleared[i].Role = pool.RoleUnknown
	}
	return cleared, had
}

// membership reports whether a Reconcile changed anything.
func membership(changed pool.Reconciled) bool {
	return changed.Added+changed.Removed+changed.Changed > 0
}

// lengthen adds the jitter to a pause.
func (r *Runner) lengthen(pause time.Duration) time.Duration {
	return pause + time.Duration(float64(pause)*jitterShare*r.o.Random())
}
