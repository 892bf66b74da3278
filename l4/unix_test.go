package l4_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestUnixListener holds that clients of a Unix socket are served by all loops, bulk both ways and half-closes
// included, and that the log and the list know their process.
func TestUnixListener(t *testing.T) {
	lines, log := l4test.NewCapture()
	spec := l4test.UnixSpec(t, newPool(t, backend(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })))
	s := l4test.StartUnix(t, l4.Options{Loops: 2, Access: true, Log: log}, spec)
	info, err := os.Lstat(spec.Unix.Path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket is %v, %v", info, err)
	}
	me := fmt.Sprintf("unix:pid=%d,uid=%d", os.Getpid(), os.Getuid())
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			c := l4test.DialUnix(t, spec.Unix.Path)
			sent, got := make([]byte, 4<<20), sha256.New()
			_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(sent)
			go func() {
				_, _ = c.Write(sent)
				_ = c.CloseWrite()
			}()
			_, _ = io.Copy(got, c)
			if want := sha256.Sum256(sent); !bytes.Equal(got.Sum(nil), want[:]) {
				t.Error("other bytes came back")
			}
		})
	}
	clients.Wait()
	for range 8 {
		if line := lines.Next(t); line.Client != me || line.Reason != tally.ClientClosed.String() {
			t.Errorf("a session ended as %+v", line)
		}
	}
	c := l4test.DialUnix(t, spec.Unix.Path)
	if err := l4test.Ask(c); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), l4.SessionFilter{})
	if err != nil || len(list.Sessions) != 1 || list.Sessions[0].ClientText() != me {
		t.Errorf("sessions are %+v, %v", list, err)
	}
	if at := s.Listeners()[0]; at.Address != (pool.Address{Path: spec.Unix.Path}) {
		t.Errorf("it listens at %v", at.Address)
	}
}

// TestUnixListenerMoves changes a Unix socket's permissions, name and path while it has a session, and removes it. The
// file is always that of the listener that serves.
func TestUnixListenerMoves(t *testing.T) {
	spec := l4test.UnixSpec(t, newPool(t, backend(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })))
	s := l4test.StartUnix(t, l4.Options{Loops: 2}, spec)
	old := l4test.DialUnix(t, spec.Unix.Path)
	works := func() {
		t.Helper()
		if err := errors.Join(l4test.Ask(old), l4test.Ask(l4test.DialUnix(t, spec.Unix.Path))); err != nil {
			t.Error(err)
		}
	}
	apply := func(want l4.Fate, specs ...l4.ListenerSpec) {
		t.Helper()
		c, err := s.Prepare(l4.Plan{Listeners: specs})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Listeners) == 0 || c.Listeners[0].Fate != want {
			t.Errorf("a change is %+v, want %v", c.Listeners, want)
		}
		c.Commit()
	}
	works()
	apply(l4.Kept, spec)
	spec.Backlog = 7
	apply(l4.Updated, spec)
	works()
	spec.Unix.Mode = 0o640
	apply(l4.Rebound, spec)
	if info, err := os.Lstat(spec.Unix.Path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	works()
	spec.Name = "renamed"
	apply(l4.Added, spec)
	works()
	given, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{{Name: "x", Unix: spec.Unix, Pool: spec.Pool}}})
	if err != nil {
		t.Fatal(err)
	}
	given.Discard()
	works()
	before := spec.Unix.Path
	spec.Unix.Path += "2"
	apply(l4.Rebound, spec)
	works()
	other := spec
	other.Name, other.Unix.Path = "tcp", ""
	other.Unix.Mode, other.Address = 0, l4test.Spec(nil).Address
	apply(l4.Added, other)
	if err := l4test.Ask(old); err != nil {
		t.Error(err)
	}
	for _, path := range []string{before, before + ".new", spec.Unix.Path, spec.Unix.Path + ".new"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// TestUnixListenerFails holds what a Unix socket does not take the place of.
func TestUnixListenerFails(t *testing.T) {
	spec := l4test.UnixSpec(t, newPool(t))
	s := l4test.StartUnix(t, l4.Options{Loops: 1}, spec)
	try := func(path, want string, is error) {
		t.Helper()
		other := spec
		other.Name, other.Unix.Path = "other", path
		err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec, other}})
		if err == nil || !strings.Contains(err.Error(), want) || is != nil && !errors.Is(err, is) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	file := l4test.UnixPath(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	theirs := l4test.UnixBackend(t, func(*net.UnixConn) {})
	try(spec.Unix.Path, `listeners "test" and "other" have one address, unix:`+spec.Unix.Path, nil)
	try(file, "listen on unix:"+file, sock.ErrNoUnixSocket)
	try(theirs, "listen on unix:"+theirs, syscall.EADDRINUSE)
	try(file+"/s", "not a directory", syscall.ENOTDIR)
	try("/"+strings.Repeat("x", sock.MaxUnixListener), "more than 103 bytes", nil)
	try("s", "is not absolute", nil)
	bad := spec
	bad.Unix.Group, bad.Name, bad.Unix.Path = "no such group", "bad", spec.Unix.Path+"3"
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec, bad}}); err == nil ||
		!strings.Contains(err.Error(), "no such group") {
		t.Errorf("a group that does not exist: %v", err)
	}

	stale := l4test.UnixPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	spec.Unix.Path = stale
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}}); err != nil {
		t.Errorf("where nobody listens any more: %v", err)
	}
}

// TestUnixLoop holds that a session which comes back to its own process by a Unix socket ends.
func TestUnixLoop(t *testing.T) {
	spec := l4test.UnixSpec(t, nil)
	spec.Pool = l4test.NewUnixPool(t, pool.Options{}, spec.Unix.Path)
	lines, log := l4test.NewCapture()
	l4test.Start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec)
	_, _ = io.Copy(io.Discard, l4test.DialUnix(t, spec.Unix.Path))
	if line := lines.Next(t); line.Reason != tally.Loop.String() && !strings.Contains(fmt.Sprint(line), "loop") {
		t.Errorf("the session ended as %+v", line)
	}
}

// TestUnixProxyHeader holds that a backend gets a header without addresses for a client that has none.
func TestUnixProxyHeader(t *testing.T) {
	for version, want := range map[int]string{
		1: "PROXY UNKNOWN\r\nx", 2: "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00x",
	} {
		got := make(chan string, 1)
		at := backend(t, func(c *net.TCPConn) {
			all, _ := io.ReadAll(c)
			got <- string(all)
		})
		p := l4test.NewUnixPool(t, pool.Options{SendProxy: version})
		if err := p.Add(pool.Spec{ID: at, Addr: addressOf(t, at), Weight: 1}); err != nil {
			t.Fatal(err)
		}
		spec := l4test.UnixSpec(t, p)
		l4test.StartUnix(t, l4.Options{Loops: 1}, spec)
		c := l4test.DialUnix(t, spec.Unix.Path)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if text := <-got; text != want {
			t.Errorf("version %d: the backend got %q", version, text)
		}
	}
}

func addressOf(t *testing.T, text string) pool.Address {
	t.Helper()
	a, err := pool.ParseAddress(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
