package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestHoldServesAll has 2,000 clients come while the only backend is in maintenance. A part of them leaves. When it is
// back, the others are served in the order in which they came, none twice, and the balancer has nothing left of it.
func TestHoldServesAll(t *testing.T) {
	const clients, everyLeaves = 2000, 10
	var mu sync.Mutex
	var order []uint32
	backend := harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		var number [4]byte
		if _, err := io.ReadFull(c, number[:]); err != nil {
			return
		}
		mu.Lock()
		order = append(order, binary.BigEndian.Uint32(number[:]))
		mu.Unlock()
		_, _ = c.Write(number[:])
		_, _ = io.Copy(io.Discard, c)
	})
	b := world{
		Backends: []string{backend.Address()},
		Pool:     []string{`hold = { timeout = "1m", max = 2000 }`, `queue = { max = 0, timeout = "1m" }`},
		Keys:     []string{`max_rate = "2000/s burst 1"`}, // so that their order can be seen
	}.start(t)
	mode := func(m string) {
		t.Helper()
		b.Ask(t, "PATCH", "/v1/pools/all/backends/b1", map[string]string{"mode": m}, nil)
	}
	waiting := func() (n int) {
		var all struct{ Pools []struct{ Waiting int } }
		b.Ask(t, "GET", "/v1/pools", nil, &all)
		return all.Pools[0].Waiting
	}
	mode("maintenance")
	descriptors, memory := b.Descriptors(t).Total(), b.AnonMemory(t)
	came := make([]*net.TCPConn, clients)
	for i := range came {
		came[i] = b.Dial(t, "main")
		var number [4]byte
		binary.BigEndian.PutUint32(number[:], uint32(i))
		_, err := came[i].Write(number[:])
		check(t, err)
		if i%50 == 49 { // several loops accept: not more than this much disorder
			harness.Eventually(t, "they wait", func() error {
				if n := waiting(); n != i+1 {
					return fmt.Errorf("%d wait, not %d", n, i+1)
				}
				return nil
			})
		}
	}
	t.Logf("%d clients wait: %d descriptors more, %d bytes more for each", clients,
		b.Descriptors(t).Total()-descriptors, (b.AnonMemory(t)-memory)/clients)
	if err := refusal(t, b.Address(t, "main")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one more is refused with %v", err)
	}
	var stay []uint32
	for i, c := range came {
		if i%everyLeaves == 0 {
			check(t, c.SetLinger(0))
			check(t, c.Close())
		} else {
			stay = append(stay, uint32(i))
		}
	}
	harness.Eventually(t, "those who have left are gone", func() error {
		if n := waiting(); n != len(stay) {
			return fmt.Errorf("%d wait, not %d", n, len(stay))
		}
		return nil
	})
	began := time.Now()
	mode("ready")
	for _, i := range stay {
		var number [4]byte
		_, err := io.ReadFull(came[i], number[:])
		check(t, err)
		if got := binary.BigEndian.Uint32(number[:]); got != i {
			t.Fatalf("client %d got the answer of %d", i, got)
		}
	}
	t.Logf("%d clients are served after %v", len(stay), time.Since(began).Round(time.Millisecond))
	mu.Lock()
	late := 0 // how many places one was served after another that came later, at most
	for at, n := range order {
		if place, found := slices.BinarySearch(stay, n); found {
			late = max(late, at-place, place-at)
		}
	}
	if slices.Sort(order); !slices.Equal(order, stay) {
		t.Errorf("%d sessions for %d clients", len(order), len(stay))
	}
	mu.Unlock()
	if t.Logf("at most %d places from the order in which they came", late); late > 100 {
		t.Errorf("a client was served %d places from its own", late)
	}
	if n := backend.Accepted(); n != len(stay) {
		t.Errorf("the backend got %d connections for %d clients", n, len(stay))
	}
	for _, i := range stay {
		check(t, came[i].Close())
	}
	reasons := map[string]int{}
	for _, l := range b.WaitSessions(t, clients+1) {
		reasons[l.Reason]++
		if l.Reason == "client_closed" && l.QueueTime <= 0 {
			t.Errorf("a client was served without a wait: %s", l.Text)
		}
	}
	if reasons["client_closed"] != len(stay) || reasons["hold_full"] != 1 ||
		reasons["client_reset"] != clients-len(stay) {
		t.Errorf("sessions ended with %v", reasons)
	}
}

// TestHoldEnds holds the reason when no backend comes back in time, and what explain says meanwhile; and that a check
// that finds the backend again ends a hold.
func TestHoldEnds(t *testing.T) {
	t.Parallel()
	address := harness.FreeAddress(t)
	b := world{
		Backends: []string{address},
		Pool:     []string{`hold = { timeout = "1s", max = 10 }`},
		Health:   []string{`interval = "50ms"`, `fast_interval = "50ms"`, `rise = 1`},
	}.start(t)
	began := time.Now()
	c := b.Dial(t, "main")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it ended with %v", err)
	}
	l := b.WaitSession(t, c.LocalAddr())
	if took := time.Since(began); l.Reason != "hold_timeout" || l.QueueTime < 0.9 || took < 900*time.Millisecond {
		t.Errorf("it ended with %s after %v, %v s in the queue", l.Reason, took, l.QueueTime)
	}
	stdout, _, _ := b.Command(t, "explain", "--pool", "all", "192.0.2.1")
	if want := "would wait for a backend: none is eligible"; !strings.Contains(stdout, want) {
		t.Errorf("explain does not say %q:\n%s", want, stdout)
	}
	c = b.Dial(t, "main")
	time.Sleep(100 * time.Millisecond)
	harness.ServeOn(t, address, harness.SpeakFirst("b1"))
	if _, err := c.Read(make([]byte, 2)); err != nil {
		t.Errorf("a client that waited for the check got %v", err)
	}
}
