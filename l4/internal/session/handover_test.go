package session_test

import (
	"io"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// handOver hands the sessions of a leaver over to another server, which it is then.
func (x *leaver) handOver(t *testing.T, sessions int, mode pool.Mode, o l4.Options) {
	t.Helper()
	b := x.pool.Backends()[0]
	p, err := pool.New(pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy, DrainSafely: true,
		ConnectTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(pool.Spec{ID: b.ID, Addr: b.Addr, Weight: 1}); err != nil {
		t.Fatal(err)
	}
	if err := p.SetMode(b.ID, mode); err != nil {
		t.Fatal(err)
	}
	spec := spec(p)
	spec.Spoken = l4.SpokenPostgres
	o.Loops = 2
	u := l4test.BeginHandOver(t, x.server, o, spec)
	u.Pause(0)
	u.MoveAll(l4.TCP, sessions)
	u.Finish()
	x.server, x.pool = u.To, p
}

// TestHandOverTurns holds that a session which was handed over in the middle of a transaction, or of a message, is not
// asked to leave its backend before it is at rest, and is then.
func TestHandOverTurns(t *testing.T) {
	x := startLeaver(t, sides{}, l4.SpokenPostgres, time.Minute, fakePostgres)
	idle, inside, half := x.login(t), x.login(t), x.login(t)
	say(t, inside, query("begin:T"))
	awaitReady(t, inside, "T")
	question := query("select:I")
	if _, err := io.WriteString(half, question[:7]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the half of a message is relayed", func() bool {
		list, err := x.server.List(t.Context(), l4.SessionFilter{})
		most := uint64(0)
		for _, s := range list.Sessions {
			most = max(most, s.BytesIn)
		}
		return err == nil && list.Total == 3 && most > 0 && x.server.Sessions() == 3
	})
	lines, log := newCapture()
	x.lines = lines
	x.handOver(t, 3, pool.Ready, l4.Options{Access: true, Log: log, DrainTimeout: 2 * time.Minute})
	x.setMode(t, pool.Drain)
	x.hasLeft(t, idle, movedError)
	stays(t, inside)
	stays(t, half)
	if _, err := io.WriteString(half, question[7:]); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, half, "I")
	x.hasLeft(t, half, movedError)
	say(t, inside, query("commit:I"))
	awaitReady(t, inside, "I")
	x.hasLeft(t, inside, movedError)
}

// TestHandOverLeaving holds that a session that comes to a server whose backend is to be left leaves it at once.
func TestHandOverLeaving(t *testing.T) {
	x := startLeaver(t, sides{}, l4.SpokenPostgres, time.Minute, fakePostgres)
	c := x.login(t)
	lines, log := newCapture()
	x.lines = lines
	x.handOver(t, 1, pool.Drain, l4.Options{Access: true, Log: log, DrainTimeout: 2 * time.Minute})
	x.hasLeft(t, c, movedError)
}
