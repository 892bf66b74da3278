package flow_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onFirstLoop calls f on the first loop, and waits.
func onFirstLoop(s *l4.Server, f func(l *flow.Loop)) {
	l := l4test.RoomsOf(s).Flows[0]
	l4test.OnLoop(s, 0, func() { f(l) })
}

// onOneFlow calls f with the first loop's flow, on that loop, and waits. There must be one.
func onOneFlow(s *l4.Server, f func(l *flow.Loop, only *flow.Flow)) {
	onFirstLoop(s, func(l *flow.Loop) { f(l, flow.One(l)) })
}
