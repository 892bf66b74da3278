package healthcheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// hang is a check of a target that does not answer.
func hang(ctx context.Context, _ int) error {
	<-ctx.Done()
	return ctx.Err()
}

// A costs is a fake with a cost.
type costs struct {
	*fake
	sockets, programs int
}

// Cost implements Costly.
func (c costs) Cost() (sockets, programs int) { return c.sockets, c.programs }

// defaults is the policy of a pool that sets no key.
var defaults = Policy{
	Interval: 2 * time.Second, FastInterval: 500 * time.Millisecond, Timeout: time.Second,
	Rise: 2, Fall: 3, Jitter: 0.1,
}

// TestAPoolsTroubleStaysItsOwn makes the checks of one pool hang, or of many pools. There is a healthy backend in
// another pool, and one in the same pool. With the fewest slots that a daemon has, both are checked in time for an hour
// and keep their verdicts, as soon as it is known which backends hang.
func TestAPoolsTroubleStaysItsOwn(t *testing.T) {
	slow := defaults
	slow.Timeout = 10 * time.Second
	socket := func(f *fake) Checker { return f }
	script := func(f *fake) Checker { return costs{fake: f, programs: 1} }
	for name, tt := range map[string]struct {
		pools, backends int
		policy          Policy
		kind            func(*fake) Checker
		// how long it takes until the backend of the other pool, and the one of the same pool, is checked in time
		other, same time.Duration
	}{
		"300 backends swallow SYNs":    {1, 300, defaults, socket, 0, 30 * time.Second},
		"64 backends hang for 10 s":    {1, 64, slow, socket, 0, 50 * time.Second},
		"40 scripts hang for 10 s":     {1, 40, slow, script, 0, 180 * time.Second},
		"50 pools of 20 backends hang": {50, 20, defaults, socket, 60 * time.Second, 60 * time.Second},
		// It takes that long to find out which hang: 1,000 first checks of 10 s each, in 32 slots.
		"each of 1000 pools hangs for 10 s": {1000, 1, slow, socket, 350 * time.Second, 350 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				s := NewScheduler(Options{Concurrency: 32, Programs: 8, Report: j.report})
				sick, well := newFake(hang), newFake(func(context.Context, int) error {
					time.Sleep(10 * time.Millisecond)
					return nil
				})
				for p := range tt.pools {
					for b := range tt.backends {
						id := fmt.Sprintf("sick%d/%d", p, b)
						must(t, s.Add(Target{ID: id, Group: fmt.Sprint("sick", p)}, tt.kind(sick), tt.policy))
					}
				}
				must(t, s.Add(Target{ID: "same", Group: "sick0"}, tt.kind(well), tt.policy))
				must(t, s.Add(Target{ID: "other", Group: "other"}, tt.kind(well), defaults))
				start := time.Now()
				defer run(t, s)()
				later(time.Hour)
				checkInvariants(t, s)

				var changed []string
				flapped := 0
				for _, line := range j.take(start) {
					if !strings.HasPrefix(line, "sick") {
						changed = append(changed, line)
					} else if !strings.Contains(line, "unknown to unhealthy") {
						flapped++
					}
				}
				if flapped > 0 {
					t.Errorf("%d verdicts on those that always hang went stale", flapped)
				}
				slices.Sort(changed)
				if len(changed) != 2 || !strings.HasPrefix(changed[0], "other: unknown to healthy") ||
					!strings.HasPrefix(changed[1], "same: unknown to healthy") {
					t.Errorf("the verdicts on the healthy ones are %q, want each healthy once and for good", changed)
				}
				for id, settled := range map[string]time.Duration{"other": tt.other, "same": tt.same} {
					began := well.of(id, start)
					began = began[slices.IndexFunc(began, func(at time.Duration) bool { return at >= settled }):]
					if gap := longestGap(began); gap > 2500*time.Millisecond { // an interval is up to 2.2 s
						t.Errorf("%s was not checked for %v", id, gap)
					}
					if first := began[0] - settled; first > 2500*time.Millisecond || len(began) < 1000 {
						t.Errorf("%s: %d checks in an hour, the first %v too late", id, len(began), first)
					}
				}
			})
		})
	}
}

// longestGap returns the longest time between two consecutive times; at is in ascending order.
func longestGap(at []time.Duration) time.Duration {
	longest := time.Duration(0)
	for i := 1; i < len(at); i++ {
		longest = max(longest, at[i]-at[i-1])
	}
	return longest
}

