package test

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// endOf reads c until it ends in any way, and returns how long that took.
func endOf(t *testing.T, c io.Reader) time.Duration {
	t.Helper()
	start := time.Now()
	if n, err := io.Copy(io.Discard, struct{ io.Reader }{c}); isTimeout(err) {
		t.Fatalf("the session did not end, after %d bytes: %v", n, err)
	}
	return time.Since(start)
}

func isTimeout(err error) bool {
	timeout, is := err.(interface{ Timeout() bool })
	return is && timeout.Timeout()
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	b, _ := between(t, harness.Echo, fmt.Sprintf(`idle_timeout = "%v"`, timeout))
	quiet, busy := b.Dial(t, "main"), b.Dial(t, "main")
	check(t, harness.PingPong(quiet, 1, 1))

	// the busy session sends something now and then, for twice the timeout
	stop := time.After(2 * timeout)
	pace := time.NewTicker(timeout / 30)
	defer pace.Stop()
	for said := false; !said; {
		check(t, harness.PingPong(busy, 1, 1))
		select {
		case <-pace.C:
		case <-stop:
			said = true
		}
	}
	line := b.WaitSession(t, quiet.LocalAddr())
	oneOf(t, []harness.Line{line}, "idle")
	atLeastSeconds(t, line, timeout)
	endOf(t, quiet)

	line = b.WaitSession(t, busy.LocalAddr()) // falls silent now
	oneOf(t, []harness.Line{line}, "idle")
	atLeastSeconds(t, line, 5*timeout/2)
	endOf(t, busy)
}

// atLeastSeconds checks that the session did not end before its time.
func atLeastSeconds(t *testing.T, line harness.Line, least time.Duration) {
	t.Helper()
	if line.Duration < least.Seconds() {
		t.Errorf("session ended after less than %v: %s", least, line.Text)
	}
}

func TestHalfCloseTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	for _, by := range []string{"client", "backend"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			b, client, backend := connected(t, fmt.Sprintf(`half_close_timeout = "%v"`, timeout))
			check(t, roundTrip(client, backend))
			closer, other := client, backend
			if by == "backend" {
				closer, other = backend, client
			}
			check(t, closer.CloseWrite())
			n, err := other.Read(make([]byte, 1)) // the FIN, or already the end
			if n > 0 || err == nil {
				t.Errorf("read %d bytes, %v after the other side closed its half", n, err)
			}
			// traffic in the open half counts as activity
			stop := time.After(2 * timeout)
			pace := time.NewTicker(timeout / 20)
			defer pace.Stop()
			for said := false; !said; {
				check(t, harness.SendAll(other, "x"))
				_, err := io.ReadFull(closer, make([]byte, 1))
				check(t, err)
				select {
				case <-pace.C:
				case <-stop:
					said = true
				}
			}
			line := b.WaitSession(t, client.LocalAddr())
			oneOf(t, []harness.Line{line}, "half_close")
			atLeastSeconds(t, line, 5*timeout/2)
			endOf(t, closer)
		})
	}
}

// TestHalfCloseAfterQuiet half-closes a session that was quiet for longer than half_close_timeout: only silence since
// the FIN counts, so the answer still arrives.
func TestHalfCloseAfterQuiet(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	b, client, backend := connected(t, fmt.Sprintf(`half_close_timeout = "%v"`, timeout))
	check(t, roundTrip(client, backend))
	<-time.After(timeout + timeout/4) // the quiet
	check(t, client.CloseWrite())
	if n, err := backend.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the backend read %d bytes, %v, expected the client's FIN", n, err)
	}
	<-time.After(timeout / 4) // the backend thinks
	if err := errors.Join(harness.SendAll(backend, "answer"), backend.CloseWrite()); err != nil {
		t.Fatalf("the session was cut before the answer: %v", err)
	}
	if got := readAll(t, client); got != "answer" {
		t.Errorf("the client read %q", got)
	}
	oneOf(t, []harness.Line{b.WaitSession(t, client.LocalAddr())}, "client_closed")
}

// TestConnectTimeout has only backends that swallow SYNs: a client is refused after one timeout for each backend that
// may be tried.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	first, second, third := harness.Swallow(t, harness.Echo), harness.Swallow(t, harness.Echo),
		harness.Swallow(t, harness.Echo)
	b := world{
		Backends: []string{first.Address(), second.Address(), third.Address()},
		Pool:     []string{fmt.Sprintf(`connect_timeout = "%v"`, timeout), `retries = 1`},
	}.start(t)
	c := b.Dial(t, "main")
	took := endOf(t, c)
	line := b.WaitSession(t, c.LocalAddr())
	oneOf(t, []harness.Line{line}, "connect_failed")
	atLeastSeconds(t, line, 2*timeout)
	if line.Retries != 1 {
		t.Errorf("expected one retry: %s", line.Text)
	}
	// three timeouts would mean a third backend; between two and three lies a whole second of slack
	if took >= 3*timeout {
		t.Errorf("refused after %v, expected two timeouts of %v", took, timeout)
	}
}
