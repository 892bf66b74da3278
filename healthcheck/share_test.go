package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A server is what fake questions ask. It is the primary or a replica with a lag, or does not answer.
type server struct {
	mu sync.Mutex
	// mu guards the fields below
	role   Role
	lag    time.Duration
	err    error
	hangs  bool
	asked  []time.Time
	asking int
	twice  bool // it was asked twice at once
	lags   int  // how often it was asked for its lag
}

func (s *server) set(role Role, lag time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.role, s.lag, s.err = role, lag, err
}

// since returns how often it was asked after a moment.
func (s *server) since(at time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if a.After(at) {
			n++
		}
	}
	return n
}

// A question is an Asker with the wishes of a pool.
type question struct {
	servers map[netip.AddrPort]*server
	role    Role
	maxLag  time.Duration
	asksLag bool
}

// An answered question has what the server said.
type answered struct {
	role    Role
	lag     time.Duration
	withLag bool
}

func (q question) Check(ctx context.Context, t Target) (Result, error) {
	return Ask(ctx, q, t).Judge(q)
}

func (q question) Ask(ctx context.Context, t Target) (any, error) {
	s := q.servers[t.Addr]
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	s.twice = s.twice || s.asking > 0
	s.asking++
	hangs := s.hangs
	if q.asksLag || q.maxLag > 0 {
		s.lags++
	}
	s.mu.Unlock()
	time.Sleep(time.Millisecond)
	if hangs {
		<-ctx.Done()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking--
	if hangs {
		return nil, ctx.Err()
	}
	return answered{s.role, s.lag, q.asksLag || q.maxLag > 0}, s.err
}

func (q question) Judge(answer any) (Result, error) {
	a := answer.(answered)
	r := Result{Role: a.role, Detail: a.role.String()}
	switch {
	case q.maxLag > 0 && !a.withLag:
		return r, errors.New("nobody has asked for the lag")
	case q.role != RoleUnknown && q.role != a.role:
		return r, errReplica
	case q.maxLag > 0 && a.lag > q.maxLag:
		return r, &fakeError{"late", ErrLagging}
	}
	return r, nil
}

func (q question) Join(other Checker) Checker {
	o := other.(question)
	q.asksLag = q.asksLag || q.maxLag > 0 || o.asksLag || o.maxLag > 0
	return q
}

// A pair is two pools over the same server, with one check for both.
type pair struct {
	*Scheduler
	journal
	server  *server
	servers map[netip.AddrPort]*server
	start   time.Time
}

var sharedPlace = netip.MustParseAddrPort("127.0.0.1:1")

func newPair(t *testing.T) *pair {
	p := &pair{server: &server{role: RolePrimary}, start: time.Now()}
	p.servers = map[netip.AddrPort]*server{sharedPlace: p.server}
	p.Scheduler = NewScheduler(Options{Report: p.report})
	must(t, p.Add(p.of("rw"), p.asks(RolePrimary, 0), usual))
	must(t, p.Add(p.of("ro"), p.asks(RoleReplica, time.Second), usual))
	return p
}

// of returns the target of a pool.
func (p *pair) of(pool string) Target {
	return Target{ID: pool + "/b", Group: pool, Name: "b", Addr: sharedPlace}
}

func (p *pair) asks(role Role, maxLag time.Duration) Checker {
	return Shared{Checker: question{servers: p.servers, role: role, maxLag: maxLag}, Question: "?"}
}

// TestSharedCheck has two pools with different wishes: their server is asked once for both, and each has its verdict.
func TestSharedCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer run(t, p.Scheduler)()
		later(20 * time.Second)
		wantLines(t, p.take(p.start), "rw/b: unknown to healthy (primary) at 501ms",
			"ro/b: unknown to wrong_role (is a replica, wanted a primary) at 1.001s")
		// at 0, 0.5 and 1 s, and then every 2 s
		if n := p.server.since(p.start.Add(-1)); n != 12 || p.server.twice || p.server.lags != n {
			t.Errorf("the server was asked %d times, %d times for the lag, twice at once: %v", n, p.server.lags,
				p.server.twice)
		}
		stats := p.Stats()
		rw, ro := stats.Groups["rw"], stats.Groups["ro"]
		if rw.Checks != (Counts{Succeeded: 12}) || rw.Shared != 0 || ro.Checks != (Counts{}) || ro.Shared != 12 {
			t.Errorf("the pools have %+v and %+v", rw, ro)
		}
		if got := stats.Targets["ro/b"]; got.Checks != (Counts{FoundWrongRole: 12}) || got.Verdict != WrongRole ||
			got.Target.Group != "ro" {
			t.Errorf("the reader's target is %+v", got)
		}
		p.server.set(RoleReplica, 0, nil)
		later(4 * time.Second)
		wantLines(t, p.take(p.start), "ro/b: wrong_role to healthy (replica) at 21.501s",
			"rw/b: healthy to wrong_role (is a replica, wanted a primary) at 22.001s")
		p.server.set(RoleReplica, time.Minute, nil)
		later(4 * time.Second)
		wantLines(t, p.take(p.start), "ro/b: healthy to lagging (late) at 25.001s")
		p.server.set(RoleReplica, time.Minute, errSick)
		later(5 * time.Second)
		if got := p.take(p.start); len(got) != 2 {
			t.Errorf("when it is sick: %q", got)
		}
		checkInvariants(t, p.Scheduler)
	})
}

