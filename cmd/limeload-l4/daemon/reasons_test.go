package daemon

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

func TestReasonOf(t *testing.T) {
	since := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for name, tt := range map[string]struct {
		verdict pool.Verdict
		after   time.Duration // of the last check; 0 = none
		outcome healthcheck.Outcome
		want    string
	}{
		"not checked yet":                   {pool.Healthy, 0, 0, "then"},
		"judged after its last check":       {pool.WrongRole, -time.Second, healthcheck.Succeeded, "then"},
		"still so, for another cause":       {pool.Unhealthy, time.Second, healthcheck.TimedOut, "now"},
		"the same at the same moment":       {pool.Unhealthy, time.Nanosecond, healthcheck.Failed, "now"},
		"still of the wrong role":           {pool.WrongRole, time.Hour, healthcheck.FoundWrongRole, "now"},
		"not enough failures for a verdict": {pool.Unknown, time.Second, healthcheck.Failed, "now"},
		"one success after failures": {pool.Unhealthy, time.Second, healthcheck.Succeeded,
			"then (2026-03-04T05:06:07Z); last check: now"},
		"one failure after successes": {pool.Healthy, time.Second, healthcheck.Failed,
			"then (2026-03-04T05:06:07Z); last check: now"},
		"nothing found out": {pool.Healthy, time.Hour, healthcheck.FoundNothingOut,
			"then (2026-03-04T05:06:07Z); last check: now"},
	} {
		b := pool.BackendInfo{Verdict: tt.verdict, Reason: "then", Since: since}
		var last healthcheck.Ended
		if tt.after != 0 {
			last = healthcheck.Ended{At: since.Add(tt.after), Outcome: tt.outcome, Detail: "now"}
		}
		if got := reasonOf(b, last); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestReasonsAreOfNow: a backend is unhealthy for one cause, and then for another. The verdict stays, and the reason
// changes.
func TestReasonsAreOfNow(t *testing.T) {
	l, address := listenLocal(t)
	l.Close() // nobody listens there at first
	d, _ := checkedDaemon(t, address.String(), `
type = "tcp"
steps = [{ expect = "ready" }]
interval = "20ms"
fast_interval = "20ms"
rise = 1
fall = 1
`)
	await := func(reason string) time.Time {
		t.Helper()
		var since time.Time
		harness.Eventually(t, "the reason is "+reason, func() error {
			all, err := d.Backends("web")
			if err != nil {
				return err
			}
			x, err := d.Explain(admin.ExplainQuery{Pool: "web", Client: "10.0.0.1"})
			if err != nil {
				return err
			}
			if b := all[0]; b.Verdict != "unhealthy" || !strings.Contains(b.Reason, reason) ||
				len(x.Others) != 1 || !strings.Contains(x.Others[0].Reason, reason) ||
				!strings.Contains(x.Text, reason) {
				return fmt.Errorf("it is %s: %q, and explained with %+v, %q", b.Verdict, b.Reason, x.Others, x.Text)
			}
			since = all[0].Since
			return nil
		})
		return since
	}
	first := await("connect refused")
	l, err := net.Listen("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	})
	defer serving.Wait()
	defer l.Close()
	if again := await(`closed before "ready"`); !again.Equal(first) {
		t.Errorf("the verdict is of %v, want %v: only its reason is another", again, first)
	}
}
