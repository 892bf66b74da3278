package pool

import (
	"testing"
	"testing/synctest"
	"time"
)

// halfOpen returns a running pool of a and b, in which the breaker of a has just become half-open.
func halfOpen(t *testing.T, change func(*Options)) (p *Pool, stop func()) {
	t.Helper()
	o := Options{Breaker: usual, ConnectTimeout: 5 * time.Second}
	if change != nil {
		change(&o)
	}
	p = pair(t, o)
	stop = running(t, p)
	failThrice(p, "a", ConnectRefused)
	for p.Backends()[0].Breaker != HalfOpen {
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	return p, stop
}

// tryTrial returns a trial of a, if there is one.
func tryTrial(p *Pool) (Lease, bool) {
	l, err := p.Pick(PickContext{})
	if err != nil || l.trial == 0 {
		if err == nil {
			l.Release(Neutral)
		}
		return Lease{}, false
	}
	return l, true
}

func breakerOfA(p *Pool) Breaker {
	synctest.Wait()
	return p.Backends()[0].Breaker
}

// TestTrialHeld holds that a trial succeeds if the backend holds the connection without sending anything.
func TestTrialHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := halfOpen(t, nil)
		defer stop()
		l, _ := tryTrial(p)
		l.ConnectTook(0, 0)
		if got := breakerOfA(p); got != HalfOpen {
			t.Errorf("connected, the breaker is %v", got)
		}
		l.Held()
		if got := breakerOfA(p); got != Closed {
			t.Errorf("held, the breaker is %v", got)
		}
		l.FirstByteTook(0, 0)
		l.Release(CutEarly) // it is a session like any other by now
		if got := breakerOfA(p); got != Closed {
			t.Errorf("at the session's end the breaker is %v", got)
		}
	})
}

// TestTrialThatNeverEnds holds that a silent trial blocks others for its time only, and that the breaker closes in the
// end if trials reach the backend.
func TestTrialThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := halfOpen(t, nil)
		defer stop()
		l, _ := tryTrial(p)
		if _, is := tryTrial(p); is {
			t.Fatal("there are two trials at once")
		}
		time.Sleep(2 * p.settings().trialTime())
		synctest.Wait()
		next, is := tryTrial(p)
		if !is {
			t.Fatal("a trial keeps all others out")
		}
		l.Release(ConnectTimeout) // too late to be one's own
		if got := breakerOfA(p); got != HalfOpen {
			t.Errorf("after the end of a trial of before the breaker is %v", got)
		}
		next.Opened()
		time.Sleep(30 * time.Second)
		if got := breakerOfA(p); got != Closed {
			t.Errorf("after trials that did not fail the breaker is %v", got)
		}
		next.Release(ConnectTimeout)
		if got := breakerOfA(p); got != Closed || p.byID["a"].backend.record.failures.Load() != 1 {
			t.Errorf("a trial of before, which fails, leaves the breaker %v", got)
		}
	})
}

// TestTrialsThatSayNothing holds that neutral trials follow one another until the breaker closes, if one reached the
// backend. Otherwise the breaker stays half-open, and a later session is still a trial.
func TestTrialsThatSayNothing(t *testing.T) {
	for _, opened := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p, stop := halfOpen(t, nil)
			defer stop()
			for range 60 {
				l, is := tryTrial(p)
				if !is {
					break // closed
				}
				if opened {
					l.Opened()
				}
				l.Release(Neutral)
				time.Sleep(time.Second)
				synctest.Wait()
			}
			want := HalfOpen
			if opened {
				want = Closed
			}
			if got := breakerOfA(p); got != want {
				t.Fatalf("opened: %v, the breaker is %v, want %v", opened, got, want)
			}
			if opened {
				return
			}
			time.Sleep(time.Hour)
			l, is := tryTrial(p)
			if !is {
				t.Fatal("after an hour there is no trial")
			}
			l.Opened()
			if got := breakerOfA(p); got != HalfOpen {
				t.Errorf("just connected, the breaker is %v", got)
			}
			l.Release(CutEarly)
			if got := breakerOfA(p); got != Open {
				t.Errorf("after a trial that failed the breaker is %v", got)
			}
		})
	}
}

// TestTrialOfOneThatWasUnhealthy holds that a backend whose trials timed out while it was unhealthy gets new ones when
// it is healthy again.
func TestTrialOfOneThatWasUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := halfOpen(t, nil)
		defer stop()
		must(t, p.SetVerdict("a", Unhealthy, ""))
		time.Sleep(time.Hour)
		must(t, p.SetVerdict("a", Healthy, ""))
		synctest.Wait()
		l, is := tryTrial(p)
		if !is {
			t.Fatal("there is no trial")
		}
		time.Sleep(2 * p.settings().trialTime())
		synctest.Wait()
		if _, is := tryTrial(p); !is {
			t.Error("a trial keeps all others out")
		}
		l.Release(Neutral)
	})
}

// TestHeldEndsARow holds that the failures of one-way services, which never send anything, do not add up over weeks.
func TestHeldEndsARow(t *testing.T) {
	p := pair(t, Options{Breaker: usual})
	for range 20 {
		release(p, "a", ConnectRefused)
		for range 2 { // one of a, one of b
			l, err := p.Pick(PickContext{})
			must(t, err)
			l.ConnectTook(0, 0)
			l.Held()
			l.Release(Neutral)
		}
		p.actOnRecords()
	}
	if got := open(p); len(got) > 0 {
		t.Errorf("open are %v", got)
	}
}
