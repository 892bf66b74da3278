package pool

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/algo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPool returns a pool of healthy backends of the given ids and of weight 1.
func newPool(t testing.TB, algorithm string, ids ...string) *Pool {
	t.Helper()
	p, err := New(Options{Name: "test", Algorithm: algorithm, Initial: Healthy, ConnectTimeout: time.Second,
		Retries: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		must(t, p.Add(spec(id, i)))
	}
	return p
}

// spec returns a valid backend; different numbers give different addresses.
func spec(id string, number int) Spec {
	addr := netip.AddrFrom4([4]byte{127, 1, byte(number >> 8), byte(number)})
	return Spec{ID: id, Addr: At(netip.AddrPortFrom(addr, 80)), Weight: 1}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ids returns the ids of all backends of p, in their order.
func ids(p *Pool) []string {
	var ids []string
	for _, b := range p.Backends() {
		ids = append(ids, b.ID)
	}
	return ids
}

// pickable returns the sorted ids of all backends that p gives leases on, each found by having tried those before.
func pickable(p *Pool) []string {
	var pc PickContext
	var ids []string
	for {
		l, err := p.Pick(pc)
		if err != nil {
			slices.Sort(ids)
			return ids
		}
		ids = append(ids, l.Backend().ID())
		pc.Tried = append(pc.Tried, l.Backend())
		l.Release(Neutral)
	}
}

func TestNew(t *testing.T) {
	p := newPool(t, "least_conn")
	if p.Name() != "test" || p.ConnectTimeout() != time.Second || p.Retries() != 2 {
		t.Errorf("pool has name %q, connect timeout %v, retries %d", p.Name(), p.ConnectTimeout(), p.Retries())
	}
	if got := p.Backends(); len(got) != 0 {
		t.Errorf("new pool has backends %v", got)
	}
	if _, err := p.Pick(PickContext{}); err != ErrNoBackend {
		t.Errorf("Pick of a new pool: error %v, want ErrNoBackend itself", err)
	}
}

func TestNewRefusesBadOptions(t *testing.T) {
	good := Options{Name: "p", Algorithm: "round_robin"}
	for name, change := range map[string]func(*Options){
		"algorithm":       func(o *Options) { o.Algorithm = "fastest" },
		"initial verdict": func(o *Options) { o.Initial = Unhealthy + 1 },
		"connect timeout": func(o *Options) { o.ConnectTimeout = -1 },
		"retries":         func(o *Options) { o.Retries = -1 },
		"hash balance":    func(o *Options) { o.Algorithm, o.HashBalance = "maglev", 1 },
		"no hash":         func(o *Options) { o.HashBalance = 1.5 },
		"slow start":      func(o *Options) { o.SlowStart = -1 },
		"sticky ttl":      func(o *Options) { o.StickyTTL, o.StickyEntries = -1, 10 },
		"names":           func(o *Options) { o.NamedBy = 2 },
		"sticky entries":  func(o *Options) { o.StickyTTL = 1 },
		"queue":           func(o *Options) { o.QueueMax = -1 },
		"queue timeout":   func(o *Options) { o.QueueMax, o.QueueTimeout = 1, -1 },
		"no hash either":  func(o *Options) { o.Algorithm, o.HashBalance = "maglev", math.NaN() },
		"breaker":         func(o *Options) { o.Breaker = usual; o.Breaker.Trials = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			p, err := New(o)
			if err == nil || p != nil {
				t.Fatalf("New(%+v) = %v, %v, want an error alone", o, p, err)
			}
			var unknown *algo.UnknownKindError
			if got := errors.As(err, &unknown); got != (name == "algorithm") {
				t.Errorf("error %v: is an *algo.UnknownKindError: %v", err, got)
			}
		})
	}
}

func TestAddShowsTheBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, "round_robin")
		must(t, p.Add(Spec{ID: "a", Addr: At(netip.MustParseAddrPort("[::ffff:127.0.0.1]:80")), Weight: 3}))
		want := BackendInfo{
			ID: "a", Addr: At(netip.MustParseAddrPort("127.0.0.1:80")), Weight: 3,
			Verdict: Healthy, Reason: "initial", Since: time.Now(), Mode: Ready,
			Given: Spec{ID: "a", Addr: At(netip.MustParseAddrPort("127.0.0.1:80")), Weight: 3}, Eligible: true,
		}
		if got := p.Backends(); len(got) != 1 || got[0] != want {
			t.Errorf("Backends = %+v, want [%+v]", got, want)
		}
	})
}

