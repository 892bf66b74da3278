package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// A topSample is what the daemon says at one moment.
type topSample struct {
	at       time.Time
	status   admin.Status
	backends []admin.Backend
}

// sample asks the daemon.
func (r *remote) sample(ctx context.Context) (topSample, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	s := topSample{at: time.Now()}
	var err error
	if s.status, err = r.client.Status(ctx); err != nil {
		return s, err
	}
	s.backends, err = r.client.Backends(ctx, "")
	return s, err
}

// A topRates is how fast counters grow.
type topRates struct {
	New float64 `json:"new_per_second"` // sessions and flows
	In  float64 `json:"bytes_in_per_second"`
	Out float64 `json:"bytes_out_per_second"`
}

// A topSnapshot is a sample with the rates until then, as it is shown. Rates are nil where two samples cannot be
// compared: at the start, after a restart of the daemon, and for what is new.
type topSnapshot struct {
	At          time.Time `json:"at"`
	Interval    float64   `json:"interval_seconds"` // that byte rates are the mean of; 0 without rates
	Version     string    `json:"version"`
	PID         int       `json:"pid"`
	State       string    `json:"state"`
	Started     time.Time `json:"started"`
	Sessions    int       `json:"sessions"`
	MaxSessions int       `json:"max_sessions"`
	Rates       *topRates `json:"rates"`

	Fleet *admin.FleetSummary `json:"fleet,omitempty"`

	Listeners []topListener `json:"listeners"`
	Pools     []topPool     `json:"pools"`
	Backends  []topBackend  `json:"backends"`
}

type topListener struct {
	admin.Listener
	Rates *topRates `json:"rates"`
}

type topPool struct {
	admin.Pool
	Rates *topRates `json:"rates"`
}

type topBackend struct {
	admin.Backend
	Rates *topRates `json:"rates"`
}

// taken returns how many sessions a backend has got since the start.
func taken(b *admin.Backend) uint64 {
	n := uint64(max(b.Sessions, 0))
	for _, ended := range b.Outcomes {
		n += ended
	}
	return n
}

// A topCounters holds the counters of a sample: of listeners and of backends: sessions, bytes in and bytes out.
type topCounters struct {
	at     time.Time
	of     map[topKey][3]uint64
	daemon string // another one counts from 0
}

// A topKey names a listener or a backend.
type topKey struct{ group, name string }

func listenerKey(l *admin.Listener) topKey { return topKey{"listener " + l.Protocol, l.Name} }
func backendKey(b *admin.Backend) topKey {
	return topKey{"backend of " + b.Pool, b.Name + " " + b.Address}
}

func (s *topSample) counters() topCounters {
	c := topCounters{s.at, map[topKey][3]uint64{}, fmt.Sprint(s.status.PID, " ", s.status.Started.UnixNano())}
	for _, l := range s.status.Listeners {
		c.of[listenerKey(&l)] = [3]uint64{l.Accepted, l.BytesIn, l.BytesOut}
	}
	for _, b := range s.backends {
		c.of[backendKey(&b)] = [3]uint64{taken(&b), b.BytesIn, b.BytesOut}
	}
	return c
}

const (
	// newWindow is the time that rates of new sessions are the mean of: short enough to see a burst.
	newWindow = 3 * time.Second
	// bytesWindow is that of bytes: twice the time after which the daemon counts the bytes of running sessions.
	bytesWindow = 10 * time.Second
	// historyStep is the least time between two states that are kept for later rates.
	historyStep = 500 * time.Millisecond
)

// A topHistory is what rates are calculated from, the oldest first. Its zero value is ready.
type topHistory []topCounters

// add adds the counters of a sample, and forgets what is of another daemon, or older than any window. It keeps at least
// one earlier state: whoever asks less often than the windows are long gets the mean of one interval.
func (h *topHistory) add(now topCounters) {
	*h = slices.DeleteFunc(*h, func(c topCounters) bool { return c.daemon != now.daemon })
	for len(*h) > 1 && now.at.Sub((*h)[0].at) > bytesWindow+historyStep {
		*h = (*h)[1:]
	}
	if n := len(*h); n == 0 || now.at.Sub((*h)[n-1].at) >= historyStep {
		*h = append(*h, now)
	}
}

// since returns the states before now that lie in a window, or else the newest one before now; none if there is none.
func (h topHistory) since(now time.Time, window time.Duration) topHistory {
	for len(h) > 0 && !h[len(h)-1].at.Before(now) {
		h = h[:len(h)-1]
	}
	for len(h) > 1 && now.Sub(h[0].at) > window+historyStep {
		h = h[1:]
	}
	return h
}

