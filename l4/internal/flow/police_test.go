package flow_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// policed is a listener with limits of bandwidth.
func policed(t *testing.T, session, client int64, handle func(*l4test.UDPBackend, netip.AddrPort, []byte)) (
	*l4.Server, *l4test.UDPBackend,
) {
	t.Helper()
	b := l4test.StartUDP(t, handle)
	ls := l4test.FlowSpec(l4test.NewPool(t, b.Address()))
	ls.Limits.SessionBandwidth, ls.Limits.ClientBandwidth = session, client
	return l4test.Start(t, l4.Options{Loops: 1}, ls), b
}

// TestPolice holds that of the datagrams of a flow as many pass in a second as its bandwidth is, or its client's, and
// that the others are counted as dropped, each way.
func TestPolice(t *testing.T) {
	const rate, size, long = 500_000, 1000, 2 * time.Second
	for _, test := range []struct {
		name            string
		session, client int64
		out             bool
	}{
		{"of a flow, in", rate, 0, false},
		{"of a flow, out", rate, 0, true},
		{"of a client, in", 0, rate, false},
		{"of a client, out", 0, rate, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			answers := func(b *l4test.UDPBackend, from netip.AddrPort, _ []byte) {
				if test.out {
					for range 4 {
						_, _ = b.WriteToUDPAddrPort(make([]byte, size), from)
					}
				}
			}
			s, b := policed(t, test.session, test.client, answers)
			c := l4test.DialUDP(t, l4test.Address(s))
			asks := make([]byte, size)
			if test.out {
				asks = asks[:200] // at a quarter of the rate of answers
			}
			// The client sends twice as much as may pass, whatever the machine pauses. A pause earns no more than a
			// burst. Few datagrams at a time are under way: the kernel has room for them.
			var earned time.Duration
			sent, began := 0, time.Now()
			for last := began; earned < long; {
				time.Sleep(time.Millisecond)
				now := time.Now()
				earned += min(now.Sub(last), time.Second/20)
				last = now
				for float64(sent*size) < 2*rate*earned.Seconds() {
					if _, err := c.Write(asks); err != nil {
						t.Fatal(err)
					}
					sent++
					l4test.Eventually(t, "the last ones are read", func() bool {
						return l4test.Info(s).DatagramsIn+10 > uint64(sent)
					})
				}
			}
			var passed int64
			l4test.Eventually(t, "all have come", func() bool {
				info := l4test.Info(s)
				dropped := int64(info.Dropped[tally.DropBandwidth])
				if passed = b.Got.Load(); !test.out {
					return dropped > 0 && passed+dropped == int64(sent)
				}
				passed = int64(info.DatagramsOut) - dropped
				return dropped > 0 && info.DatagramsOut == uint64(4*sent)
			})
			// A burst of a tenth of a second, or of the longest datagram, comes in addition.
			most, least := time.Since(began).Seconds()*rate+70_000, earned.Seconds()*rate*0.7
			if got := float64(passed * size); got > most*1.02 || got < least {
				t.Errorf("%.0f bytes passed, want %.0f to %.0f; %d datagrams were sent", got, least, most, sent)
			}
		})
	}
}

// TestPoliceEverySize holds that datagrams of every size pass the least limit after a pause, empty ones always.
func TestPoliceEverySize(t *testing.T) {
	for _, session := range []int64{l4.MinBandwidth, 0} {
		s, _ := policed(t, session, l4.MinBandwidth-session, l4test.EchoUDP)
		c := l4test.DialUDP(t, l4test.Address(s))
		buf := make([]byte, 1<<16)
		for _, size := range []int{65507, 0, 0} {
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if n, ok := l4test.ReadUDP(t, c, buf, 10*time.Second); !ok || n != size {
				t.Fatalf("a datagram of %d bytes: %d, %v", size, n, ok)
			}
		}
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		l4test.AwaitDropped(t, s, tally.DropBandwidth, 1)
	}
}

// TestPoliceTrains holds that a train is cut where the limit ends.
func TestPoliceTrains(t *testing.T) {
	const size, n = 1200, 50
	s, b := policed(t, l4.MinBandwidth, 0, nil)
	c := l4test.DialUDP(t, l4test.Address(s))
	for range 2 {
		var train [][]byte
		for range n {
			train = append(train, make([]byte, size))
		}
		l4test.SendTrain(t, c, train)
	}
	const pass = 1 << 16 / size
	l4test.AwaitDropped(t, s, tally.DropBandwidth, 2*n-pass)
	l4test.Eventually(t, "the others have come", func() bool { return b.Got.Load() == pass })
}

// TestNoPolice holds that a flow without a limit has nothing for one, and that it gets one when the listener does.
func TestNoPolice(t *testing.T) {
	s, b := policed(t, 0, 0, l4test.EchoUDP)
	c := l4test.DialUDP(t, l4test.Address(s))
	polices := func() (yes bool) {
		l4test.OnLoop(s, 0, func() {
			l4test.RoomsOf(s).Flows[0].Some(0, func(f *flow.Flow) { yes = yes || flow.Polices(f) })
		})
		return yes
	}
	l4test.AskUDP(t, c, "x")
	if polices() {
		t.Error("it is policed")
	}
	to := l4test.FlowSpec(l4test.NewPool(t, b.Address()))
	to.Pool = l4test.FirstPool(s)
	to.Address = l4test.Info(s).Address.AddrPort
	to.Limits.SessionBandwidth = 1_000_000
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{to}}); err != nil {
		t.Fatal(err)
	}
	l4test.Eventually(t, "it is policed", func() bool { l4test.AskUDP(t, c, "x"); return polices() })
}
