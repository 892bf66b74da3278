package discovery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// A script is a Source that does what its function says and remembers when it was asked.
type script struct {
	find func(ctx context.Context, n int) (Found, error) // n counts from 0

	mu sync.Mutex
	// mu guards the fields below
	asked []time.Time
}

// Find implements Source.
func (s *script) Find(ctx context.Context) (Found, error) {
	s.mu.Lock()
	n := len(s.asked)
	s.asked = append(s.asked, time.Now())
	s.mu.Unlock()
	return s.find(ctx, n)
}

// after returns when the source was asked, in seconds after start.
func (s *script) after(start time.Time) []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var seconds []float64
	for _, at := range s.asked {
		seconds = append(seconds, at.Sub(start).Seconds())
	}
	return seconds
}

// A watched is a script that can be watched, as its watch function says.
type watched struct {
	script
	watch func(ctx context.Context, changed func()) error
}

// Watch implements watcher.
func (w *watched) Watch(ctx context.Context, changed func()) error { return w.watch(ctx, changed) }

// answering returns a script of these answers; the last one repeats.
func answering(steps ...any) *script {
	return &script{find: func(_ context.Context, n int) (Found, error) {
		switch step := steps[min(n, len(steps)-1)].(type) {
		case error:
			return Found{}, step
		case Found:
			return step, nil
		case []pool.Spec:
			return Found{Backends: step}, nil
		}
		panic("neither an error nor an answer")
	}}
}

func noJitter() float64 { return 0 }

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the pool got %q, want %q", got, want)
	}
}

