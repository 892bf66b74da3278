package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// A demoBackend is one of the demo's small web servers. Its zero value is of no use, see newDemoBackend.
type demoBackend struct {
	// set once, then read-only
	name, address string
	say           *narrator
	fail          chan struct{} // one slot: go away for a while

	listener net.Listener // run's own
}

// newDemoBackend opens a backend on a free port.
func newDemoBackend(name string, say *narrator) (*demoBackend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", name, err)
	}
	return &demoBackend{name: name, address: l.Addr().String(), say: say, fail: make(chan struct{}, 1), listener: l}, nil
}

// run serves until ctx ends, away for demoOutage each time it was asked to fail.
func (b *demoBackend) run(ctx context.Context) {
	for ctx.Err() == nil {
		b.serve(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(demoOutage):
		}
		l, err := net.Listen("tcp", b.address)
		if err != nil {
			b.say.line("%s cannot come back: %v", b.name, err)
			return
		}
		b.listener = l
		b.say.line("%s listens again", b.name)
	}
}

// serve answers until ctx ends or the backend is to fail.
func (b *demoBackend) serve(ctx context.Context) {
	server := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	server.SetKeepAlivesEnabled(false) // each request a session of its own, so that balancing shows
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(b.listener) })
	select {
	case <-ctx.Done():
	case <-b.fail:
		b.say.line("%s goes away for %s", b.name, demoOutage)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = server.Shutdown(stop) // what is still open after a second is not worth waiting for
	serving.Wait()
}

// ServeHTTP answers one request and says so.
func (b *demoBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.say.line("%s answered %s %q", b.name, r.Method, r.URL.Path)
	if r.URL.Path != "/fail" {
		fmt.Fprintf(w, "%s says hello\n", b.name)
		return
	}
	fmt.Fprintf(w, "%s goes away for %s\n", b.name, demoOutage)
	select {
	case b.fail <- struct{}{}:
	default:
	}
}

// A narrator tells a person what happens, a line each, from any goroutine. As the demo's log writer it turns
// the log's lines about verdicts into its own and leaves the rest out.
type narrator struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

// line prints a line with the time of day.
func (n *narrator) line(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(n.out, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// Write takes a line of the log.
func (n *narrator) Write(p []byte) (int, error) {
	var event struct{ Message, Backend, From, To, Reason string }
	if err := json.Unmarshal(p, &event); err == nil && event.Message == "verdict changed" {
		n.line("%s is %s: %s", event.Backend, event.To, event.Reason)
	}
	return len(p), nil
}