func TestInitialVerdictDecidesTheFirstPick(t *testing.T) {
	for initial, want := range map[Verdict]error{Unknown: ErrNoBackend, Healthy: nil, Unhealthy: ErrNoBackend} {
		p, err := New(Options{Algorithm: "round_robin", Initial: initial})
		must(t, err)
		must(t, p.Add(spec("a", 0)))
		if _, err := p.Pick(PickContext{}); !errors.Is(err, want) {
			t.Errorf("initially %v: Pick gives error %v, want %v", initial, err, want)
		}
	}
}

func TestErrorsChangeNothing(t *testing.T) {
	invalid := func(field, value string) error { return &InvalidBackendError{Field: field, Value: value} }
	addr := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	for name, tt := range map[string]struct {
		do   func(p *Pool) error
		want error
	}{
		"add a duplicate": {func(p *Pool) error { return p.Add(spec("a", 9)) }, ErrDuplicateBackend},
		"add duplicates": {func(p *Pool) error { return p.Add(spec("new", 8), spec("new", 9)) },
			ErrDuplicateBackend},
		"add good and bad": {func(p *Pool) error { return p.Add(spec("new", 8), spec("", 9)) },
			invalid("id", "")},
		"add no id":      {func(p *Pool) error { return p.Add(spec("", 9)) }, invalid("id", "")},
		"add no address": {func(p *Pool) error { return p.Add(Spec{ID: "c"}) }, invalid("addr", "invalid AddrPort")},
		"add all addresses without a port": {func(p *Pool) error { return p.Add(Spec{ID: "c", Addr: At(addr("0.0.0.0:0"))}) },
			invalid("addr", "0.0.0.0")},
		"add the unspecified address": {func(p *Pool) error { return p.Add(Spec{ID: "c", Addr: At(addr("[::]:80"))}) },
			invalid("addr", "[::]:80")},
		"add it mapped": {func(p *Pool) error { return p.Add(Spec{ID: "c", Addr: At(addr("[::ffff:0.0.0.0]:80"))}) },
			invalid("addr", "[::ffff:0.0.0.0]:80")},
		"add a multicast address": {func(p *Pool) error { return p.Add(Spec{ID: "c", Addr: At(addr("224.0.0.1:80"))}) },
			invalid("addr", "224.0.0.1:80")},
		"add too heavy": {func(p *Pool) error { return p.Add(Spec{ID: "c", Addr: At(addr("127.0.0.1:80")), Weight: 257}) },
			invalid("weight", "257")},
		"add below tier 0": {func(p *Pool) error { return p.Add(at("c", -1, "", 0)) }, invalid("tier", "-1")},
		"add above all tiers": {func(p *Pool) error { return p.Add(at("c", MaxTier+1, "", 0)) },
			invalid("tier", "65536")},
		"add of negative limit": {func(p *Pool) error { return p.Add(at("c", 0, "", -1)) },
			invalid("max_sessions", "-1")},
		"add in no mode": {func(p *Pool) error { return p.Add(Spec{ID: "c", Addr: At(addr("127.0.0.1:80")), Mode: 3}) },
			invalid("mode", "mode(3)")},
		"limit of unknown": {func(p *Pool) error { return p.SetMaxSessions("c", 1) }, ErrUnknownBackend},
		"limit below 0": {func(p *Pool) error { return p.SetMaxSessions("a", -1) },
			invalid("max_sessions", "-1")},
		"no error: same limit":  {func(p *Pool) error { return p.SetMaxSessions("a", 0) }, nil},
		"no error: no verdicts": {func(p *Pool) error { return p.SetVerdicts() }, nil},
		"remove unknown":        {func(p *Pool) error { return p.Remove("c") }, ErrUnknownBackend},
		"weight of unknown":     {func(p *Pool) error { return p.SetWeight("c", 1) }, ErrUnknownBackend},
		"weight too heavy":      {func(p *Pool) error { return p.SetWeight("a", 257) }, invalid("weight", "257")},
		"weight far too heavy": {func(p *Pool) error { return p.SetWeight("a", 1<<32-1) },
			invalid("weight", "4294967295")},
		"mode of unknown":    {func(p *Pool) error { return p.SetMode("c", Drain) }, ErrUnknownBackend},
		"mode undefined":     {func(p *Pool) error { return p.SetMode("a", 3) }, invalid("mode", "mode(3)")},
		"verdict of unknown": {func(p *Pool) error { return p.SetVerdict("c", Healthy, "") }, ErrUnknownBackend},
		"verdict undefined": {func(p *Pool) error { return p.SetVerdict("a", 6, "") },
			invalid("verdict", "verdict(6)")},
		"no error: same weight":  {func(p *Pool) error { return p.SetWeight("a", 1) }, nil},
		"no error: same mode":    {func(p *Pool) error { return p.SetMode("a", Ready) }, nil},
		"no error: same verdict": {func(p *Pool) error { return p.SetVerdict("a", Healthy, "again") }, nil},
		"no error: add nothing":  {func(p *Pool) error { return p.Add() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, "round_robin", "a", "b")
			before, snap := p.Backends(), p.snap.Load()
			s := p.Subscribe(10)
			defer s.Close()

			err := tt.do(p)
			var got, want *InvalidBackendError
			if errors.As(tt.want, &want) {
				if !errors.As(err, &got) || got.Field != want.Field || got.Value != want.Value || got.Want == "" {
					t.Errorf("error %v, want an *InvalidBackendError of %s %q", err, want.Field, want.Value)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if after := p.Backends(); !slices.Equal(before, after) {
				t.Errorf("backends were %+v and are %+v", before, after)
			}
			if p.snap.Load() != snap {
				t.Error("the snapshot was replaced")
			}
			if n := len(s.C()); n != 0 {
				t.Errorf("%d events", n)
			}
		})
	}
}

func TestErrorTexts(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	for want, err := range map[string]error{
		`pool test: add backend "a": pool: a backend of this id exists already`:     p.Add(spec("a", 1)),
		`pool test: remove backend "b\n": pool: no backend of this id`:              p.Remove("b\n"),
		`pool test: set weight of backend "a": invalid weight "300": want 0 to 256`: p.SetWeight("a", 300),
	} {
		if got := fmt.Sprint(err); got != want {
			t.Errorf("error %q, want %q", got, want)
		}
	}
}

func TestBackendsAreInOrderOfAddition(t *testing.T) {
	p := newPool(t, "round_robin", "c", "a", "b")
	must(t, p.SetMode("a", Drain))
	must(t, p.Remove("c"))
	must(t, p.Add(spec("d", 4), spec("c", 5)))
	if got, want := ids(p), []string{"a", "b", "d", "c"}; !slices.Equal(got, want) {
		t.Errorf("order is %v, want %v", got, want)
	}
}

func TestBackendsAreCopies(t *testing.T) {
	p := newPool(t, "round_robin", "a", "b")
	got := p.Backends()
	got[0].Weight, got[1].ID = 99, "z"
	if now := p.Backends(); now[0].Weight != 1 || now[1].ID != "b" {
		t.Errorf("a change of the copy shows in the pool: %+v", now)
	}
}

func TestVerdictsKeepTheirFirstReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, "round_robin", "a")
		must(t, p.SetVerdict("a", Unhealthy, "connect refused"))
		since := time.Now()
		time.Sleep(time.Minute)
		must(t, p.SetVerdict("a", Unhealthy, "connect timed out"))
		must(t, p.SetMode("a", Maintenance))
		if b := p.Backends()[0]; b.Reason != "connect refused" || !b.Since.Equal(since) {
			t.Errorf("verdict is of %v because %q, want of %v because of the first reason", b.Since, b.Reason, since)
		}
	})
}

