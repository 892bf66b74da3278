package pool

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// A crowd is sessions of a pool that end when they may leave, and come back at once.
type crowd struct {
	p      *Pool
	leases map[*Backend][]Lease
	left   int // how many have left so far
	takes  int // how many of those that are asked are at rest, 0 for all
}

func (c *crowd) come(t *testing.T, n int) {
	for range n {
		l, err := c.p.Pick(PickContext{})
		must(t, err)
		c.leases[l.Backend()] = append(c.leases[l.Backend()], l)
	}
}

// leave lets the sessions leave that may, and returns how many have.
func (c *crowd) leave(t *testing.T) (left int) {
	for b, leases := range c.leases {
		for len(leases) > 0 && (c.takes == 0 || left < c.takes) && b.TakeLeave() {
			leases[0].Release(Served)
			leases = leases[1:]
			left++
		}
		c.leases[b] = leases
	}
	c.left += left
	c.come(t, left)
	return left
}

// skew returns the most sessions of a backend as a multiple of its share.
func (c *crowd) skew() (most float64) {
	total, weight := int64(0), uint32(0)
	for _, b := range c.p.Backends() {
		total += b.Leases
		weight += b.Weight
	}
	for _, b := range c.p.Backends() {
		most = max(most, float64(b.Leases)*float64(weight)/float64(total)/float64(b.Weight))
	}
	return most
}

// crowded returns a pool with backends of these weights and n sessions, that a goroutine runs.
func crowded(t *testing.T, o Options, n int, weights ...uint32) *crowd {
	o.Name, o.Initial, o.DrainSafely = "p", Healthy, true
	if o.Algorithm == "" {
		o.Algorithm = "least_conn"
	}
	p, err := New(o)
	must(t, err)
	for _, w := range weights {
		must(t, p.Add(Spec{ID: fmt.Sprint(len(p.byID)), Addr: nth(len(p.byID)), Weight: w}))
	}
	c := &crowd{p: p, leases: make(map[*Backend][]Lease)}
	go p.Run(t.Context())
	c.come(t, n)
	return c
}

func nth(i int) Address {
	a, err := ParseAddress(fmt.Sprintf("10.0.0.%d:80", i+1))
	if err != nil {
		panic(err)
	}
	return a
}

// TestRebalance holds that a pool that has grown from 2 to 4 backends becomes even in the expected time and not more
// often than the rate allows, and that then nothing moves any more.
func TestRebalance(t *testing.T) {
	for _, tt := range []struct {
		name      string
		o         Options
		n         int
		weights   [4]uint32
		rate      float64
		most      time.Duration
		takes     int
		wantMoved int // at most
	}{
		{"even", Options{}, 1000, [4]uint32{1, 1, 1, 1}, 0.01, 42 * time.Second, 0, 400},
		{"fast", Options{}, 1000, [4]uint32{1, 1, 1, 1}, 1, 2 * time.Second, 0, 400},
		{"few sessions", Options{}, 20, [4]uint32{1, 1, 1, 1}, 0.01, 50 * time.Second, 0, 8},
		{"weights", Options{}, 1000, [4]uint32{3, 1, 4, 2}, 0.05, 12 * time.Second, 0, 560},
		{"round robin", Options{Algorithm: "round_robin"}, 1000, [4]uint32{1, 1, 1, 1}, 0.05, 40 * time.Second, 0, 1000},
		{"few at rest", Options{}, 1000, [4]uint32{1, 1, 1, 1}, 0.05, 85 * time.Second, 5, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.o.Rebalance = Rebalance{MaxSkew: 1.2, Rate: tt.rate}
				c := crowded(t, tt.o, tt.n, tt.weights[:2]...)
				must(t, c.p.Add(Spec{ID: "2", Addr: nth(2), Weight: tt.weights[2]},
					Spec{ID: "3", Addr: nth(3), Weight: tt.weights[3]}))
				began := time.Now()
				bound := func() float64 {
					perSecond := tt.rate * float64(tt.n)
					return perSecond*time.Since(began).Seconds() + max(perSecond, 1)
				}
				for ; c.skew() > 1.2+1e-9 && time.Since(began) < time.Hour; time.Sleep(100 * time.Millisecond) {
					synctest.Wait()
					if c.leave(t); float64(c.left) > math.Ceil(bound()) {
						t.Fatalf("%d have left after %v", c.left, time.Since(began))
					}
				}
				if took := time.Since(began); took > tt.most || c.left > tt.wantMoved {
					t.Errorf("after %v and %d moves", took, c.left)
				}
				moved := c.left
				for range 100 {
					time.Sleep(rebalanceEvery)
					synctest.Wait()
					c.leave(t)
				}
				if c.left != moved || c.skew() > 1.2+1e-9 {
					t.Errorf("%d more have moved, skew %v", c.left-moved, c.skew())
				}
			})
		})
	}
}

