package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/test/harness"
)

// A gate is a backend that accepts connections, and says "ready" on them once it is open. Until then its checks do not
// end.
type gate struct {
	listener net.Listener
	opened   chan struct{} // closed by open and by the end of the test
	open     func()
	serving  sync.WaitGroup
}

func newGate(t *testing.T) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	g.serving.Go(g.serve)
	t.Cleanup(func() {
		l.Close()
		g.open()
		g.serving.Wait()
	})
	return g
}

func (g *gate) serve() {
	<-g.opened
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("ready"))
		c.Close()
	}
}

// pool returns a pool for a configuration whose one backend, b1, is the gate.
func (g *gate) pool(name string) string {
	return fmt.Sprintf(`
[pool.%s]
backends = [{ name = "b1", address = %q }]
[pool.%s.health]
type = "tcp"
steps = [{ expect = "ready" }]
interval = "30s"
timeout = "20s"
rise = 1
`, name, g.listener.Addr(), name)
}

// A liveDaemon is a daemon that runs, with an echo server behind its listener.
type liveDaemon struct {
	*Daemon
	t       *testing.T
	signals chan os.Signal // not buffered: what was sent has been received
	ctx     context.Context
	stop    context.CancelFunc
	ended   chan struct{} // closed when Run has returned

	file    string
	address string // of the listener
	echo    string
	global  string // settings of the configuration
}

// runDaemon runs a daemon until the end of the test. global are lines for its table [global], more are pools besides
// that of the listener. Goroutines that outlive the daemon fail the test.
func runDaemon(t *testing.T, global, more string) *liveDaemon {
	t.Helper()
	before := goleak.IgnoreCurrent()
	echo := harness.Serve(t, harness.Echo)
	l := &liveDaemon{
		t: t, signals: make(chan os.Signal), ended: make(chan struct{}), file: filepath.Join(t.TempDir(), "lb.toml"),
		address: harness.FreeAddress(t), echo: echo.Address(), global: global,
	}
	l.configure(more)
	cfg, err := Load(t.Context(), l.file)
	if err != nil {
		t.Fatal(err)
	}
	if l.Daemon, err = New(Options{Config: cfg, Version: "test"}); err != nil {
		t.Fatal(err)
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	go func() {
		defer close(l.ended)
		_ = l.Run(l.ctx, l.signals)
	}()
	t.Cleanup(func() {
		l.stop()
		<-l.ended
		echo.Close()
		goleak.VerifyNone(t, before)
	})
	return l
}

// configure writes the configuration's file.
func (l *liveDaemon) configure(more string) {
	l.t.Helper()
	text := fmt.Sprintf(`[global]
%s
[admin]
address = ""
[listener.web]
address = %q
pool = "web"
[pool.web]
backends = [{ name = "b1", address = %q }]
%s`, l.global, l.address, l.echo, more)
	if err := os.WriteFile(l.file, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// signal sends signals and waits until each was received.
func (l *liveDaemon) signal(all ...os.Signal) {
	l.t.Helper()
	for _, s := range all {
		select {
		case l.signals <- s:
		case <-time.After(10 * time.Second):
			l.t.Fatalf("%v is not received", s)
		}
	}
}

// awaitState waits for a state.
func (l *liveDaemon) awaitState(want state) {
	l.t.Helper()
	harness.Eventually(l.t, "it is "+want.String(), func() error {
		if s := l.life.current(); s != want {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
}

// awaitWarmUp waits until the backend of a new pool is being checked.
func (l *liveDaemon) awaitWarmUp(pool string) {
	l.t.Helper()
	harness.Eventually(l.t, "the warm-up has begun", func() error {
		if _, known := l.checks.Target(targetID(pool, "b1")); !known {
			return errors.New("the new backend is not checked")
		}
		return nil
	})
}

// awaitEnd fails the test if Run does not return soon. A warm-up that is not cancelled, and a drain, take longer.
func (l *liveDaemon) awaitEnd() {
	l.t.Helper()
	select {
	case <-l.ended:
	case <-time.After(maxFirstVerdicts - time.Second):
		l.t.Fatal("Run does not return")
	}
}

// session opens a session through the daemon.
func (l *liveDaemon) session() net.Conn {
	l.t.Helper()
	c, err := net.Dial("tcp", l.address)
	if err == nil {
		l.t.Cleanup(func() { c.Close() })
		_, err = c.Write([]byte("x"))
	}
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// background runs a call, and returns its result later.
func background[T any](call func(context.Context) (T, error), ctx context.Context) <-chan error {
	failure := make(chan error, 1)
	go func() {
		_, err := call(ctx)
		failure <- err
	}()
	return failure
}
