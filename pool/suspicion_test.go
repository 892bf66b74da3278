package pool

import (
	"testing"
	"testing/synctest"
	"time"
)

// suspected counts the Suspected events of a backend.
func suspected(events []Event, id string) (n int) {
	for _, e := range events {
		if s, is := e.(Suspected); is && s.Backend.ID == id {
			n++
		}
	}
	return n
}

// TestHints holds the effect of hints: at most one a second and backend is published. With checks, hints never count as
// failures. Without checks, ICMP errors count once a second, in a row that any answer ends, and unanswered questions do
// not count at all. A connection that is cut behind a PROXY header, or in the handshake after one, is
// such a hint, too.
func TestHints(t *testing.T) {
	for _, tt := range []struct {
		name    string
		checked bool
		hint    Outcome
		heard   bool // the backend answers others meanwhile
		opens   bool
		proxy   int
	}{
		{"ICMP, checked", true, ICMPError, false, false, 0},
		{"ICMP, unchecked", false, ICMPError, false, true, 0},
		{"ICMP, unchecked, and it answers", false, ICMPError, true, false, 0},
		{"no answer, checked", true, NoAnswer, false, false, 0},
		{"no answer, unchecked", false, NoAnswer, false, false, 0},
		{"cut behind a header, checked", true, CutEarly, false, false, 2},
		{"no TLS behind a header, checked", true, TLSFailed, false, false, 2},
		{"no TLS behind a header, unchecked", false, TLSFailed, false, true, 2},
		{"cut behind a header, unchecked", false, CutEarly, false, true, 2},
		{"cut behind a header, unchecked, and it answers", false, CutEarly, true, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pair(t, Options{Breaker: usual, Checked: tt.checked, SendProxy: tt.proxy})
				defer running(t, p)()
				events := p.Subscribe(1000)
				defer events.Close()
				long, _ := p.Pick(PickContext{}) // a flow of a's that goes on
				long.FirstByteTook(0, 0)
				for range 100 {
					release(p, "a", tt.hint)
				}
				synctest.Wait()
				all := drain(events)
				if n := suspected(all, "a"); n != 1 || len(open(p)) > 0 {
					t.Errorf("a hundred hints at once are published %d times, and open %v", n, open(p))
				}
				for range 10 {
					time.Sleep(time.Second)
					release(p, "a", tt.hint)
					release(p, "a", tt.hint)
					if tt.heard {
						long.Heard()
					}
					synctest.Wait()
				}
				if opens := len(open(p)) > 0; opens != tt.opens {
					t.Errorf("after ten seconds of hints open are %v", open(p))
				}
				if n := suspected(drain(events), "a"); n > 10 || !tt.opens && n != 10 {
					t.Errorf("ten seconds of hints are published %d times", n)
				}
			})
		})
	}
}

// TestHintOfATrial holds that a hint about a trial frees its place, except for ICMP without checks, which is a failure.
func TestHintOfATrial(t *testing.T) {
	for _, tt := range []struct {
		checked bool
		hint    Outcome
		want    Breaker
	}{
		{true, ICMPError, HalfOpen},
		{false, ICMPError, Open},
		{true, NoAnswer, HalfOpen},
		{false, NoAnswer, HalfOpen},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, stop := halfOpen(t, func(o *Options) { o.Checked = tt.checked })
			defer stop()
			l, _ := tryTrial(p)
			l.Release(tt.hint)
			if got := breakerOfA(p); got != tt.want {
				t.Errorf("checked: %v, after a trial with %v the breaker is %v", tt.checked, tt.hint, got)
			}
			if _, is := tryTrial(p); is != (tt.want == HalfOpen) {
				t.Errorf("checked: %v, after a trial with %v there is another one: %v", tt.checked, tt.hint, is)
			}
		})
	}
}

// TestHintsWithoutBreakers holds that hints are published also without breakers.
func TestHintsWithoutBreakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := made(t, Options{Checked: true}, at("a", 0, "", 0))
		defer running(t, p)()
		events := p.Subscribe(10)
		defer events.Close()
		release(p, "a", ICMPError)
		synctest.Wait()
		if n := suspected(drain(events), "a"); n != 1 {
			t.Errorf("published %d times", n)
		}
	})
}

// TestFailureIsAHint: a failed connect has the backend checked at once, once a second, in a pool with checks only.
func TestFailureIsAHint(t *testing.T) {
	for _, checked := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := pair(t, Options{Checked: checked}) // without a breaker, too
			defer running(t, p)()
			events := p.Subscribe(1000)
			defer events.Close()
			want := 0
			for range 3 {
				for range 10 {
					release(p, "a", ConnectRefused)
					release(p, "b", Served)
				}
				if checked {
					want++
				}
				time.Sleep(time.Second)
			}
			synctest.Wait()
			all := drain(events)
			if a, b := suspected(all, "a"), suspected(all, "b"); a != want || b != 0 {
				t.Errorf("checks %v: a is suspected %d times, b %d, want %d and 0", checked, a, b, want)
			}
		})
	}
}
