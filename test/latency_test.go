package test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestSwitchBetweenBulkAndMessages changes the kind of traffic several times on one session: all bytes arrive, and
// small messages are not delayed after bulk traffic.
func TestSwitchBetweenBulkAndMessages(t *testing.T) {
	t.Parallel()
	b, _ := between(t, harness.Echo)
	c := b.Dial(t, "main")
	bulk := harness.Traffic{Seed: 4, Size: 16 << 20, Chunk: 128 << 10}
	var waiting time.Duration
	const rounds, messages = 5, 200
	for range rounds {
		sent := make(chan end, 1)
		go func() {
			var e end
			e.sent, e.err = bulk.Send(c)
			sent <- e
		}()
		got, err := harness.Collect(io.LimitReader(c, bulk.Size))
		check(t, err)
		if e := harness.Receive(t, "end of bulk", sent); e.err != nil || e.sent != got {
			t.Fatalf("sent %v, %v; got %v", e.sent, e.err, got)
		}
		start := time.Now()
		check(t, harness.PingPong(c, messages, 100))
		waiting += time.Since(start)
	}
	noStalls(t, rounds*messages, waiting)
}

// TestMessageInTwoWrites has both sides write each message in two pieces, the case in which Nagle's algorithm and
// delayed acknowledgements wait for each other for 40 ms or more.
func TestMessageInTwoWrites(t *testing.T) {
	t.Parallel()
	twoBytes := func(c *net.TCPConn) error {
		for _, piece := range []string{"a", "b"} {
			if err := harness.SendAll(c, piece); err != nil {
				return err
			}
		}
		return nil
	}
	b, _ := between(t, func(_ context.Context, c *net.TCPConn) {
		question := make([]byte, 2)
		for {
			if _, err := io.ReadFull(c, question); err != nil {
				return
			}
			if err := twoBytes(c); err != nil {
				return
			}
		}
	})
	c := b.Dial(t, "main")
	answer := make([]byte, 2)
	start := time.Now()
	const messages = 500
	for range messages {
		check(t, twoBytes(c))
		_, err := io.ReadFull(c, answer)
		check(t, err)
	}
	noStalls(t, messages, time.Since(start))
}

// noStalls fails the test if round trips took so long that most must have waited for a timer of the kernel: 40 ms for a
// delayed acknowledgement, 200 ms for a retransmission. Normally one takes a tenth of a millisecond.
func noStalls(t *testing.T, trips int, took time.Duration) {
	t.Helper()
	if limit := time.Duration(trips) * 20 * time.Millisecond; took > limit {
		t.Errorf("%d round trips took %v, more than %v", trips, took, limit)
	}
}
