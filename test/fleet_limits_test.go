package test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A fleetCrowd are clients that come to nodes as often as they can.
type fleetCrowd struct {
	served atomic.Int64 // sessions that had an echo
	stop   context.CancelFunc
	coming sync.WaitGroup
}

// startCrowd has clients come to each of these nodes.
func startCrowd(t *testing.T, nodes ...*fleetNode) *fleetCrowd {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &fleetCrowd{stop: stop}
	for _, n := range nodes {
		address := n.Address(t, "main")
		for range 2 {
			c.coming.Go(func() { c.come(ctx, address) })
		}
	}
	t.Cleanup(c.end)
	return c
}

func (c *fleetCrowd) end() {
	c.stop()
	c.coming.Wait()
}

// come comes again and again, with a short pause so that the clients leave some of the machine to others.
func (c *fleetCrowd) come(ctx context.Context, address string) {
	for ctx.Err() == nil {
		if echoOnce(address) == nil {
			c.served.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// echoOnce begins a session, and returns an error unless it has an echo.
func echoOnce(address string) error {
	conn, err := net.DialTimeout("tcp", address, harness.Patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("a")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// rate returns how many sessions a second are served over a few seconds.
func (c *fleetCrowd) rate() float64 {
	before, begin := c.served.Load(), time.Now()
	time.Sleep(5 * time.Second) // what is measured is time
	return float64(c.served.Load()-before) / time.Since(begin).Seconds()
}

// awaitShare waits until a node has this part of the rates.
func (n *fleetNode) awaitShare(t *testing.T, want float64) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s has %.3f of the rates", n.Name, want), func() error {
		if got := metrics(t, n.Balancer)["limeload_fleet_rate_share"]; math.Abs(got-want) > 0.001 {
			return fmt.Errorf("it has %.3f", got)
		}
		return nil
	})
}

// TestFleetLimits has clients come to three nodes as often as they can: together they get what a backend's max_rate or
// a listener's rate allows, with three nodes, with two after one has left, and after a restart without etcd.
func TestFleetLimits(t *testing.T) {
	t.Parallel()
	const limit = 60
	text := fmt.Sprintf("%d/s burst 6", limit)
	for name, w := range map[string]world{
		"max_rate of a backend": {Keys: []string{fmt.Sprintf("max_rate = %q", text)}},
		"rate of a listener":    {Listener: []string{fmt.Sprintf("limits = { rate = %q }", text)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
			w.Backends = []string{harness.Serve(t, harness.Echo).Address()}
			f := fleetWorld{world: w, Nodes: 3, Etcd: []*harness.Etcd{etcd}}
			nodes := f.start(t)
			keeps := func(what string, nodes ...*fleetNode) {
				t.Helper()
				c := startCrowd(t, nodes...)
				got := c.rate()
				c.end()
				t.Logf("%s: %.1f sessions a second, and the limit is %d", what, got, limit)
				// Each time begins with a burst of 6 and a second; a busy machine makes fewer.
				if got > limit*1.05+18.0/5 || got < limit*0.7 {
					t.Errorf("%s: %.1f sessions a second are served, and the limit is %d", what, got, limit)
				}
			}
			for _, n := range nodes {
				n.awaitShare(t, 1.0/3)
			}
			keeps("three nodes", nodes...)
			nodes[1].stop(t)
			left := []*fleetNode{nodes[0], nodes[2]}
			for _, n := range left {
				n.awaitShare(t, 1.0/2)
			}
			keeps("two nodes", left...)
			check(t, syscall.Kill(etcd.PID(), syscall.SIGKILL))
			etcd.Wait(t)
			left[0].stop(t)
			left[0].run(t)
			left[0].awaitShare(t, 1.0/2)
			keeps("after a restart without etcd", left...)
		})
	}
}

// TestFleetLimitsByTraffic has clients come to one of two nodes: the node gets nearly all of the rate.
func TestFleetLimitsByTraffic(t *testing.T) {
	t.Parallel()
	w := world{Backends: []string{harness.Serve(t, harness.Echo).Address()}, Keys: []string{`max_rate = "1/h burst 10"`}}
	nodes := fleetWorld{world: w, Nodes: 2, Fleet: []string{`share_limits = "traffic"`}}.start(t)
	for _, n := range nodes {
		n.awaitShare(t, 1.0/2)
	}
	startCrowd(t, nodes[0])
	harness.Eventually(t, "the node with the traffic has most of the rate", func() error {
		one, two := metrics(t, nodes[0].Balancer), metrics(t, nodes[1].Balancer)
		a, b := one["limeload_fleet_rate_share"], two["limeload_fleet_rate_share"]
		if a < 0.7 || a+b > 1.02 {
			return fmt.Errorf("they have %.3f and %.3f", a, b)
		}
		return nil
	})
	if text := nodes[0].do(t, "explain", "--pool", "all", "192.0.2.1"); !strings.Contains(text, "of which this node has") {
		t.Errorf("explain says %s", text)
	}
}