// TestVerdictModeAndWeightAreThreeThings walks through all combinations in an order that would show if one setting
// overwrote another.
func TestVerdictModeAndWeightAreThreeThings(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	for _, v := range []Verdict{Healthy, Unknown, Unhealthy} {
		must(t, p.SetVerdict("a", v, "test"))
		for _, m := range []Mode{Maintenance, Ready, Drain} {
			must(t, p.SetMode("a", m))
			for _, w := range []uint32{0, 1, 256} {
				must(t, p.SetWeight("a", w))
				if b := p.Backends()[0]; b.Verdict != v || b.Mode != m || b.Weight != w {
					t.Errorf("backend is %v, %v, %d, want %v, %v, %d", b.Verdict, b.Mode, b.Weight, v, m, w)
				}
				_, err := p.Pick(PickContext{})
				if eligible := v == Healthy && m == Ready && w > 0; eligible != (err == nil) {
					t.Errorf("%v, %v, weight %d: Pick gives error %v", v, m, w, err)
				}
			}
		}
	}
}

func TestPickerIsRebuiltOnlyForTheEligible(t *testing.T) {
	p := newPool(t, "round_robin", "a", "b")
	picker := func() algo.Picker { return p.snap.Load().tiers[0].picker }
	for _, tt := range []struct {
		name    string
		do      func() error
		rebuilt bool
	}{
		{"b falls ill", func() error { return p.SetVerdict("b", Unhealthy, "") }, true},
		{"b drains, too", func() error { return p.SetMode("b", Drain) }, false},
		{"b gets lighter", func() error { return p.SetWeight("b", 0) }, false},
		{"b recovers, drained", func() error { return p.SetVerdict("b", Healthy, "") }, false},
		{"b is ready, of weight 0", func() error { return p.SetMode("b", Ready) }, false},
		{"b gets weight", func() error { return p.SetWeight("b", 2) }, true},
		{"b gets more", func() error { return p.SetWeight("b", 3) }, true},
		{"b is removed", func() error { return p.Remove("b") }, true},
		{"c is added", func() error { return p.Add(spec("c", 3)) }, true},
		{"d is added, of weight 0", func() error { return p.Add(Spec{ID: "d", Addr: spec("d", 4).Addr}) }, false},
		{"d is removed", func() error { return p.Remove("d") }, false},
	} {
		before := picker()
		must(t, tt.do())
		if rebuilt := picker() != before; rebuilt != tt.rebuilt {
			t.Errorf("%s: picker rebuilt: %v, want %v", tt.name, rebuilt, tt.rebuilt)
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[fmt.Stringer]string{
		Unknown: "unknown", Healthy: "healthy", Unhealthy: "unhealthy", WrongRole: "wrong_role", Lagging: "lagging",
		Verdict(9): "verdict(9)",
		Closed:     "closed", Open: "open", HalfOpen: "half-open", Breaker(9): "breaker(9)",
		Ready: "ready", Drain: "drain", Maintenance: "maintenance", Mode(9): "mode(9)",
		Served: "served", ConnectRefused: "connect_refused", ConnectTimeout: "connect_timeout",
		ConnectUnreachable: "connect_unreachable", CutEarly: "cut_early", Neutral: "neutral",
		NoAnswer: "no_answer", ICMPError: "icmp_error", Outcome(9): "outcome(9)",
	} {
		if got.String() != want {
			t.Errorf("word is %q, want %q", got, want)
		}
	}
	if numOutcomes != ICMPError+1 {
		t.Errorf("numOutcomes = %d, want one more than the last outcome", numOutcomes)
	}
}
