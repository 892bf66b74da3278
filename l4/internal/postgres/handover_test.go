package postgres_test

import (
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// TestHandOverCancel holds that a cancel finds the backend of a session that another process has handed over, and that
// the one that has handed it over forgets the key.
func TestHandOverCancel(t *testing.T) {
	x := start(t, nil, serve(t, 32), serve(t, 32), serve(t, 32))
	var all []login
	for range 6 {
		all = append(all, x.login(t))
	}
	p := l4test.NewPool(t)
	for _, b := range x.pool.Backends() {
		if err := p.Add(pool.Spec{ID: b.ID, Addr: b.Addr, Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	spec := l4test.Spec(p)
	spec.Postgres.Timeout = patience
	u := l4test.BeginHandOver(t, x.Server, l4.Options{Loops: 2}, spec)
	u.Pause(0)
	u.MoveAll(l4.TCP, 6)
	u.Finish()
	x.Server, x.pool = u.To, p
	for _, c := range all {
		x.cancel(t, c.key)
	}
	for i, keys := range x.cancelled() {
		if len(keys) != 2 {
			t.Errorf("server %d got %q", i, keys)
		}
	}
	x.wantCounts(t, 6, 0, 0, 0)
}
