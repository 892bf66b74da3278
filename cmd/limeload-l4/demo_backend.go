package main

import (
	"context"
	"fmt"
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
	fail          chan struct{} // has room for one; the backend is to be away for a while

	listener net.Listener // only used by run
}

// newDemoBackend opens a backend on a free port.
func newDemoBackend(name string, say *narrator) (*demoBackend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", name, err)
	}
	return &demoBackend{name: name, address: l.Addr().String(), say: say, fail: make(chan struct{}, 1),
		listener: l}, nil
}

// run serves until ctx ends. It is away for demoOutage after each request to fail.
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

// serve answers until ctx ends or the backend fails on request.
func (b *demoBackend) serve(ctx context.Context) {
	server := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	server.SetKeepAlivesEnabled(false) // so that each request is a session of its own, which shows the balancing
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(b.listener) })
	select {
	case <-ctx.Done():
	case <-b.fail:
		b.say.line("%s goes away for %s", b.name, demoOutage)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = server.Shutdown(stop) // connections that are open after a second are cut off
	serving.Wait()
}

// ServeHTTP answers one request, and prints a line about it unless the demo's own client has sent it.
func (b *demoBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.UserAgent() != demoAgent {
		b.say.line("%s answered %s %q", b.name, r.Method, r.URL.Path)
	}
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
