//go:build netns

package l4_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// TestNetnsHandshakeUnderWay holds that a client whose handshake is under way when its listening socket is left is
// served all the same, whatever it is left for, and that no new client gets to that socket meanwhile.
func TestNetnsHandshakeUnderWay(t *testing.T) {
	at := func(address string, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(address), port)
	}
	const here, elsewhere = 7000, 7001
	type change struct {
		name     string
		from, to func(*l4.ListenerSpec)
		discard  bool // the change is given up
		closed   bool // nobody listens there afterwards
	}
	set := func(address netip.AddrPort, dual bool) func(*l4.ListenerSpec) {
		return func(spec *l4.ListenerSpec) { spec.Address, spec.DualStack = address, dual }
	}
	one, all, dual := set(at("10.99.0.1", here), false), set(at("0.0.0.0", here), false), set(at("::", here), true)
	rename := func(like func(*l4.ListenerSpec)) func(*l4.ListenerSpec) {
		return func(spec *l4.ListenerSpec) {
			like(spec)
			spec.Name = "renamed"
		}
	}
	for _, tc := range []change{
		{name: "another port", from: one, to: set(at("10.99.0.1", elsewhere), false), closed: true},
		{name: "all addresses to one", from: all, to: one},
		{name: "one address to all", from: one, to: all},
		{name: "all addresses of both families to one", from: dual, to: one},
		{name: "another name", from: one, to: rename(one)},
		{name: "another name for both families", from: dual, to: rename(dual)},
		{name: "removed", from: one, closed: true},
		{name: "shut down", from: dual, closed: true},
		{name: "discarded", from: all, to: one, discard: true},
		{name: "a name discarded", from: one, to: rename(one), discard: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			far := newStranger(t)
			old := spec(newPool(t, backend(t, echo)))
			tc.from(&old)
			s := start(t, l4.Options{Loops: 2}, old)
			var next []l4.ListenerSpec
			if tc.to != nil {
				next = []l4.ListenerSpec{old}
				tc.to(&next[0])
			}
			var c *l4.Change
			prepare := func() {
				var err error
				if c, err = s.Prepare(l4.Plan{Listeners: next}); err != nil {
					t.Fatal(err)
				}
			}
			if tc.discard { // whose sockets are the new ones
				prepare()
			}
			var answers []segment
			for range 8 { // so that some come to the sockets that go
				answers = append(answers, far.begin(here))
			}
			over := make(chan struct{})
			go func() {
				defer close(over)
				switch {
				case tc.name == "shut down":
					_ = s.Shutdown(context.Background())
				case tc.discard:
					c.Discard()
				default:
					prepare()
					c.Commit()
				}
			}()
			select {
			case <-over:
			case <-time.After(500 * time.Millisecond): // it waits for the handshake
			}
			if tc.closed {
				eventually(t, "new clients are refused", func() bool {
					answer := far.begin(here)
					if answer.flags&flagSYN != 0 {
						answers = append(answers, answer)
					}
					return answer.flags&flagRST != 0
				})
			}
			lost := 0
			for _, answer := range answers {
				far.finish(answer)
			}
			for _, answer := range answers {
				if !far.echoed(answer) {
					lost++
				}
			}
			if lost > 0 {
				t.Errorf("%d of %d clients were reset", lost, len(answers))
			}
			<-over
			if g := far.begin(here); g.flags&flagRST != 0 != tc.closed {
				t.Errorf("afterwards a SYN gets flags %#x", g.flags)
			}
		})
	}
}
