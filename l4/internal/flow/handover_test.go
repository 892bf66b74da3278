package flow

import (
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/listen"
)

// TestReads holds at which sockets datagrams are read during a hand-over and after it. After it the same socket is the
// other process's: a datagram that is read here, such as when the socket takes answers again, would be lost to it.
func TestReads(t *testing.T) {
	for _, tt := range []struct {
		name                           string
		suspended, draining, givenAway bool
		want                           bool
	}{
		{"no hand-over", false, false, false, true},
		{"left before", false, true, false, true},
		{"during a hand-over", true, false, false, false},
		{"during a hand-over, left before it", true, true, false, true},
		{"after a hand-over", true, true, true, false},
	} {
		l, d := &Loop{suspended: tt.suspended}, &Socket{binding: new(listen.Binding), draining: tt.draining}
		if tt.givenAway {
			d.binding.GiveAway()
		}
		if got := l.reads(d); got != tt.want {
			t.Errorf("%s: read is %v", tt.name, got)
		}
	}
}
