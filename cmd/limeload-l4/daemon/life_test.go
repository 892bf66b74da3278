package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestTurn: one goroutine at a time has the turn, and the end of the life cancels it, waits for it and keeps it.
func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife()
		ctx, giveBack, err := l.takeTurn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := l.takeTurn(limited); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second turn gives %v", err)
		}
		waited := make(chan error, 1)
		go func() {
			_, _, err := l.takeTurn(t.Context())
			waited <- err
		}()
		ended := make(chan struct{})
		go func() {
			l.end()
			close(ended)
		}()
		synctest.Wait()
		if cause := context.Cause(ctx); cause != admin.ErrEnding {
			t.Errorf("the turn ends with %v", cause)
		}
		if err := <-waited; err != admin.ErrEnding {
			t.Errorf("who waits for the turn gets %v", err)
		}
		select {
		case <-ended:
			t.Error("the life ends before the turn does")
		default:
		}
		giveBack()
		<-ended
		if _, _, err := l.takeTurn(t.Context()); err != admin.ErrEnding {
			t.Errorf("a turn after the end gives %v", err)
		}
	})
}

// TestTurnOfACallerThatHasLeft: whoever stops waiting never gets the turn, not even when it becomes free at the same
// moment.
func TestTurnOfACallerThatHasLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := newLife()
	for range 100 {
		if _, _, err := l.takeTurn(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("the turn gives %v", err)
		}
	}
	if _, _, err := l.takeTurn(t.Context()); err != nil {
		t.Errorf("after that, the turn gives %v", err)
	}
}

func TestAwaitServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, other := newLife(), newLife()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.awaitServing(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in the state starting: %v", err)
		}
		l.serve()
		l.allowReloads()
		if err := l.awaitServing(t.Context()); err != nil {
			t.Errorf("in the state serving: %v", err)
		}
		go other.end()
		if err := other.awaitServing(t.Context()); err != admin.ErrEnding {
			t.Errorf("when the start is cut short: %v", err)
		}
	})
}

// TestReloadsWaitForServing: what asks for a reload during the start gets it when the server has started.
func TestReloadsWaitForServing(t *testing.T) {
	g := newGate(t)
	l := runDaemon(t, "", g.pool("slow"))
	reloaded := background(l.Reload, t.Context())
	l.signal(syscall.SIGHUP)
	l.configure("")
	if err := l.Ready(); err == nil || l.life.current() != starting {
		t.Errorf("before the first verdict it is %s, and /ready gives %v", l.life.current(), err)
	}
	if _, err := l.Plan(t.Context(), nil); err != nil {
		t.Errorf("a plan during the start: %v", err)
	}
	select {
	case err := <-reloaded:
		t.Errorf("a reload during the start ends with %v", err)
	default:
	}
	g.open()
	l.awaitState(serving)
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	harness.Eventually(t, "both reloads are done", func() error {
		if r := l.Status().Reloads; r.Done != 2 || len(l.Status().Pools) != 1 {
			return fmt.Errorf("reloads %+v, pools %+v", r, l.Status().Pools)
		}
		return nil
	})
}

// TestEndDuringTheStart ends a daemon before it serves: calls that wait for that are refused.
func TestEndDuringTheStart(t *testing.T) {
	for name, end := range map[string]func(*liveDaemon){
		"TERM":    func(l *liveDaemon) { l.signal(syscall.SIGTERM) },
		"INT":     func(l *liveDaemon) { l.signal(syscall.SIGINT) },
		"context": func(l *liveDaemon) { l.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			l := runDaemon(t, "", newGate(t).pool("slow"))
			reloaded := background(l.Reload, t.Context())
			l.signal(syscall.SIGHUP)
			end(l)
			l.awaitEnd()
			if err := <-reloaded; err != admin.ErrEnding {
				t.Errorf("the reload that waited gives %v", err)
			}
			if _, err := l.Plan(t.Context(), nil); err != admin.ErrEnding {
				t.Errorf("a plan gives %v", err)
			}
		})
	}
}

// TestEndDuringAWarmUp ends a daemon whose reload is in its warm-up, and where another reload and a plan wait for the
// turn.
func TestEndDuringAWarmUp(t *testing.T) {
	l := runDaemon(t, "", "")
	l.awaitState(serving)
	l.configure(newGate(t).pool("slow"))
	calls := map[string]<-chan error{"the reload in its warm-up": background(l.Reload, t.Context())}
	l.awaitWarmUp("slow")
	calls["the next reload"] = background(l.Reload, t.Context())
	calls["a plan"] = background(func(ctx context.Context) (admin.Plan, error) { return l.Plan(ctx, nil) }, t.Context())
	l.signal(syscall.SIGTERM)
	l.awaitEnd()
	for what, failure := range calls {
		if err := <-failure; err != admin.ErrEnding {
			t.Errorf("%s gives %v", what, err)
		}
	}
	if pools, r := l.Status().Pools, l.Status().Reloads; len(pools) != 1 || r.Done != 0 || r.Failed != 1 {
		t.Errorf("afterwards there are %d pools, and the reloads are %+v", len(pools), r)
	}
}