// later lets d pass and everything that is due by then happen.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestPauses(t *testing.T) {
	found := func(ttl time.Duration) Found { return Found{Backends: backends("10.0.0.1:1"), TTL: ttl} }
	down, up := errors.New("down"), found(0)
	for _, tt := range []struct {
		name    string
		refresh time.Duration
		random  float64
		steps   []any
		until   time.Duration
		want    []float64
	}{
		{"the refresh", 10 * time.Second, 0, []any{up}, 25 * time.Second, []float64{0, 10, 20}},
		{"the usual refresh", 0, 0, []any{up}, 65 * time.Second, []float64{0, 30, 60}},
		{"a shorter TTL", 10 * time.Second, 0, []any{found(4 * time.Second)}, 10 * time.Second, []float64{0, 4, 8}},
		{"a longer TTL", 10 * time.Second, 0, []any{found(time.Hour)}, 25 * time.Second, []float64{0, 10, 20}},
		{"another TTL each time", time.Minute, 0, []any{found(2 * time.Second), found(5 * time.Second)},
			10 * time.Second, []float64{0, 2, 7}},
		{"a TTL of almost nothing", time.Minute, 0, []any{found(1)}, 3500 * time.Millisecond, []float64{0, 1, 2, 3}},
		{"a refresh below the least TTL", 500 * time.Millisecond, 0, []any{found(1)}, 1200 * time.Millisecond,
			[]float64{0, 0.5, 1}},
		{"the most jitter", 10 * time.Second, 1, []any{found(5 * time.Second)}, 12 * time.Second,
			[]float64{0, 5.5, 11}},
		{"errors", 10 * time.Second, 0, []any{down}, 40 * time.Second, []float64{0, 1, 3, 7, 15, 25, 35}},
		{"errors beside a refresh of an hour", time.Hour, 0, []any{down}, 100 * time.Second,
			[]float64{0, 1, 3, 7, 15, 31, 61, 91}},
		{"errors, the most jitter", 10 * time.Second, 1, []any{down}, 8 * time.Second, []float64{0, 1.1, 3.3, 7.7}},
		{"a refresh below the first retry", 300 * time.Millisecond, 0, []any{down}, time.Second,
			[]float64{0, 0.3, 0.6, 0.9}},
		{"errors and answers in turn", 10 * time.Second, 0, []any{down, down, up, down, up}, 30 * time.Second,
			[]float64{0, 1, 3, 13, 14, 24}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, start := answering(tt.steps...), time.Now()
				stop := run(t, New(Options{
					Source: source, Pool: new(fakePool), Refresh: tt.refresh, Random: func() float64 {
						return tt.random
					},
				}))
				later(tt.until)
				stop()
				if got := source.after(start); !slices.Equal(got, tt.want) {
					t.Errorf("asked after %v s, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestPausesDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, start := answering(backends("10.0.0.1:1")), time.Now()
		stop := run(t, New(Options{Source: source, Pool: new(fakePool), Refresh: time.Minute}))
		later(time.Hour)
		stop()
		at := source.after(start)
		var pauses []float64
		for i, s := range at[1:] {
			pauses = append(pauses, s-at[i])
		}
		slices.Sort(pauses)
		if first, last := pauses[0], pauses[len(pauses)-1]; first < 60 || last > 66 || last-first < 1 {
			t.Errorf("pauses are from %v to %v s, want them spread over 60 to 66", first, last)
		}
	})
}

// TestReports makes a step each second and holds the report of each.
func TestReports(t *testing.T) {
	one, two := backends("10.0.0.1:1"), backends("10.0.0.1:1", "10.0.0.2:1")
	heavy := backends("10.0.0.1:1", "10.0.0.2:1")
	heavy[1].Weight = 7
	down, lost := errors.New("down"), errors.New("lost")
	refused := backends("10.0.0.9:1")
	type step struct {
		does   any
		report string // "" = nothing
		has    string
	}
	for _, tt := range []struct {
		name    string
		onError OnError
		static  string // an id that the pool has from elsewhere
		steps   []step
	}{
		{"changes, but nothing else", Keep, "", []step{
			{one, "x: 1 found, +1 -0 ~0, 0 ignored", "10.0.0.1:1"},
			{one, "", "10.0.0.1:1"},
			{two, "x: 2 found, +1 -0 ~0, 0 ignored", "10.0.0.1:1, 10.0.0.2:1"},
			{heavy, "x: 2 found, +0 -0 ~1, 0 ignored", "10.0.0.1:1, 10.0.0.2:1 w7 t0"},
			{one, "x: 1 found, +0 -1 ~0, 0 ignored", "10.0.0.1:1"},
			{[]pool.Spec{}, "x: 0 found, +0 -1 ~0, 0 ignored", ""},
			{[]pool.Spec{}, "", ""},
		}},
		{"a first answer of nothing", Keep, "", []step{
			{[]pool.Spec(nil), "x: 0 found, +0 -0 ~0, 0 ignored", ""},
			{[]pool.Spec(nil), "", ""},
		}},
		{"keep", Keep, "", []step{
			{two, "x: 2 found, +2 -0 ~0, 0 ignored", "10.0.0.1:1, 10.0.0.2:1"},
			{down, "x: -0, down", "10.0.0.1:1, 10.0.0.2:1"},
			{down, "", "10.0.0.1:1, 10.0.0.2:1"},
			{errors.New("down"), "", "10.0.0.1:1, 10.0.0.2:1"},
			{lost, "x: -0, lost", "10.0.0.1:1, 10.0.0.2:1"},
			{down, "x: -0, down", "10.0.0.1:1, 10.0.0.2:1"},
			{two, "x: 2 found, +0 -0 ~0, 0 ignored", "10.0.0.1:1, 10.0.0.2:1"},
			{two, "", "10.0.0.1:1, 10.0.0.2:1"},
			{down, "x: -0, down", "10.0.0.1:1, 10.0.0.2:1"},
			{one, "x: 1 found, +0 -1 ~0, 0 ignored", "10.0.0.1:1"},
		}},
		{"empty", Empty, "", []step{
			{down, "x: -0, down", ""},
			{two, "x: 2 found, +2 -0 ~0, 0 ignored", "10.0.0.1:1, 10.0.0.2:1"},
			{down, "x: -2, down", ""},
			{down, "", ""},
			{lost, "x: -0, lost", ""},
			{two, "x: 2 found, +2 -0 ~0, 0 ignored", "10.0.0.1:1, 10.0.0.2:1"},
		}},
		{"refused by the pool", Keep, "", []step{
			{one, "x: 1 found, +1 -0 ~0, 0 ignored", "10.0.0.1:1"},
			{refused, "x: -0, refused", "10.0.0.1:1"},
			{refused, "", "10.0.0.1:1"},
			{one, "x: 1 found, +0 -0 ~0, 0 ignored", "10.0.0.1:1"},
		}},
		{"refused by the pool, empty", Empty, "", []step{
			{one, "x: 1 found, +1 -0 ~0, 0 ignored", "10.0.0.1:1"},
			{refused, "x: -1, refused", ""},
			{refused, "", ""},
		}},
		{"backends that the pool has from elsewhere", Keep, "10.0.0.2:1", []step{
			{one, "x: 1 found, +1 -0 ~0, 0 ignored", "10.0.0.1:1"},
			{two, "x: 2 found, +0 -0 ~0, 1 ignored", "10.0.0.1:1"},
			{two, "", "10.0.0.1:1"},
			{one, "x: 1 found, +0 -0 ~0, 0 ignored", "10.0.0.1:1"},
		}},
		{"too many", Keep, "", []step{
			{one, "x: 1 found, +1 -0 ~0, 0 ignored", "10.0.0.1:1"},
			{make([]pool.Spec, maxBackends+1), "x: -0, discovery: too many backends: more than 10000", "10.0.0.1:1"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var steps []any
				for _, s := range tt.steps {
					steps = append(steps, s.does)
				}
				p := new(fakePool)
				p.static = map[string]bool{tt.static: true}
				p.refuse = func(specs []pool.Spec) error {
					if slices.Equal(specs, refused) {
						return errors.New("refused")
					}
					return nil
				}
				defer run(t, New(Options{
					Name: "x", Source: answering(steps...), Pool: p, Refresh: time.Second, OnError: tt.onError,
					Random: noJitter,
				}))()
				for i, s := range tt.steps {
					synctest.Wait()
					var want []string
					if s.report != "" {
						want = []string{s.report}
					}
					if got := p.take(); !slices.Equal(got, want) {
						t.Errorf("after step %d the pool got %q, want %q", i, got, want)
					}
					if got := p.now(); got != s.has {
						t.Errorf("after step %d the pool has %q, want %q", i, got, s.has)
					}
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// TestWhatIsInEffectIsNotAppliedAgain holds that an operator's run-time changes stay until the source changes its
// answer.
func TestWhatIsInEffectIsNotAppliedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, down := backends("10.0.0.1:1"), errors.New("down")
		p := new(fakePool)
		defer run(t, New(Options{Source: answering(one, one, down, one, one), Pool: p, Refresh: time.Second,
			Random: noJitter}))()
		later(10 * time.Second)
		if n := p.reconciles(); n != 1 {
			t.Errorf("the answer was applied %d times, want once", n)
		}
	})
}

// TestABackendFromElsewhereThatGoes holds that a backend which another source drops comes back, although the answer has
// not changed.
func TestABackendFromElsewhereThatGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(fakePool)
		p.static = map[string]bool{"10.0.0.1:1": true}
		defer run(t, New(Options{Name: "x", Source: answering(backends("10.0.0.1:1")), Pool: p, Refresh: time.Second,
			Random: noJitter}))()
		later(1500 * time.Millisecond)
		wantLines(t, p.take(), "x: 1 found, +0 -0 ~0, 1 ignored")
		p.mu.Lock()
		p.static = nil
		p.mu.Unlock()
		later(time.Second)
		wantLines(t, p.take(), "x: 1 found, +1 -0 ~0, 0 ignored")
	})
}

func TestFirst(t *testing.T) {
	for _, tt := range []struct {
		name   string
		does   any
		report string
	}{
		{"good", backends("10.0.0.1:1"), "x: 1 found, +1 -0 ~0, 0 ignored"},
		{"failed", errors.New("down"), "x: -0, down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, p, start := answering(tt.does), new(fakePool), time.Now()
				find := source.find
				source.find = func(ctx context.Context, n int) (Found, error) {
					time.Sleep(3 * time.Second)
					return find(ctx, n)
				}
				r := New(Options{Name: "x", Source: source, Pool: p})
				defer run(t, r)()
				<-r.First()
				if took := time.Since(start); took != 3*time.Second {
					t.Errorf("the first attempt was over after %v, want 3s", took)
				}
				wantLines(t, p.take(), tt.report) // it is in effect by then
			})
		})
	}
}

