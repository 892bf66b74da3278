package admin

import (
	"fmt"
	"os/user"
	"strings"
	"testing"
)

// TestSharing makes every change that a fleet shares, with and without a fleet: the daemon gets who makes it and whether
// it is local, and the caller whether it is shared.
func TestSharing(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	check(t, err)
	for _, fleet := range []bool{false, true} {
		for _, local := range []bool{false, true} {
			w := start(t, "")
			w.fake.hasFleet = fleet
			c, err := NewClient(ClientOptions{Address: "unix:" + w.socket})
			check(t, err)
			t.Cleanup(c.Close)
			var said []*Sharing
			note := func(s *Sharing, err error) {
				t.Helper()
				check(t, err)
				said = append(said, s)
			}
			ctx := t.Context()
			b, err := c.AddBackend(ctx, "redis", NewBackend{Name: "b9", Address: "192.0.2.9:1", Local: local})
			note(b.Sharing, err)
			weight := 3
			b, err = c.ChangeBackend(ctx, "redis", "b9", BackendChange{Weight: &weight, Local: local})
			note(b.Sharing, err)
			b, err = c.DrainBackend(ctx, "redis", "b9", Drain{Local: local})
			note(b.Sharing, err)
			note(c.RemoveBackend(ctx, "redis", "b9", local))
			r, err := c.AddAccessRule(ctx, NewAccessRule{Prefix: "192.0.2.0/25", Action: ActionDeny, Local: local})
			note(r.Sharing, err)
			note(c.RemoveAccessRule(ctx, "192.0.2.0/25", "", local))
			for i, s := range said {
				if fleet != (s != nil) || fleet && s.Shared == local {
					t.Errorf("fleet %v, local %v: change %d has %+v", fleet, local, i, s)
				}
			}
			want := strings.Repeat(fmt.Sprintf("%v ", Origin{By: me.Username, Local: local}), len(said))
			got := ""
			for _, o := range w.fake.origins {
				got += fmt.Sprintf("%v ", o)
			}
			if got != want {
				t.Errorf("the origins are %s, want %s", got, want)
			}
		}
	}
	w := start(t, "")
	got := w.do(t, request{method: "DELETE", target: "/v1/pools/redis/backends/b1?local=yes"})
	if got.status != 422 || !strings.Contains(got.body, "needs true or false") {
		t.Errorf("local=yes: %d %s", got.status, got.body)
	}
	got = w.do(t, request{"PATCH", "/v1/pools/redis/backends/b1", "", jsonHeader(), `{"local": true}`})
	if got.status != 400 || !strings.Contains(got.body, "changes nothing") {
		t.Errorf("only local: %d %s", got.status, got.body)
	}
	got = w.do(t, request{"PATCH", "/v1/pools/redis/backends/b1", "", jsonHeader(), `{"weight": 1, "-": "mallory"}`})
	if got.status != 400 {
		t.Errorf("a field that only the server sets: %d %s", got.status, got.body)
	}
}
