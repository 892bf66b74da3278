package l4_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestBytesOfRunningSessions holds that a session's bytes are counted while it goes on, a second time not at all, and
// at its end to the last one; of the listener as of the backend.
func TestBytesOfRunningSessions(t *testing.T) {
	p := newPool(t, backend(t, echo))
	s := start(t, l4.Options{Loops: 1}, spec(p))
	counted := func() [4]uint64 {
		l, b := s.Listeners()[0], p.Backends()[0]
		return [4]uint64{l.BytesIn, l.BytesOut, b.BytesIn, b.BytesOut}
	}
	all := func(n uint64) [4]uint64 { return [4]uint64{n, n, n, n} }
	c := dial(t, address(s))
	for range 3 * sliceSessions { // others, so that it takes several turns
		if err := ask(dial(t, address(s))); err != nil {
			t.Fatal(err)
		}
	}
	others := uint64(3 * sliceSessions)
	for range 100 {
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(3) {
		skip(s, 2*flushEvery)
		eventually(t, "the bytes are counted", func() bool { return counted() == all(others+100+i) })
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
	}
	c.CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last byte is counted", func() bool { return counted() == all(others+103) })
	if err := s.Shutdown(done(t)); err == nil {
		t.Fatal("nothing was cut")
	}
	if got := counted(); got != all(others+103) {
		t.Errorf("at the end %v bytes, want %d each", got, others+103)
	}
}

// TestFigures holds that each phase of a session is measured once, and retries are counted by what failed before.
func TestFigures(t *testing.T) {
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: 100 * time.Millisecond, Retries: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{refusing(t), swallowing(t), backend(t, echo)} {
		if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 1}, spec(p))
	c := dial(t, address(s))
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	info := s.Listeners()[0]
	if info.ConnectTime.Count != 1 || info.FirstByteTime.Count != 1 || info.Duration.Count != 0 ||
		info.QueueTime.Count != 0 {
		t.Errorf("counts of a running session: %d connects, %d first bytes, %d durations, %d waits",
			info.ConnectTime.Count, info.FirstByteTime.Count, info.Duration.Count, info.QueueTime.Count)
	}
	if info.Accepted != 1 || info.Retries[pool.ConnectRefused] != 1 || info.Retries[pool.ConnectTimeout] != 1 ||
		len(info.Retries) != 2 {
		t.Errorf("accepted %d, retries %v; want 1, and one after each failure", info.Accepted, info.Retries)
	}
	c.Close()
	eventually(t, "the duration is measured", func() bool { return s.Listeners()[0].Duration.Count == 1 })
	if sum := s.Listeners()[0].Duration.Sum; sum < 0.05 || sum > 20 {
		t.Errorf("the session took %v s, with a timeout of 0.1 s in it", sum)
	}
	if info := s.Listeners()[0]; info.ConnectTime.Sum >= info.Duration.Sum-0.05 {
		t.Errorf("the connect took %v s of %v: failed ones are in it", info.ConnectTime.Sum, info.Duration.Sum)
	}
}

// TestQueueTime holds that each wait is measured once, however it ended, and that who found the queue full has not
// waited.
func TestQueueTime(t *testing.T) {
	p := newQueuePool(t, pool.Options{QueueMax: 2, QueueTimeout: 20 * time.Second}, backend(t, echo))
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
	holder := dial(t, address(s))
	if err := ask(holder); err != nil {
		t.Fatal(err)
	}
	waiting := queuedClients(t, s, p, 2)
	if !refusedWithReset(t, address(s)) {
		t.Error("a third client was not refused")
	}
	if line := lines.Next(t); line.Reason != tally.QueueFull.String() || line.QueueTime != 0 {
		t.Errorf("the third client ended with %s after %v s in the queue", line.Reason, line.QueueTime)
	}
	if n := s.Listeners()[0].QueueTime.Count; n != 0 {
		t.Errorf("%d waits before one has ended", n)
	}
	waiting[1].Close()
	eventually(t, "the wait of who left is measured", func() bool { return s.Listeners()[0].QueueTime.Count == 1 })
	holder.Close()
	if err := ask(waiting[0]); err != nil {
		t.Fatal(err)
	}
	waiting[0].Close()
	eventually(t, "all have ended", func() bool { return s.Sessions() == 0 })
	if info := s.Listeners()[0]; info.QueueTime.Count != 2 || info.QueueTime.Sum <= 0 || info.Duration.Count != 2 {
		t.Errorf("%d waits of %v s in all, %d durations; want 2 and 2",
			info.QueueTime.Count, info.QueueTime.Sum, info.Duration.Count)
	}
}

