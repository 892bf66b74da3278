package l4test

import (
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// UnixPath returns a path for a Unix socket in a folder of the test.
func UnixPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "s")
}

// UnixBackend serves each connection to a Unix socket with handle until the test ends, and returns the path.
func UnixBackend(t testing.TB, handle func(*net.UnixConn)) string {
	t.Helper()
	path := UnixPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return path
}

// NewUnixPool makes a pool of healthy backends that are Unix sockets.
func NewUnixPool(t testing.TB, o pool.Options, paths ...string) *pool.Pool {
	t.Helper()
	o.Name, o.Algorithm, o.Initial, o.ConnectTimeout = "pool", "round_robin", pool.Healthy, time.Second
	p, err := pool.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		at := pool.Address{Path: path}
		if err := p.Add(pool.Spec{ID: at.String(), Addr: at, Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// UnixSpec is a listener at a Unix socket.
func UnixSpec(t testing.TB, p *pool.Pool) l4.ListenerSpec {
	return l4.ListenerSpec{Name: "test", Unix: l4.UnixSocket{Path: UnixPath(t), Mode: 0o600}, Pool: p}
}

// StartUnix is Start with a server that takes clients of its own process at its Unix sockets.
func StartUnix(t testing.TB, o l4.Options, specs ...l4.ListenerSpec) *l4.Server {
	t.Helper()
	s, err := l4.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(Done(t)) })
	for _, l := range RoomsOf(s).Sessions {
		*field[bool](l, "ownClients") = true
	}
	if err := s.Apply(l4.Plan{Listeners: specs}); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}

// DialUnix connects a client to a Unix socket, with a deadline of 20 s, until the test ends.
func DialUnix(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}