// TestSharedCheckParts removes and adds targets, and changes their checks: those that ask alike are asked once.
func TestSharedCheckParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer run(t, p.Scheduler)()
		asked := func(what string, want int) {
			t.Helper()
			checkInvariants(t, p.Scheduler)
			at := time.Now()
			later(20 * time.Second)
			if n := p.server.since(at); n != want {
				t.Errorf("%s: asked %d times in 20 s, want %d", what, n, want)
			}
		}
		later(10*time.Second + time.Millisecond)
		asked("at first", 10)
		if !p.Remove("rw/b") || p.Remove("rw/b") {
			t.Error("the writer's target was not there once")
		}
		asked("without the first", 10)
		must(t, p.Add(p.of("rw"), p.asks(RolePrimary, 0), usual))
		later(2 * time.Second)
		if v, _ := p.verdict("rw/b"); v != Healthy {
			t.Errorf("one that joins is %v after two seconds", v)
		}
		asked("with another one", 10)

		slow := usual
		slow.Interval = 4 * time.Second
		must(t, p.Update("rw/b", p.asks(RolePrimary, 0), slow))
		asked("with another interval", 15)
		must(t, p.Update("ro/b", p.asks(RoleReplica, 0), slow))
		asked("with that interval for both", 5)
		wishes := slow
		wishes.Rise, wishes.Fall, wishes.Initial = 5, 6, Healthy
		must(t, p.Update("ro/b", p.asks(RoleReplica, time.Hour), wishes))
		asked("with other wishes", 5)
		if p.server.twice {
			t.Error("the server was asked twice at once")
		}
		reads := question{servers: p.servers, role: RoleReplica}
		must(t, p.Update("ro/b", Shared{reads, "another"}, wishes))
		asked("with another question", 10)
		must(t, p.Update("ro/b", reads, wishes))
		asked("with one that is not shared", 10)
		must(t, p.Update("ro/b", p.asks(RoleReplica, 0), slow))
		asked("again", 5)

		elsewhere := netip.MustParseAddrPort("127.0.0.2:1")
		p.servers[elsewhere] = &server{role: RoleReplica}
		moved := p.of("ro")
		moved.Addr = elsewhere
		at := time.Now()
		must(t, p.Move(moved))
		asked("with the other elsewhere", 5)
		if n := p.servers[elsewhere].since(at.Add(-1)); n < 5 {
			t.Errorf("the place elsewhere was asked %d times", n)
		}
		must(t, p.Move(p.of("ro")))
		asked("with the other back, which has the wrong role again", 7)
		p.Remove("ro/b")
		p.Remove("rw/b")
		asked("without any", 0)
	})
}

// TestSharedCheckSoon: a suspicion of either pool brings the check forward, and no more than one.
func TestSharedCheckSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer run(t, p.Scheduler)()
		later(10*time.Second + 600*time.Millisecond)
		for _, id := range []string{"rw/b", "ro/b"} {
			at := time.Now()
			if !p.CheckSoon(id) || !p.CheckSoon("ro/b") || p.CheckSoon("other") {
				t.Error("a target is not known, or one that is not there is")
			}
			later(300 * time.Millisecond)
			if n := p.server.since(at.Add(-1)); n != 1 {
				t.Errorf("after a suspicion of %s: asked %d times", id, n)
			}
			later(600 * time.Millisecond)
		}
	})
}

// TestSharedCheckGetsStale: the verdicts of both pools become unknown when the check does not end, and only then.
func TestSharedCheckGetsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		stop := run(t, p.Scheduler)
		later(10*time.Second + time.Millisecond)
		p.take(p.start)
		never := Shared{checkerFunc(func(context.Context, Target) (Result, error) {
			time.Sleep(time.Minute) // it ignores its context
			return Result{}, nil
		}), "never"}
		policy := usual
		policy.StaleAfter = 5 * time.Second
		must(t, p.Update("rw/b", never, policy))
		must(t, p.Update("ro/b", never, policy))
		later(10 * time.Second)
		lines := p.take(p.start)
		slices.Sort(lines)
		if len(lines) != 2 || lines[0][:len("ro/b: wrong_role to unknown (no result for 5s)")] !=
			"ro/b: wrong_role to unknown (no result for 5s)" {
			t.Errorf("reports are %q", lines)
		}
		stop()
	})
}

