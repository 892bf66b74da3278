package discovery

import (
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestSentinelMessages holds which messages count.
func TestSentinelMessages(t *testing.T) {
	t.Parallel()
	s := NewSentinel(SentinelOptions{Master: "mymaster"})
	for message, want := range map[string]bool{
		"+switch-master mymaster 10.0.0.1 6379 10.0.0.2 6379":                      true,
		"+switch-master other 10.0.0.1 6379 10.0.0.2 6379":                         false,
		"+sdown master mymaster 10.0.0.1 6379":                                     true,
		"+sdown master other 10.0.0.1 6379":                                        false,
		"+sdown slave 10.0.0.2:6379 10.0.0.2 6379 @ mymaster 10.0.0.1 6379":        true,
		"-sdown slave 10.0.0.2:6379 10.0.0.2 6379 @ other 10.0.0.1 6379":           false,
		"+sdown sentinel 0123456789abcdef 10.0.0.9 26379 @ mymaster 10.0.0.1 6379": false,
		"+switch-master ": false, "+sdown ": false, "+sdown master": false, "+sdown slave a b c @": false,
	} {
		channel, text, _ := strings.Cut(message, " ")
		if got := s.concerns(channel, text); got != want {
			t.Errorf("%q concerns: %t", message, got)
		}
	}
}

// TestSentinelWatch has a subscription to two Sentinels that sends messages, is cut, and is there again.
func TestSentinelWatch(t *testing.T) {
	t.Parallel()
	a, b := startFakeSentinel(t, serverA), startFakeSentinel(t, serverA)
	s := sentinelsAt(a, b)
	changes := watchSentinels(t, s)
	for range 2 { // each subscription begins
		harness.Receive(t, "a change", changes)
	}
	b.publish(t, "+sdown", "master other 10.0.0.1 6379") // is not passed on
	a.publish(t, "+switch-master", "mymaster 10.0.0.1 6379 10.0.0.2 6379")
	harness.Receive(t, "a change", changes)
	a.disconnect()
	harness.Receive(t, "a change", changes)
	a.awaitSubscribers(t, 1)
	select {
	case <-changes:
		t.Error("there was one more change")
	default:
	}
}

// TestSentinelWatchHangs has a Sentinel that gives no sign of life: its subscription ends, and begins again.
func TestSentinelWatchHangs(t *testing.T) {
	t.Parallel()
	f := startFakeSentinel(t, serverA)
	f.answer = func(words []string) (string, bool) { return "", words[0] == "PING" }
	s := sentinelsAt(f)
	changes := watchSentinels(t, s)
	harness.Receive(t, "a change", changes)
	harness.Receive(t, "a change after the subscription began again", changes)
	if n := f.commands("PING"); n != 1 {
		t.Errorf("asked %d times for a sign of life, want once", n)
	}
}

// TestSentinelWatchPings has a Sentinel with nothing to say: the subscription stays.
func TestSentinelWatchPings(t *testing.T) {
	t.Parallel()
	f := startFakeSentinel(t, serverA)
	s := sentinelsAt(f)
	changes := watchSentinels(t, s)
	harness.Receive(t, "a change", changes)
	harness.Eventually(t, "two signs of life", func() error {
		if f.commands("PING") < 2 {
			return errWaiting
		}
		return nil
	})
	f.publish(t, "+sdown", "master mymaster 10.0.0.1 6379")
	harness.Receive(t, "a change", changes)
	if n := f.commands("SUBSCRIBE"); n != 1 {
		t.Errorf("subscribed %d times, want once", n)
	}
}

// TestSentinelFloods has a Sentinel that sends thousands of messages: few questions come of them, and it is left alone.
func TestSentinelFloods(t *testing.T) {
	t.Parallel()
	f := startFakeSentinel(t, serverA)
	s := sentinelsAt(f)
	changes := watchSentinels(t, s)
	harness.Receive(t, "a change", changes)
	f.mu.Lock()
	flood := strings.Repeat(list("message", "+switch-master", "mymaster a 1 b 2"), 2*maxMessages)
	for c, subscribed := range f.conns {
		if subscribed {
			_, _ = c.Write([]byte(flood)) // the connection may be closed meanwhile
		}
	}
	f.mu.Unlock()
	harness.Eventually(t, "the subscription begins again", func() error {
		if f.commands("SUBSCRIBE") < 2 {
			return errWaiting
		}
		return nil
	})
	if n := len(changes); n > 100 {
		t.Errorf("%d messages caused %d questions", 2*maxMessages, n)
	}
}

// TestNotices holds that the first message of a burst is passed on at once, and the others later as one.
func TestNotices(t *testing.T) {
	passed := make(chan time.Time, 100) // never closed
	n := newNotices(func() { passed <- time.Now() })
	for range 50 {
		n.note()
	}
	first, second := harness.Receive(t, "the first", passed), harness.Receive(t, "the others", passed)
	if gap := second.Sub(first); gap < messageGap {
		t.Errorf("the second was passed on after %v, want %v or more", gap, messageGap)
	}
	n.note()
	n.end()
	if len(passed) != 1 {
		t.Errorf("%d were passed on at the end, want 1", len(passed))
	}
}
