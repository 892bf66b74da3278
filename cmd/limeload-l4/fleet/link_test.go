package fleet

import (
	"errors"
	"net"
	"testing"
	"time"
)

// TestReports: only what is new is reported, and a connection that comes and goes not more often than every 10 s.
func TestReports(t *testing.T) {
	t.Parallel()
	one, two := errors.New("one"), errors.New("two")
	dial := func(port int) error {
		return &net.OpError{Op: "read", Addr: &net.TCPAddr{Port: port}, Err: errors.New("connection reset")}
	}
	type attempt struct {
		after time.Duration // the one before
		link  Link
		want  bool
	}
	up, a, b := Link{Up: true}, Link{Endpoint: "a", Err: one}, Link{Endpoint: "b", Err: two}
	refused := Link{Up: true, Err: one}
	for name, attempts := range map[string][]attempt{
		"comes up": {{0, up, true}, {time.Second, up, false}},
		"is never there": {
			{0, a, true}, {time.Second, a, false}, {time.Minute, a, false}, {time.Second, b, true},
			{time.Second, a, false}, {time.Minute, b, false}, {0, Link{Endpoint: "a", Err: two}, true},
		},
		"is lost": {{0, up, true}, {time.Second, a, true}, {time.Second, up, true}, {time.Minute, a, true}},
		"flaps": {
			{0, up, true}, {time.Second, a, true}, {time.Second, up, true}, {time.Second, a, false},
			{time.Second, up, false}, {time.Second, a, false}, {6 * time.Second, a, true}, {0, up, true},
		},
		"refuses": {
			{0, up, true}, {time.Second, refused, true}, {time.Second, refused, false}, {time.Second, up, true},
			{time.Second, refused, false}, {reportEvery, refused, true}, {time.Second, up, true},
		},
		"another port": {
			{0, Link{Err: dial(1)}, true}, {time.Minute, Link{Err: dial(2)}, false},
		},
	} {
		var r reports
		now := time.Unix(1e9, 0)
		for i, a := range attempts {
			now = now.Add(a.after)
			if got := r.news(a.link, now); got != a.want {
				t.Errorf("%s: attempt %d: reported %v, want %v", name, i, got, a.want)
			}
		}
	}
}