// TestRebalanceOff holds when nothing may leave: without sessions, with all backends at their shares or above, and
// after rebalancing was turned off.
func TestRebalanceOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Rebalance: Rebalance{MaxSkew: 1.2, Rate: 1}}
		c := crowded(t, o, 0, 1, 1)
		quiet := func(why string) {
			t.Helper()
			for range 5 {
				time.Sleep(rebalanceEvery)
				synctest.Wait()
				if n := c.leave(t); n != 0 {
					t.Fatalf("%s: %d have left", why, n)
				}
			}
		}
		quiet("idle")
		c.come(t, 3)
		quiet("one more on one backend")
		c.come(t, 97)
		quiet("even")
		must(t, c.p.SetVerdict("1", Unhealthy, "x"))
		quiet("one backend is eligible")
		must(t, c.p.SetVerdict("1", Healthy, "x"))
		must(t, c.p.Add(Spec{ID: "2", Addr: nth(2), Weight: 1}))
		time.Sleep(rebalanceEvery)
		synctest.Wait()
		if b := c.p.byID["0"].backend; !b.MayLeave() {
			t.Error("no session may leave")
		}
		off := c.p.settings().Options
		off.Rebalance = Rebalance{}
		must(t, c.p.Reconfigure(off))
		synctest.Wait()
		quiet("off")
	})
}

// TestRebalanceSlowly holds that a backend in slow start is given no more than its part, and one with a limit no more
// than that.
func TestRebalanceSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{SlowStart: 100 * time.Second, Rebalance: Rebalance{MaxSkew: 1.01, Rate: 1}}
		c := crowded(t, o, 1000, 1)
		must(t, c.p.Add(Spec{ID: "1", Addr: nth(1), Weight: 1, MaxSessions: 300}))
		began := time.Now()
		for range 150 {
			time.Sleep(rebalanceEvery)
			synctest.Wait()
			c.leave(t)
			has := c.p.byID["1"].backend.load.Leases()
			grown := min(time.Since(began)+time.Second, o.SlowStart)
			if most := 1000 * grown.Seconds() / (100 + grown.Seconds()); float64(has) > most+1 {
				t.Fatalf("%d sessions after %v, want at most %v", has, grown, most)
			}
		}
		if has := c.p.byID["1"].backend.load.Leases(); has < 285 || has > 300 {
			t.Errorf("%d sessions in the end", has)
		}
	})
}

// TestRebalanceShares holds shares by weight, and what is full.
func TestRebalanceShares(t *testing.T) {
	inf := math.Inf(1)
	for _, tt := range []struct {
		shares []share
		want   []float64
	}{
		{[]share{{weight: 1, has: 4, most: inf}, {weight: 3, most: inf}}, []float64{1, 3}},
		{[]share{{weight: 1, has: 10, most: inf}, {weight: 1, most: 2}}, []float64{8, 2}},
		{[]share{{weight: 1, has: 12, most: inf}, {weight: 2, most: 2}, {weight: 1, most: 4}}, []float64{6, 2, 4}},
		{[]share{{weight: 1, has: 9, most: 2}, {weight: 1, most: 2}}, []float64{2, 2}},
		{[]share{{weight: 0, most: inf}}, []float64{0}},
		{nil, nil},
	} {
		n := int64(0)
		for _, s := range tt.shares {
			n += s.has
		}
		spread(tt.shares, float64(n))
		for i, s := range tt.shares {
			if math.Abs(s.fair-tt.want[i]) > 1e-9 {
				t.Errorf("%+v: want %v", tt.shares, tt.want)
				break
			}
		}
	}
}

// TestRebalanceOptions holds which settings are refused.
func TestRebalanceOptions(t *testing.T) {
	good := Options{Name: "p", Algorithm: "least_conn", DrainSafely: true, Rebalance: Rebalance{MaxSkew: 1.2, Rate: 0.01}}
	must(t, CheckOptions(good))
	for i, spoil := range []func(o *Options){
		func(o *Options) { o.Rebalance.MaxSkew = 1 },
		func(o *Options) { o.Rebalance.MaxSkew = math.NaN() },
		func(o *Options) { o.Rebalance.Rate = 0 },
		func(o *Options) { o.Rebalance.Rate = 1.1 },
		func(o *Options) { o.Rebalance.MinAge = -1 },
		func(o *Options) { o.DrainSafely = false },
		func(o *Options) { o.Algorithm = "maglev" },
		func(o *Options) { o.Algorithm = "first" },
		func(o *Options) { o.StickyTTL, o.StickyEntries = time.Minute, 16 },
	} {
		o := good
		if spoil(&o); CheckOptions(o) == nil {
			t.Errorf("%d: no error", i)
		}
	}
}
