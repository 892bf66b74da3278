package session

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestEvidenceOfSessions is the table of docs/pools.md: what each end of a session that was connected says about its
// backend.
func TestEvidenceOfSessions(t *testing.T) {
	closesAt := func(at time.Duration) func(*Session) { return func(s *Session) { s.endOf(&s.out, at) } }
	const begun, connected = 60 * time.Second, 60*time.Second + 10*time.Millisecond
	const soon, late = connected + time.Millisecond, begun + pool.HeldAfter
	for _, tt := range []struct {
		name   string
		change func(*Session) // from a session by which nothing has moved
		why    tally.Reason
		at     time.Duration
		want   pool.Outcome
	}{
		// The backend ends it, and nobody has said anything.
		{"closes at once", closesAt(soon), tally.BackendClosed, soon, pool.CutEarly},
		{"closes at once, and the client in its turn later", closesAt(soon), tally.BackendClosed, late, pool.CutEarly},
		{"closes at once, and the client resets", closesAt(soon), tally.ClientReset, soon, pool.CutEarly},
		{"closes at once, and the client sends something then", func(s *Session) {
			s.endOf(&s.out, soon)
			s.in.bytes = 1
		}, tally.BackendClosed, late, pool.CutEarly},
		{"resets at once", nil, tally.BackendReset, soon, pool.CutEarly},
		{"is lost at once", nil, tally.BackendLost, soon, pool.CutEarly},
		{"closes a silent client later", closesAt(late), tally.BackendClosed, late, pool.Neutral},
		{"resets a silent client later", nil, tally.BackendReset, late, pool.Neutral},
		{"is lost later", nil, tally.BackendLost, late, pool.Neutral},
		// The client has done something before.
		{"closes after a byte of the client", func(s *Session) {
			s.in.bytes = 1
			s.endOf(&s.out, soon)
		}, tally.BackendClosed, soon, pool.Neutral},
		{"resets after a byte of the client", func(s *Session) { s.in.bytes = 1 },
			tally.BackendReset, soon, pool.Neutral},
		{"is lost after a byte of the client", func(s *Session) { s.in.bytes = 1 },
			tally.BackendLost, soon, pool.Neutral},
		{"closes after the client's FIN", func(s *Session) {
			s.endOf(&s.in, soon)
			s.endOf(&s.out, soon)
		}, tally.ClientClosed, soon, pool.Neutral},
		{"resets after the client's FIN", func(s *Session) { s.endOf(&s.in, soon) },
			tally.BackendReset, soon, pool.Neutral},
		// It had closed before a byte could be sent: those came too late to be the cause.
		{"had closed before the client's bytes", func(s *Session) { s.shunned, s.in.bytes = true, 9 },
			tally.BackendClosed, soon, pool.CutEarly},
		{"had reset before the client's bytes", func(s *Session) { s.shunned, s.in.bytes = true, 9 },
			tally.BackendReset, soon, pool.CutEarly},
		// It has spoken: whatever comes then, it works.
		{"closes after its first byte", func(s *Session) { s.firstByte = connected },
			tally.BackendClosed, soon, pool.Served},
		{"resets after its first byte", func(s *Session) { s.firstByte, s.in.bytes = connected, 1 },
			tally.BackendReset, late, pool.Served},
		{"a client resets after its first byte", func(s *Session) { s.firstByte = connected },
			tally.ClientReset, soon, pool.Served},
		// Others end it.
		{"the client closes first", nil, tally.ClientClosed, soon, pool.Neutral},
		{"the client resets", nil, tally.ClientReset, soon, pool.Neutral},
		{"the client is lost", nil, tally.ClientLost, late, pool.Neutral},
		{"idle", nil, tally.Idle, late, pool.Neutral},
		{"half-closed for too long", func(s *Session) { s.in.ended = true }, tally.HalfClose, late, pool.Neutral},
		{"the operator", nil, tally.EndedByOperator, soon, pool.Neutral},
		{"the checks", nil, tally.BackendUnhealthy, soon, pool.Neutral},
		{"a removal", nil, tally.BackendRemoved, soon, pool.Neutral},
	} {
		s := &Session{connect: begun, connected: connected}
		if tt.change != nil {
			tt.change(s)
		}
		if got := s.outcome(tt.why, tt.at); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestClientsAreNoEvidence has clients do anything to servers that work, which means: such a server ends a connection
// only because of something that its client has done, or after a second or more of silence. In any order and number,
// the pool hears nothing against a backend. That whatever it hears takes no pool's last backend is
// pool.TestBreakerNeverTakesTheLast.
func TestClientsAreNoEvidence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Hour
		p, err := pool.New(pool.Options{
			Name: "p", Algorithm: "round_robin", Initial: pool.Healthy,
			ConnectTimeout: 5 * time.Second, Clock: func() time.Duration { return now },
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "backends") {
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), 80)
			if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: pool.At(addr), Weight: 1}); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "sessions") {
			lease, err := p.Pick(pool.PickContext{})
			if err != nil {
				t.Fatal(err)
			}
			clientSession(t, lease, &now)
		}
		for _, b := range p.Backends() {
			for o, n := range b.Outcomes {
				if o := pool.Outcome(o); o != pool.Served && o != pool.Neutral && n > 0 {
					t.Fatalf("%v is told %d times of %+v", o, n, b)
				}
			}
		}
	})
}

// clientSession lives a session of a client that does as it likes with a server that works.
func clientSession(t *rapid.T, lease pool.Lease, now *time.Duration) {
	s := &Session{connect: *now, lease: lease}
	if rapid.IntRange(0, 9).Draw(t, "leaves before the connect") == 0 {
		lease.Release(pool.Neutral) // see abandon
		return
	}
	*now += time.Duration(rapid.IntRange(0, 5000).Draw(t, "connect ms")) * time.Millisecond
	s.connected = *now
	s.lease.ConnectTook(s.connected-s.connect, 0)
	*now += time.Duration(rapid.IntRange(0, 5000).Draw(t, "silence ms")) * time.Millisecond
	if *now >= s.connected+settleAfter {
		s.lease.Held()
	}
	sends, closes := rapid.Bool().Draw(t, "sends"), rapid.Bool().Draw(t, "closes its half")
	if sends {
		s.in.bytes = uint64(rapid.IntRange(1, 1000).Draw(t, "bytes"))
	}
	if closes {
		s.endOf(&s.in, *now)
	}
	served := rapid.SampledFrom([]tally.Reason{tally.BackendClosed, tally.BackendReset, tally.BackendLost})
	client := rapid.SampledFrom([]tally.Reason{
		tally.ClientClosed, tally.ClientReset, tally.ClientLost, tally.Idle, tally.HalfClose,
	})
	why := client.Draw(t, "ends")
	switch {
	case sends && rapid.Bool().Draw(t, "is answered"):
		s.firstByte = *now
		s.lease.FirstByteTook(0, 0)
		why = rapid.OneOf(served, client).Draw(t, "then ends")
	case (sends || closes) && rapid.Bool().Draw(t, "is not liked"):
		why = served.Draw(t, "the server ends")
	case !sends && !closes && *now-s.connected >= time.Second:
		why = served.Draw(t, "the server has had enough")
	}
	if why == tally.BackendClosed {
		s.endOf(&s.out, *now)
	}
	s.lease.Release(s.outcome(why, *now))
}