// TestSet holds that the settings of a server that runs can be changed.
func TestSet(t *testing.T) {
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, MaxSessions: 1, Log: log}, spec(newPool(t, backend(t, echo))))
	if got := s.Settings(); got != (l4.Settings{MaxSessions: 1}) {
		t.Errorf("settings at first: %+v", got)
	}
	c := dial(t, address(s))
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	if !refusedWithReset(t, address(s)) {
		t.Error("a second session was taken")
	}
	<-lines.Lines() // the warning about that
	want := l4.Settings{MaxSessions: 2, Access: true}
	s.Set(want)
	if got := s.Settings(); got != want {
		t.Errorf("settings: %+v, want %+v", got, want)
	}
	second := dial(t, address(s))
	if err := ask(second); err != nil {
		t.Error(err)
	}
	c.Close()
	if line := lines.Next(t); line.Client != c.LocalAddr().String() {
		t.Errorf("another line than the session's: %+v", line)
	}
	s.Set(l4.Settings{MaxSessions: 1})
	if err := ask(second); err != nil {
		t.Errorf("a session that was there: %v", err)
	}
	second.Close()
	eventually(t, "all have ended", func() bool { return s.Sessions() == 0 })
	if n := len(lines.Lines()); n != 0 {
		t.Errorf("%d lines with access off", n)
	}
}

// TestLoops holds that a stuck loop is found, and which, and that one which waits passes for alive.
func TestLoops(t *testing.T) {
	s, err := l4.New(l4.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(done(t)) }()
	if err := s.Live(done(t)); err != nil {
		t.Errorf("before the start: %v", err)
	}
	for _, l := range s.Loops() {
		if !l.Waiting || l.Turns != 0 || !l.LastTurn.IsZero() {
			t.Errorf("before the start: %+v", l)
		}
	}
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec(newPool(t, backend(t, echo)))}}); err != nil {
		t.Fatal(err)
	}
	s.Start()
	began := time.Now()
	if err := s.Live(t.Context()); err != nil {
		t.Error(err)
	}
	for i, l := range s.Loops() {
		if l.Index != i || l.Turns == 0 || l.LastTurn.After(time.Now()) || l.LastTurn.Before(began.Add(-time.Minute)) {
			t.Errorf("after the start: %+v", l)
		}
	}
	eventually(t, "both wait", func() bool { l := s.Loops(); return l[0].Waiting && l[1].Waiting })
	if err := ask(dial(t, address(s))); err != nil {
		t.Fatal(err)
	}
	if l := s.Loops(); l[0].Sessions+l[1].Sessions != 1 {
		t.Errorf("one session, and the loops have %d and %d", l[0].Sessions, l[1].Sessions)
	}
	release := hold(t, s, 1)
	defer release() // before the server is to end
	if l := s.Loops()[1]; l.Waiting {
		t.Error("a loop in a turn passes for waiting")
	}
	for range 3 { // the question that is under way stands for all
		eventually(t, "it is loop 1 that is stuck", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			var stuck *l4.StuckLoopError
			return errors.As(s.Live(ctx), &stuck) && stuck.Loop == 1 // on a slow day loop 0 takes longer, too
		})
	}
	if err := s.Live(done(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("no time to answer: %v", err)
	}
	if n := waitingMail(s, 1); n != 1 {
		t.Errorf("%d messages wait for the stuck loop, want one", n)
	}
	release()
	if err := s.Live(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(done(t)); err == nil {
		t.Error("nothing was cut")
	}
	if err := s.Live(done(t)); err != nil {
		t.Errorf("after the end: %v", err)
	}
}