// TestHangupsDuringAReload: of all HUPs that arrive during a reload, one more reload follows.
func TestHangupsDuringAReload(t *testing.T) {
	g := newGate(t)
	l := runDaemon(t, "", "")
	l.awaitState(serving)
	l.configure(g.pool("slow"))
	l.signal(syscall.SIGHUP)
	l.awaitWarmUp("slow")
	l.signal(syscall.SIGHUP, syscall.SIGHUP, syscall.SIGHUP)
	g.open()
	harness.Eventually(t, "two reloads are done", func() error {
		if r := l.Status().Reloads; r.Done != 2 {
			return fmt.Errorf("reloads %+v", r)
		}
		return nil
	})
	if _, err := l.Reload(t.Context()); err != nil || l.Status().Reloads.Done != 3 {
		t.Errorf("then a reload gives %v, and the reloads are %+v", err, l.Status().Reloads)
	}
}

// TestBackendDrainDuringAWarmUp drains a backend by the API while a reload is in its warm-up: the drain goes on, and
// the reload keeps it.
func TestBackendDrainDuringAWarmUp(t *testing.T) {
	g := newGate(t)
	l := runDaemon(t, "", "")
	l.awaitState(serving)
	c := l.session()
	l.configure(g.pool("slow"))
	reloaded := background(l.Reload, t.Context())
	l.awaitWarmUp("slow")
	if _, err := l.DrainBackend("web", "b1", admin.Drain{Deadline: 60, Remove: true}); err != nil {
		t.Fatal(err)
	}
	g.open()
	if err := <-reloaded; err != nil {
		t.Fatal(err)
	}
	b, err := l.Backend("web", "b1")
	if err != nil || b.Mode != pool.Drain.String() || b.Drain == nil {
		t.Errorf("after the reload the backend is %+v, %v", b, err)
	}
	c.Close()
	harness.Eventually(t, "the backend is removed", func() error {
		if _, err := l.Backend("web", "b1"); !errors.Is(err, pool.ErrUnknownBackend) {
			return fmt.Errorf("it gives %v", err)
		}
		return nil
	})
}

// TestDraining goes through each way out of the states serving and draining, with a session open.
func TestDraining(t *testing.T) {
	const patient, delayed = "drain_timeout = \"1m\"", "drain_timeout = \"1m\"\ndrain_delay = \"1m\""
	for name, tt := range map[string]struct {
		global string
		end    func(*liveDaemon, net.Conn)
	}{
		"INT while serving": {patient, func(l *liveDaemon, _ net.Conn) { l.signal(syscall.SIGINT) }},
		"context":           {patient, func(l *liveDaemon, _ net.Conn) { l.stop() }},
		"second TERM":       {patient, func(l *liveDaemon, _ net.Conn) { l.signal(syscall.SIGTERM, syscall.SIGTERM) }},
		"TERM, HUP, INT": {patient, func(l *liveDaemon, _ net.Conn) {
			l.signal(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		}},
		"the last session ends": {patient, func(l *liveDaemon, c net.Conn) {
			l.signal(syscall.SIGTERM)
			l.awaitState(draining)
			c.Close()
		}},
		"drain_timeout passes": {"drain_timeout = \"100ms\"",
			func(l *liveDaemon, _ net.Conn) { l.signal(syscall.SIGTERM) }},
		"no drain_timeout": {"drain_timeout = \"0s\"",
			func(l *liveDaemon, _ net.Conn) { l.signal(syscall.SIGTERM) }},
		"TERM in drain_delay": {delayed, func(l *liveDaemon, _ net.Conn) {
			l.signal(syscall.SIGTERM)
			l.awaitState(draining)
			l.session() // it still serves
			if _, err := l.Reload(l.ctx); err != admin.ErrEnding {
				l.t.Errorf("a reload gives %v", err)
			}
			if _, err := l.Plan(l.ctx, nil); err != admin.ErrEnding {
				l.t.Errorf("a plan gives %v", err)
			}
			l.signal(syscall.SIGHUP, syscall.SIGTERM)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := runDaemon(t, tt.global, "")
			l.awaitState(serving)
			tt.end(l, l.session())
			l.awaitEnd()
		})
	}
}

// TestWatcherEnds turns the watching of the file off and on again by reloads that the watching itself begins: its
// goroutine ends each time, and a file changed at the end begins nothing more.
func TestWatcherEnds(t *testing.T) {
	l := runDaemon(t, "watch = true", "")
	l.awaitState(serving)
	for _, watch := range []string{"watch = false", "watch = true"} {
		before := l.config()
		l.global = watch
		l.configure("")
		if watch == "watch = true" { // nobody watches
			l.signal(syscall.SIGHUP)
		}
		harness.Eventually(t, watch+" is in force", func() error {
			if l.config() == before {
				return errors.New("it is not")
			}
			return nil
		})
	}
	l.global = "watch = true\nmax_sessions = 77"
	l.configure("")
	l.signal(syscall.SIGTERM)
	l.awaitEnd()
	if s := l.Status(); s.Reloads.Failed > 1 { // one may have been cancelled
		t.Errorf("reloads %+v", s.Reloads)
	}
}