func TestEndWhileAsking(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(ctx context.Context) (Found, error)
	}{
		{"with an error", func(ctx context.Context) (Found, error) { return Found{}, ctx.Err() }},
		{"with an answer", func(context.Context) (Found, error) {
			return Found{Backends: backends("10.0.0.1:1")}, nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := new(fakePool)
				r := New(Options{Pool: p, OnError: Empty,
					Source: &script{find: func(ctx context.Context, _ int) (Found, error) {
						<-ctx.Done()
						return tt.end(ctx)
					}}})
				stop := run(t, r)
				later(time.Second)
				select {
				case <-r.First():
					t.Error("the first attempt is over before it ended")
				default:
				}
				stop()
				<-r.First() // whoever waits for it must not wait for ever
				if lines, n := p.take(), p.reconciles(); lines != nil || n != 0 {
					t.Errorf("the end was reported as %q and applied %d times, want neither", lines, n)
				}
			})
		})
	}
}

func TestOneAttemptIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, p, start := &script{find: func(ctx context.Context, _ int) (Found, error) {
			<-ctx.Done()
			return Found{}, ctx.Err()
		}}, new(fakePool), time.Now()
		defer run(t, New(Options{Name: "x", Source: source, Pool: p, Random: noJitter}))()
		later(findTimeout + 2*time.Second)
		wantLines(t, p.take(), "x: -0, context deadline exceeded")
		if got, want := source.after(start), []float64{0, 61}; !slices.Equal(got, want) {
			t.Errorf("asked after %v s, want %v", got, want)
		}
	})
}

