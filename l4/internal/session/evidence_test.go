package session_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestEvidenceOfSessions is the table of docs/pools.md: what each end of a session that was connected says about its backend.
func TestEvidenceOfSessions(t *testing.T) {
	closesAt := func(at time.Duration) func(*session) { return func(s *session) { s.endOf(&s.out, at) } }
	const begun, connected = 60 * time.Second, 60*time.Second + 10*time.Millisecond
	const soon, late = connected + time.Millisecond, begun + pool.HeldAfter
	for _, tt := range []struct {
		name   string
		change func(*session) // from a session by which nothing has moved
		why    l4.Reason
		at     time.Duration
		want   pool.Outcome
	}{
		// The backend ends it, and nobody has said anything.
		{"closes at once", closesAt(soon), tally.BackendClosed, soon, pool.CutEarly},
		{"closes at once, and the client in its turn later", closesAt(soon), tally.BackendClosed, late, pool.CutEarly},
		{"closes at once, and the client resets", closesAt(soon), tally.ClientReset, soon, pool.CutEarly},
		{"closes at once, and the client sends something then", func(s *session) {
			s.endOf(&s.out, soon)
			s.in.bytes = 1
		}, tally.BackendClosed, late, pool.CutEarly},
		{"resets at once", nil, tally.BackendReset, soon, pool.CutEarly},
		{"is lost at once", nil, tally.BackendLost, soon, pool.CutEarly},
		{"closes a silent client later", closesAt(late), tally.BackendClosed, late, pool.Neutral},
		{"resets a silent client later", nil, tally.BackendReset, late, pool.Neutral},
		{"is lost later", nil, tally.BackendLost, late, pool.Neutral},
		// The client has done something before.
		{"closes after a byte of the client", func(s *session) {
			s.in.bytes = 1
			s.endOf(&s.out, soon)
		}, tally.BackendClosed, soon, pool.Neutral},
		{"resets after a byte of the client", func(s *session) { s.in.bytes = 1 }, tally.BackendReset, soon, pool.Neutral},
		{"is lost after a byte of the client", func(s *session) { s.in.bytes = 1 }, tally.BackendLost, soon, pool.Neutral},
		{"closes after the client's FIN", func(s *session) {
			s.endOf(&s.in, soon)
			s.endOf(&s.out, soon)
		}, tally.ClientClosed, soon, pool.Neutral},
		{"resets after the client's FIN", func(s *session) { s.endOf(&s.in, soon) }, tally.BackendReset, soon, pool.Neutral},
		// It had closed before a byte could be sent: those came too late to be the cause.
		{"had closed before the client's bytes", func(s *session) { s.shunned, s.in.bytes = true, 9 }, tally.BackendClosed, soon, pool.CutEarly},
		{"had reset before the client's bytes", func(s *session) { s.shunned, s.in.bytes = true, 9 }, tally.BackendReset, soon, pool.CutEarly},
		// It has spoken: whatever comes then, it works.
		{"closes after its first byte", func(s *session) { s.firstByte = connected }, tally.BackendClosed, soon, pool.Served},
		{"resets after its first byte", func(s *session) { s.firstByte, s.in.bytes = connected, 1 }, tally.BackendReset, late, pool.Served},
		{"a client resets after its first byte", func(s *session) { s.firstByte = connected }, tally.ClientReset, soon, pool.Served},
		// Others end it.
		{"the client closes first", nil, tally.ClientClosed, soon, pool.Neutral},
		{"the client resets", nil, tally.ClientReset, soon, pool.Neutral},
		{"the client is lost", nil, tally.ClientLost, late, pool.Neutral},
		{"idle", nil, tally.Idle, late, pool.Neutral},
		{"half-closed for too long", func(s *session) { s.in.ended = true }, tally.HalfClose, late, pool.Neutral},
		{"the operator", nil, tally.EndedByOperator, soon, pool.Neutral},
		{"the checks", nil, tally.BackendUnhealthy, soon, pool.Neutral},
		{"a removal", nil, tally.BackendRemoved, soon, pool.Neutral},
	} {
		s := &session{connect: begun, connected: connected}
		if tt.change != nil {
			tt.change(s)
		}
		if got := s.outcome(tt.why, tt.at); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestEvidenceOfErrors is the table of what an error of a connect or of a datagram says about a backend, by an error
// that this host knows and by one that ICMP tells.
func TestEvidenceOfErrors(t *testing.T) {
	for want, errnos := range map[pool.Outcome][]sock.Errno{
		pool.ConnectRefused: {syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED},
		pool.ConnectTimeout: {syscall.ETIMEDOUT},
		pool.ConnectUnreachable: {
			syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENONET, syscall.EACCES, syscall.EINVAL,
			syscall.ENODEV, syscall.ENXIO, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.EPFNOSUPPORT, syscall.EPROTONOSUPPORT,
			syscall.ENOPROTOOPT, syscall.EPROTO,
		},
		pool.Neutral: { // our own want, and what nobody has thought of
			syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.ENOSPC, syscall.EAGAIN, syscall.EADDRINUSE, syscall.EINTR,
			syscall.EPERM, syscall.EBADF, syscall.EFAULT, syscall.EISCONN, syscall.Errno(9999),
		},
	} {
		for _, e := range errnos {
			if got := connectOutcome(e); got != want {
				t.Errorf("%v (%d): %v, want %v", e, int(e), got, want)
			}
			if got := datagramOutcome(sock.Report{Errno: e, Sure: true}); got != want {
				t.Errorf("%v (%d), found out here: %v, want %v", e, int(e), got, want)
			}
			if got := datagramOutcome(sock.Report{Errno: e}); got != pool.ICMPError {
				t.Errorf("%v (%d), told by ICMP: %v", e, int(e), got)
			}
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
			Name: "p", Algorithm: "round_robin", Initial: pool.Healthy, ConnectTimeout: 5 * time.Second, Clock: func() time.Duration { return now },
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "backends") {
			if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), 80), Weight: 1}); err != nil {
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
	s := &session{connect: *now, lease: lease}
	if rapid.IntRange(0, 9).Draw(t, "leaves before the connect") == 0 {
		lease.Release(pool.Neutral) // see abandon
		return
	}
	*now += time.Duration(rapid.IntRange(0, 5000).Draw(t, "connect ms")) * time.Millisecond
	s.connected = *now
	s.lease.ConnectTook(s.connected - s.connect)
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
	served := rapid.SampledFrom([]l4.Reason{tally.BackendClosed, tally.BackendReset, tally.BackendLost})
	client := rapid.SampledFrom([]l4.Reason{tally.ClientClosed, tally.ClientReset, tally.ClientLost, tally.Idle, tally.HalfClose})
	why := client.Draw(t, "ends")
	switch {
	case sends && rapid.Bool().Draw(t, "is answered"):
		s.firstByte = *now
		s.lease.FirstByteTook(0)
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

// TestFlowTrialWithoutAnswers holds that a one-way service, which never answers, is used again after its breaker was
// open: a trial that goes on in silence keeps nobody out, and then the breaker closes.
func TestFlowTrialWithoutAnswers(t *testing.T) {
	silent, other := startUDP(t, nil), startUDP(t, nil)
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: time.Millisecond,
		Breaker: pool.BreakerOptions{Failures: 1, OpenFor: time.Millisecond, MaxOpenFor: time.Millisecond, Trials: 1, MaxOpenShare: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range []*l4test.UDPBackend{silent, other} {
		if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: netip.MustParseAddrPort(b.Address()), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	defer running.Wait()
	defer cancel()
	lease, err := p.Pick(pool.PickContext{})
	if err != nil {
		t.Fatal(err)
	}
	lease.Release(pool.ConnectRefused)
	breaker := func(want pool.Breaker) {
		t.Helper()
		eventually(t, "the breaker is "+want.String(), func() bool { return p.Backends()[0].Breaker == want })
	}
	breaker(pool.HalfOpen)
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	c := dialUDP(t, address(s))
	if _, err := c.Write([]byte("<14>a line")); err != nil {
		t.Fatal(err)
	}
	breaker(pool.Closed)
	if silent.Got.Load() != 1 {
		t.Error("there was no trial")
	}
}

// TestFlowUnsendable holds that a flow whose datagrams a firewall of ours drops goes on with another backend if it was
// never answered, and stays where it is if it was; the pool hears nothing against a backend.
func TestFlowUnsendable(t *testing.T) {
	a, b := startUDP(t, nil), startUDP(t, naming("b"))
	p := newPool(t, a.Address(), b.Address())
	s := start(t, l4.Options{Loops: 1}, flowSpec(p))
	c := dialUDP(t, address(s))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	awaitFlows(t, s, 1)
	refuse := func() {
		s.onFirstLoop(func(l *loop) {
			l.flows.store.all(func(f *flow) { l.leaveUnsendable(f, syscall.EPERM) })
		})
	}
	refuse()
	for range 2 {
		if got := askUDP(t, c, "x"); got != "b" {
			t.Errorf("%q", got)
		}
		refuse()
	}
	if n := s.Flows(); n != 1 {
		t.Errorf("%d flows", n)
	}
	for i, want := range []uint64{1, 0} { // the first has given its lease back, the second has it still
		for o, n := range p.Backends()[i].Outcomes {
			if pool.Outcome(o) == pool.Neutral && n != want || pool.Outcome(o) != pool.Neutral && n > 0 {
				t.Errorf("backend %d: %v is told %d times", i, pool.Outcome(o), n)
			}
		}
	}
}
