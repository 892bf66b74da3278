package healthcheck

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPolicyDefaults(t *testing.T) {
	got, err := Policy{Interval: 2 * time.Second, Timeout: time.Second, Rise: 1, Fall: 1}.complete()
	want := Policy{
		Interval: 2 * time.Second, FastInterval: 2 * time.Second, Timeout: time.Second, StaleAfter: 7 * time.Second,
		Rise: 1, Fall: 1,
	}
	if err != nil || got != want {
		t.Errorf("complete = %+v, %v, want %+v", got, err, want)
	}
}

func TestInvalidPolicies(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Policy)
		want   string // the field; "" if the policy is good
	}{
		"usual":                        {func(p *Policy) {}, ""},
		"no interval":                  {func(p *Policy) { p.Interval = 0 }, "interval"},
		"negative interval":            {func(p *Policy) { p.Interval = -1 }, "interval"},
		"negative fast interval":       {func(p *Policy) { p.FastInterval = -1 }, "fast_interval"},
		"fast as slow":                 {func(p *Policy) { p.FastInterval = p.Interval }, ""},
		"fast slower":                  {func(p *Policy) { p.FastInterval = p.Interval + 1 }, "fast_interval"},
		"no timeout":                   {func(p *Policy) { p.Timeout = 0 }, "timeout"},
		"timeout above the interval":   {func(p *Policy) { p.Timeout = time.Minute }, ""},
		"no rise":                      {func(p *Policy) { p.Rise = 0 }, "rise"},
		"no fall":                      {func(p *Policy) { p.Fall = -1 }, "fall"},
		"negative jitter":              {func(p *Policy) { p.Jitter = -0.1 }, "jitter"},
		"jitter of all":                {func(p *Policy) { p.Jitter = 1 }, "jitter"},
		"jitter of no number":          {func(p *Policy) { p.Jitter = math.NaN() }, "jitter"},
		"undefined verdict":            {func(p *Policy) { p.Initial = Unhealthy + 1 }, "initial"},
		"negative staleness":           {func(p *Policy) { p.StaleAfter = -1 }, "stale_after"},
		"stale before the next result": {func(p *Policy) { p.StaleAfter = 3*time.Second - 1 }, "stale_after"},
		"stale just after it":          {func(p *Policy) { p.StaleAfter = 3 * time.Second }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := usual
			tt.change(&p)
			s := NewScheduler(Options{Report: func([]Change) {}})
			err := s.Add(target("a"), newFake(succeed), p)
			var invalid *InvalidPolicyError
			switch {
			case tt.want == "":
				if err != nil {
					t.Errorf("Add: error %v, want none", err)
				}
			case !errors.As(err, &invalid) || invalid.Field != tt.want || invalid.Value == "" || invalid.Want == "":
				t.Errorf("Add: error %v, want an *InvalidPolicyError of %s", err, tt.want)
			case s.Remove("a"):
				t.Error("the target was added all the same")
			}
		})
	}
}

func TestErrorTexts(t *testing.T) {
	s := NewScheduler(Options{Report: func([]Change) {}})
	must(t, s.Add(target("redis/a"), newFake(succeed), usual))
	fast, undefined := usual, usual
	fast.FastInterval = 3 * time.Second
	undefined.Initial = Unhealthy + 1
	for want, err := range map[string]error{
		`check target "redis/a": healthcheck: a target of this id exists already`:          s.Add(target("redis/a"), newFake(succeed), usual),
		`check target "b": invalid fast_interval 3s: want up to the interval of 2s`:        s.Add(target("b"), newFake(succeed), fast),
		`check target "": invalid interval 0s: want more than 0s`:                          s.Add(Target{}, newFake(succeed), Policy{}),
		`check target "b": invalid initial wrong_role: want unknown, healthy or unhealthy`: s.Add(target("b"), newFake(succeed), undefined),
	} {
		if got := fmt.Sprint(err); got != want {
			t.Errorf("error %q, want %q", got, want)
		}
	}
}

func TestDelayStaysWithinItsJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := usual
		p.Jitter = rapid.Float64Range(0, 0.999).Draw(t, "jitter")
		settled := rapid.Bool().Draw(t, "settled")
		d := p.FastInterval
		if settled {
			d = p.Interval
		}
		got := p.delay(settled, rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "random"))
		if off := (got - d).Abs(); float64(off) > p.Jitter*float64(d) || got <= 0 {
			t.Fatalf("delay of %v with jitter %v is %v", d, p.Jitter, got)
		}
	})
}

func TestWords(t *testing.T) {
	for v, want := range map[Verdict]string{
		Unknown: "unknown", Healthy: "healthy", Unhealthy: "unhealthy", 9: "verdict(9)",
	} {
		if v.String() != want {
			t.Errorf("word is %q, want %q", v, want)
		}
	}
}