func TestRunsOnce(t *testing.T) {
	r := New(Options{Source: answering(errors.New("down")), Pool: new(fakePool)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, r.Run(ctx))
	if err := r.Run(ctx); !errors.Is(err, ErrRan) {
		t.Errorf("the second Run returns %v, want ErrRan", err)
	}
}

func TestAsksAfterChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan int)
		source, start := &watched{script: *answering(backends("10.0.0.1:1"))}, time.Now()
		find := source.find
		source.find = func(ctx context.Context, n int) (Found, error) {
			time.Sleep(time.Second)
			return find(ctx, n)
		}
		source.watch = func(ctx context.Context, changed func()) error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case n := <-changes:
					for range n {
						changed()
					}
				}
			}
		}
		stop := run(t, New(Options{Source: source, Pool: new(fakePool), Refresh: 10 * time.Second, Random: noJitter}))
		later(3 * time.Second)
		changes <- 1 // asked at once, and the refresh counts from there
		later(11500 * time.Millisecond)
		changes <- 1000 // while it is asked: once more after that
		later(5 * time.Second)
		stop()
		if got, want := source.after(start), []float64{0, 3, 14, 15}; !slices.Equal(got, want) {
			t.Errorf("asked after %v s, want %v", got, want)
		}
	})
}

func TestWatchesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun []float64
		source, start := &watched{script: *answering(backends("10.0.0.1:1"))}, time.Now()
		source.watch = func(ctx context.Context, changed func()) error {
			begun = append(begun, time.Since(start).Seconds())
			switch len(begun) {
			case 1, 2:
				return errors.New("no folder")
			case 3:
				changed()
				time.Sleep(12 * time.Second)
				return errors.New("the folder went")
			}
			changed()
			<-ctx.Done()
			return nil
		}
		stop := run(t, New(Options{Source: source, Pool: new(fakePool), Refresh: time.Hour, Random: noJitter}))
		later(time.Minute)
		stop()
		if want := []float64{0, 2, 4, 16}; !slices.Equal(begun, want) {
			t.Errorf("watching began after %v s, want %v", begun, want)
		}
		if got, want := slices.Compact(source.after(start)), []float64{0, 2, 4, 16}; !slices.Equal(got, want) {
			t.Errorf("asked after %v s, want %v", got, want)
		}
	})
}

func TestOnErrorInWords(t *testing.T) {
	for o, want := range map[OnError]string{Keep: "keep", Empty: "empty", 7: "on_error(7)"} {
		if got := o.String(); got != want {
			t.Errorf("OnError %d is %q, want %q", uint8(o), got, want)
		}
	}
}
