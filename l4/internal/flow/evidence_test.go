package flow_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// TestFlowTrialWithoutAnswers holds that a one-way service, which never answers, is used again after its breaker was
// open: a trial that goes on in silence keeps nobody out, and then the breaker closes.
func TestFlowTrialWithoutAnswers(t *testing.T) {
	silent, other := l4test.StartUDP(t, nil), l4test.StartUDP(t, nil)
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: time.Millisecond,
		Breaker: pool.BreakerOptions{
			Failures: 1, OpenFor: time.Millisecond, MaxOpenFor: time.Millisecond, Trials: 1, MaxOpenShare: 1,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range []*l4test.UDPBackend{silent, other} {
		addr := netip.MustParseAddrPort(b.Address())
		if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: pool.At(addr), Weight: 1}); err != nil {
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
		l4test.Eventually(t, "the breaker is "+want.String(), func() bool { return p.Backends()[0].Breaker == want })
	}
	breaker(pool.HalfOpen)
	s := l4test.Start(t, l4.Options{Loops: 1}, l4test.FlowSpec(p))
	c := l4test.DialUDP(t, l4test.Address(s))
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
	a, b := l4test.StartUDP(t, nil), l4test.StartUDP(t, l4test.Naming("b"))
	p := l4test.NewPool(t, a.Address(), b.Address())
	s := l4test.Start(t, l4.Options{Loops: 1}, l4test.FlowSpec(p))
	c := l4test.DialUDP(t, l4test.Address(s))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	l4test.AwaitFlows(t, s, 1)
	refuse := func() {
		l4test.OnLoop(s, 0, func() { flow.LeaveUnsendable(l4test.RoomsOf(s).Flows[0], syscall.EPERM) })
	}
	refuse()
	for range 2 {
		if got := l4test.AskUDP(t, c, "x"); got != "b" {
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