// TestOneThatRecoversIsFound: of 300 targets that hang, one answers again. It is checked within one round of them all.
func TestOneThatRecoversIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		s := NewScheduler(Options{Concurrency: 32, Report: j.report})
		recovered := time.Now().Add(2 * time.Minute)
		f := newFake(hang)
		for i := range 299 {
			must(t, s.Add(target(fmt.Sprint(i)), f, defaults))
		}
		must(t, s.Add(target("a"), newFake(func(ctx context.Context, n int) error {
			if time.Now().Before(recovered) {
				return hang(ctx, n)
			}
			return nil
		}), defaults))
		defer run(t, s)()
		later(2 * time.Minute)
		j.take(recovered)
		later(30 * time.Second) // 16 slots of 32 make 16 checks a second of those that hang: a round takes 19 s
		if got := j.take(recovered); len(got) != 1 || !strings.HasPrefix(got[0], "a: unhealthy to healthy") {
			t.Errorf("after 30 s: %q, want a to be healthy", got)
		}
	})
}

// TestNoVerdictGoesStaleInTheQueue has so few slots that each target is checked once in 100 s, while a verdict becomes
// stale after 7 s without a result. Time in the queue does not count.
func TestNoVerdictGoesStaleInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(func(context.Context, int) error { time.Sleep(time.Second); return nil })
		var j journal
		s := NewScheduler(Options{Concurrency: 1, Report: j.report})
		p := usual
		p.Initial, p.Timeout = Healthy, 2*time.Second
		for i := range 100 {
			must(t, s.Add(target(fmt.Sprint(i)), f, p))
		}
		start := time.Now()
		defer run(t, s)()
		later(10 * time.Minute)
		wantLines(t, j.take(start))
		if n := len(f.of("99", start)); n < 5 || n > 7 {
			t.Errorf("the last one had %d checks, want about 6", n)
		}
	})
}

// TestSlotsOfChecks: a check with several sockets takes as many slots, and a check that runs a program takes program
// slots.
func TestSlotsOfChecks(t *testing.T) {
	for _, tt := range []struct {
		checker Checker
		kind    slotKind
		slots   int
	}{
		{newFake(succeed), socketSlots, 1},
		{costs{sockets: 3}, socketSlots, 3},
		{costs{}, socketSlots, 1},
		{costs{sockets: 3, programs: 2}, programSlots, 2},
		{fenced{checker: costs{sockets: 3}}, socketSlots, 3},
		{credentialed{checker: fenced{checker: costs{programs: 1}}}, programSlots, 1},
	} {
		if kind, slots := slotsOf(tt.checker); kind != tt.kind || slots != tt.slots {
			t.Errorf("%T takes %d slots of kind %d, want %d of kind %d", tt.checker, slots, kind, tt.slots, tt.kind)
		}
	}
}

// TestHeavyChecksAreNotStarved has a check of 30 sockets among many of one, with 32 slots.
func TestHeavyChecksAreNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler(Options{Concurrency: 32, Report: func([]Change) {}})
		light, heavy := newFake(func(ctx context.Context, n int) error {
			time.Sleep(900 * time.Millisecond)
			return nil
		}), newFake(succeed)
		for i := range 200 {
			must(t, s.Add(Target{ID: fmt.Sprint(i), Group: fmt.Sprint(i % 7)}, light, usual))
		}
		must(t, s.Add(Target{ID: "heavy", Group: "heavy"}, costs{fake: heavy, sockets: 30}, usual))
		start := time.Now()
		defer run(t, s)()
		later(time.Minute)
		if n := len(heavy.of("heavy", start)); n < 20 {
			t.Errorf("the heavy check had %d turns in a minute, want about 30", n)
		}
		if got := s.Stats().Sockets; got.Running > 32+29 {
			t.Errorf("%d slots taken", got.Running)
		}
	})
}

// TestMoveKeepsTheVerdict moves a healthy target to an address where its checks fail.
func TestMoveKeepsTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []string
		var j journal
		s := NewScheduler(Options{Report: j.report})
		must(t, s.Add(target("a"), checkerFunc(func(ctx context.Context, to Target) (Result, error) {
			at = append(at, to.Addr.String())
			if len(at) == 3 {
				<-ctx.Done() // the check under way when it is moved
			}
			if to.Addr.Port() == 2 {
				return Result{}, errSick
			}
			return Result{}, ctx.Err()
		}), usual))
		start := time.Now()
		defer run(t, s)()
		later(2600 * time.Millisecond) // checks at 0, 0.5 and 2.5 s
		moved := target("a")
		moved.Addr = netip.MustParseAddrPort("127.0.0.1:2")
		must(t, s.Move(moved))
		later(900 * time.Millisecond)
		wantLines(t, j.take(start), "a: unknown to healthy (check succeeded) at 500ms")
		later(time.Second)
		wantLines(t, j.take(start), "a: healthy to unhealthy (sick) at 3.6s") // 2.6 at once, 3.1, 3.6
		wantLines(t, at[:4], "127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2")
		moved.ID = "b"
		if err := s.Move(moved); err == nil {
			t.Error("a target that there is not was moved")
		}
		checkInvariants(t, s)
	})
}
