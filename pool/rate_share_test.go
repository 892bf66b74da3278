package pool

import (
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// greedy picks as often as it can until the time, and returns how many sessions it got.
func greedy(t *testing.T, p *Pool, h *hand, until, step time.Duration) (got int) {
	t.Helper()
	for h.now() < until {
		for {
			l, err := p.Pick(from(got))
			if err == ErrBusy {
				break
			}
			must(t, err)
			l.Release(ConnectRefused)
			got++
		}
		h.pass(step)
	}
	return got
}

// TestRateShare holds that a backend gets its share of its rate, also one that was added or changed later, and that
// shares which go up and down give no new bursts.
func TestRateShare(t *testing.T) {
	h := &hand{}
	p := made(t, Options{Clock: h.now}, paced("a", 90, 9))
	p.SetRateShare(1.0 / 3)
	if got := greedy(t, p, h, 10*time.Second, time.Millisecond); got != 302 { // the burst is 3, and the next is due at 10 s
		t.Errorf("a third of 90 a second: %d sessions in 10 s", got)
	}
	must(t, p.SetMaxRate("a", rate.PerSecond(1, 1)))
	if got := greedy(t, p, h, 310*time.Second, 10*time.Millisecond); got < 99 || got > 101 {
		t.Errorf("a third of 1 a second: %d sessions in 300 s", got)
	}
	must(t, p.Remove("a"))
	must(t, p.Add(paced("b", 90, 9)))
	got := 0
	for i := range 1000 { // 1/2 and 1/3 in turn, 10 ms each: 5/12 of 90 a second on average
		p.SetRateShare([]float64{1.0 / 2, 1.0 / 3}[i%2])
		got += greedy(t, p, h, 310*time.Second+time.Duration(i+1)*10*time.Millisecond, time.Millisecond)
	}
	if got < 360 || got > 460 { // all that come while the share is 1/2 are 450
		t.Errorf("shares in turn: %d sessions in 10 s", got)
	}
	info, _ := p.Backend("b")
	if info.MaxRate != rate.PerSecond(90, 9) {
		t.Errorf("the setting is %v", info.MaxRate)
	}
	p.SetRateShare(1)
	if got := greedy(t, p, h, h.now()+10*time.Second, time.Millisecond); got < 895 || got > 910 {
		t.Errorf("the whole rate: %d sessions in 10 s", got)
	}
}

// TestRateShareServesTheQueue holds that sessions that wait for a backend's rate get it as soon as a larger share allows
// it, and that Explain names the share.
func TestRateShareServesTheQueue(t *testing.T) {
	h := hand{}
	p := made(t, Options{Clock: h.now, QueueMax: 9, QueueTimeout: time.Minute}, paced("a", 1, 10))
	p.SetRateShare(0.1)
	picks(p, 1)
	if x := p.Explain(from(1)); len(x.Others) != 1 ||
		!strings.Contains(x.Others[0].Reason, "its rate, 1/s burst 10, of which this node has 10%, for another 10s") {
		t.Errorf("explained as %+v", x)
	}
	l := &line{pool: p}
	l.wait(t, "first")
	h.pass(2 * time.Second) // at half of the rate the next one is due then
	p.SetRateShare(0.5)
	wantIDs(t, "at a larger share", l.names(), "first")
	if p.RateShare() != 0.5 {
		t.Errorf("the share is %v", p.RateShare())
	}
}