// rate returns how fast a counter of one listener or backend has grown since the oldest state that has it; false if
// none has, as when it is new.
func (h topHistory) rate(key topKey, i int, now topCounters) (float64, bool) {
	for _, from := range h {
		if was, known := from.of[key]; known && now.of[key][i] >= was[i] {
			return float64(now.of[key][i]-was[i]) / now.at.Sub(from.at).Seconds(), true
		}
	}
	return 0, false
}

// rates returns the rates of one listener or backend until now; nil if they are not known.
func (h topHistory) rates(key topKey, now topCounters) *topRates {
	short, long := h.since(now.at, newWindow), h.since(now.at, bytesWindow)
	var r topRates
	var known [3]bool
	r.New, known[0] = short.rate(key, 0, now)
	r.In, known[1] = long.rate(key, 1, now)
	r.Out, known[2] = long.rate(key, 2, now)
	if slices.Contains(known[:], false) {
		return nil
	}
	return &r
}

// plus adds rates; nil counts as none.
func (r *topRates) plus(other *topRates) *topRates {
	switch {
	case other == nil:
		return r
	case r == nil:
		r = new(topRates)
	}
	return &topRates{r.New + other.New, r.In + other.In, r.Out + other.Out}
}

// measured returns the state of a sample with the rates until then, and adds the sample to the history.
func (h *topHistory) measured(sample topSample) *topSnapshot {
	s := &topSnapshot{
		At: sample.at, Version: sample.status.Version, PID: sample.status.PID, State: sample.status.State,
		Started: sample.status.Started, Sessions: sample.status.Sessions, MaxSessions: sample.status.MaxSessions,
		Fleet:     sample.status.Fleet,
		Listeners: []topListener{}, Pools: []topPool{}, Backends: []topBackend{},
	}
	now := sample.counters()
	h.add(now)
	if long := h.since(now.at, bytesWindow); len(long) > 0 {
		s.Interval = now.at.Sub(long[0].at).Seconds()
	}
	for _, l := range sample.status.Listeners {
		one := topListener{l, h.rates(listenerKey(&l), now)}
		s.Listeners = append(s.Listeners, one)
		s.Rates = s.Rates.plus(one.Rates)
	}
	ofPool := map[string]*topRates{}
	for _, b := range sample.backends {
		one := topBackend{b, h.rates(backendKey(&b), now)}
		s.Backends = append(s.Backends, one)
		ofPool[b.Pool] = ofPool[b.Pool].plus(one.Rates)
	}
	for _, p := range sample.status.Pools {
		s.Pools = append(s.Pools, topPool{p, ofPool[p.Name]})
	}
	return s
}

// once prints one measured snapshot: it needs two samples for the rates.
func (r *remote) once(ctx context.Context, interval time.Duration) error {
	first, err := r.sample(ctx)
	if err != nil {
		return err
	}
	select {
	case <-time.After(interval):
	case <-ctx.Done():
		return ctx.Err()
	}
	second, err := r.sample(ctx)
	if err != nil {
		return err
	}
	var h topHistory
	h.measured(first)
	s := h.measured(second)
	return r.print(s, func(w io.Writer) error { return printSnapshot(w, s, r.screen) })
}

func printSnapshot(w io.Writer, s *topSnapshot, sc screen) error {
	facts := [][2]string{
		{"process", fmt.Sprintf("%d, %s, version %s, up %s", s.PID, s.State, s.Version, s.uptime())},
		{"sessions", ofAtMost(s.Sessions, s.MaxSessions) + ", new " + cmp.Or(s.Rates.new(), "-")},
		{"in, out", cmp.Or(s.Rates.in(), "-") + ", " + cmp.Or(s.Rates.out(), "-")},
	}
	if s.Fleet != nil {
		facts = append(facts, [2]string{"fleet", fleetText(s.Fleet)})
	}
	for _, f := range facts {
		if err := sc.fact(w, 15, f[0], clean(f[1])); err != nil {
			return err
		}
	}
	for _, t := range []*table{topListenerTable(s.Listeners), topPoolTable(s.Pools), topBackendTable(s.Backends, true)} {
		fmt.Fprintln(w)
		if err := t.print(w, sc); err != nil {
			return err
		}
	}
	return nil
}

// uptime returns how long the daemon had run at the time of the snapshot.
func (s *topSnapshot) uptime() string { return duration(s.At.Sub(s.Started)) }

// The rates as cells; "" without rates.
func (r *topRates) new() string { return r.cell(func() string { return perSecond(r.New) }) }
func (r *topRates) in() string  { return r.cell(func() string { return size(uint64(r.In)) + "/s" }) }
func (r *topRates) out() string { return r.cell(func() string { return size(uint64(r.Out)) + "/s" }) }

func (r *topRates) cell(text func() string) string {
	if r == nil {
		return ""
	}
	return text()
}
