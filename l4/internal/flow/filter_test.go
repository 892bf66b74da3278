package flow_test

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A filter answers "ping", swallows questions that begin with "-", and holds back answers that do.
type filter struct {
	l     *flow.Loop
	asked atomic.Int64
}

func (f *filter) Question(from flow.Sender, d []byte, _ time.Duration) bool {
	f.asked.Add(1)
	if string(d) == "ping" {
		f.l.Reply(&from, []byte("pong"))
		return true
	}
	return bytes.HasPrefix(d, []byte("-"))
}

func (f *filter) Passes([]byte, int) bool { return false }

func (f *filter) Answer(_ flow.Sender, d []byte, _ time.Duration) []byte {
	if bytes.HasPrefix(d, []byte("-")) {
		return nil
	}
	return d
}

// TestFilter holds that a filter sees each datagram by itself, also of trains, before a flow is made, and that it
// sees what backends answer.
func TestFilter(t *testing.T) {
	withOffload(t, func(t *testing.T, o sock.Offload) {
		b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
			_, _ = b.WriteToUDPAddrPort([]byte("-no"), from)
			_, _ = b.WriteToUDPAddrPort(d, from)
		})
		s := startWith(t, o, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
		before := &filter{}
		onFirstLoop(s, func(l *flow.Loop) {
			before.l = l
			flow.FilterAll(l, before)
		})
		c := dialUDP(t, address(s))
		buf := make([]byte, 100)
		next := func() string {
			n, ok := readUDP(t, c, buf, 20*time.Second)
			if !ok {
				t.Fatal("no answer")
			}
			return string(buf[:n])
		}
		sendTrain(t, c, [][]byte{[]byte("ping"), []byte("ping"), []byte("-x")})
		if a, b := next(), next(); a != "pong" || b != "pong" {
			t.Fatal(a, b)
		}
		if s.Flows() != 0 || b.Got.Load() != 0 || before.asked.Load() != 3 {
			t.Errorf("%d flows, %d came to the backend, %d to the filter", s.Flows(), b.Got.Load(), before.asked.Load())
		}
		sendTrain(t, c, [][]byte{[]byte("yes1"), []byte("yes2"), []byte("-no"), nil})
		if a, b := next(), next(); a != "yes1" || b != "yes2" {
			t.Error(a, b)
		}
		if info := info(s); info.DatagramsIn != 6 && info.DatagramsIn != 7 {
			t.Errorf("%+v", info)
		}
	})
}