// TestSharedCheckJudges: a fence and credentials of one pool see the answers to the shared question, and those of the
// other pool do not meddle.
func TestSharedCheckJudges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := map[netip.AddrPort]*server{}
		var j journal
		s := NewScheduler(Options{Report: j.report})
		rivals, refusals := 0, 0
		fence := NewFence(s, func(Rivalry) { rivals++ })
		creds := map[string]*Credentials{"rw": NewCredentials(s, func(Refusal) { refusals++ }),
			"ro": NewCredentials(s, func(Refusal) { refusals++ })}
		for i := range 2 {
			at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1+i))
			servers[at] = &server{role: RolePrimary}
			for pool, c := range creds {
				asks := Shared{question{servers: servers}, "?"}
				checker := c.Wrap(asks)
				if pool == "rw" {
					checker = fence.Wrap(checker)
				}
				must(t, s.Add(Target{ID: fmt.Sprint(pool, i), Group: pool, Addr: at}, checker, usual))
			}
		}
		stop := run(t, s)
		later(10 * time.Second)
		verdicts := func() (all string) {
			for _, id := range []string{"rw0", "rw1", "ro0", "ro1"} {
				v, _ := s.verdict(id)
				all += v.String() + " "
			}
			return all
		}
		if got := verdicts(); got != "healthy wrong_role healthy healthy " || rivals != 1 {
			t.Errorf("with two primaries: %s; %d rivalries", got, rivals)
		}
		for _, one := range servers {
			one.set(RolePrimary, 0, errRefused)
		}
		later(30 * time.Second)
		if got := verdicts(); got != "healthy wrong_role healthy healthy " || refusals != 2 {
			t.Errorf("with refused credentials: %s; %d refusals", got, refusals)
		}
		for at, one := range servers {
			if n := one.since(time.Now().Add(-10 * time.Second)); n < 4 || n > 21 || one.twice {
				t.Errorf("%v was asked %d times in 10 s, twice at once: %v", at, n, one.twice)
			}
		}
		stop()
	})
}

// TestSharedCheckModel adds, removes, updates and moves targets at random. The invariants hold, no place is asked twice
// at once by the same question, and in the end all targets have the verdict of their server.
func TestSharedCheckModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		seed := rapid.SliceOfN(rapid.IntRange(0, 1<<20), 5, 40).Draw(r, "steps")
		synctest.Test(t, func(t *testing.T) {
			servers := make(map[netip.AddrPort]*server)
			place := func(n int) netip.AddrPort {
				at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1+n%2))
				if servers[at] == nil {
					servers[at] = &server{role: RolePrimary}
				}
				return at
			}
			place(0)
			place(1)
			s := NewScheduler(Options{Report: func([]Change) {}})
			wants := make(map[string]Role)
			stop := run(t, s)
			synctest.Wait()
			for _, n := range seed {
				id := fmt.Sprint("t", n%5)
				role := []Role{RolePrimary, RoleReplica}[n/5%2]
				c := Shared{question{servers: servers, role: role, maxLag: time.Duration(n / 10 % 2)}, "?"}
				p := usual
				p.Interval += time.Duration(n/20%2) * time.Second
				p.Rise, p.Fall = 1+n/40%3, 1+n/120%3
				switch n / 360 % 5 {
				case 0, 1:
					if s.Add(Target{ID: id, Group: id, Addr: place(n / 1800)}, c, p) == nil {
						wants[id] = role
					}
				case 2:
					if s.Remove(id) {
						delete(wants, id)
					}
				case 3:
					if s.Update(id, c, p) == nil {
						wants[id] = role
					}
				case 4:
					_ = s.Move(Target{ID: id, Addr: place(n / 1800)})
				}
				checkInvariants(t, s)
				later(time.Duration(n%1500) * time.Millisecond)
			}
			later(20 * time.Second)
			checkInvariants(t, s)
			stats := s.Stats()
			if len(stats.Targets) != len(wants) {
				t.Errorf("%d targets, want %d", len(stats.Targets), len(wants))
			}
			for id, role := range wants {
				want := WrongRole
				if role == RolePrimary {
					want = Healthy
				}
				if got := stats.Targets[id].Verdict; got != want {
					t.Errorf("%s is %v, want %v", id, got, want)
				}
			}
			stop()
		})
	})
}
