package test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// fleetTraffic sends requests through every node of a fleet all the time, some over connections that stay and each of
// the others over one of its own.
type fleetTraffic struct {
	stop    chan struct{}
	senders sync.WaitGroup
	sent    map[string]*atomic.Int64 // requests by node

	mu sync.Mutex
	// mu guards the fields below
	failures []string
	slowest  time.Duration
}

// startFleetTraffic starts the traffic, which ends with the test.
func startFleetTraffic(t testing.TB, nodes []*fleetNode) *fleetTraffic {
	t.Helper()
	f := &fleetTraffic{stop: make(chan struct{}), sent: make(map[string]*atomic.Int64)}
	for _, n := range nodes { // before anybody sends: the map is only read then
		f.sent[n.Name] = new(atomic.Int64)
	}
	for _, n := range nodes {
		address := n.Address(t, "main")
		f.senders.Go(func() { f.send(n.Name, address, false) })
		f.senders.Go(func() { f.send(n.Name, address, true) })
	}
	t.Cleanup(func() {
		close(f.stop)
		f.senders.Wait()
		f.check(t)
		t.Logf("%d requests, %d failed; the slowest took %v", f.requests(), len(f.failures), f.slowest)
	})
	return f
}

// send sends requests through a node until the traffic ends.
func (f *fleetTraffic) send(node, address string, stays bool) {
	var c net.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for {
		select {
		case <-f.stop:
			return
		case <-time.After(20 * time.Millisecond): // the rate
		}
		var err error
		started := time.Now()
		if c == nil {
			c, err = net.DialTimeout("tcp", address, harness.Patience)
		}
		if err == nil {
			err = errors.Join(c.SetDeadline(time.Now().Add(harness.Patience)), harness.PingPong(c, 1, 100))
		}
		f.count(node, time.Since(started), err)
		if c != nil && (err != nil || !stays) {
			c.Close()
			c = nil
		}
	}
}

func (f *fleetTraffic) count(node string, took time.Duration, err error) {
	f.sent[node].Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slowest = max(f.slowest, took)
	if err != nil {
		f.failures = append(f.failures, fmt.Sprintf("%s at %s: %v", node, time.Now().Format(time.TimeOnly), err))
	}
}

func (f *fleetTraffic) requests() (n int64) {
	for _, sent := range f.sent {
		n += sent.Load()
	}
	return n
}

// check fails the test if a request has failed.
func (f *fleetTraffic) check(t testing.TB) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.failures) > 0 {
		t.Errorf("%d of %d requests have failed, the first ones: %s", len(f.failures), f.requests(),
			strings.Join(f.failures[:min(5, len(f.failures))], "; "))
	}
}

// flows waits until every node has answered further requests, and checks that none has failed.
func (f *fleetTraffic) flows(t testing.TB) {
	t.Helper()
	before := make(map[string]int64)
	for node, sent := range f.sent {
		before[node] = sent.Load()
	}
	harness.Eventually(t, "every node answers requests", func() error {
		for node, sent := range f.sent {
			if sent.Load() < before[node]+10 {
				return errors.New(node + " does not")
			}
		}
		return nil
	})
	f.check(t)
}
