package rate

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Limit
		out  string
	}{
		{"", Limit{}, ""},
		{"100/s", Limit{10 * time.Millisecond, 100}, "100/s"},
		{"100/s burst 200", Limit{10 * time.Millisecond, 200}, "100/s burst 200"},
		{"300/s", Limit{time.Second / 300, 300}, "300/s"},
		{"70000/s", Limit{14_285, 70_000}, "70000/s"},
		{"600/m burst 20", Limit{100 * time.Millisecond, 20}, "10/s burst 20"},
		{"60/m", Limit{time.Second, 1}, "1/s"},
		{"59/m", Limit{time.Minute / 59, 1}, "59/m"},
		{"1/h burst 10000000", Limit{time.Hour, MaxBurst}, "1/h burst 10000000"},
		{"1000000/s", Limit{time.Microsecond, 1e6}, "1000000/s"},
		{"3600000000/h burst 1", Limit{time.Microsecond, 1}, "1000000/s burst 1"},
	} {
		l, err := Parse(tt.text)
		if err != nil || l != tt.want || l.String() != tt.out {
			t.Errorf("%q gives %+v (%q), %v; want %+v (%q)", tt.text, l, l, err, tt.want, tt.out)
		}
	}
	for _, text := range []string{"100", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "1 /s", "1/d", "1000001/s", "1/s burst 0",
		"1/s burst", "1/s burst ", "1/s burst 10000001", "1/s burst 5 burst 5", "burst 5", "1/s/s", " 1/s",
		"99999999999999999999/s", "1/s burst 99999999999999999999"} {
		if l, err := Parse(text); err == nil || l != (Limit{}) {
			t.Errorf("%q gives %+v, %v; want an error", text, l, err)
		}
	}
}

// TestParseRoundTrip: what String writes of a limit from Parse, Parse reads back.
func TestParseRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(periods[:]).Draw(t, "unit")
		l := Limit{
			Every: p.per / time.Duration(rapid.IntRange(1, MaxCount*int(p.per/time.Second)).Draw(t, "n")),
			Burst: rapid.IntRange(1, MaxBurst).Draw(t, "burst"),
		}
		if got, err := Parse(l.String()); err != nil || got != l {
			t.Fatalf("%+v is %q, which gives %+v, %v", l, l, got, err)
		}
	})
}

// TestSlackHasABound: the longest burst is no overflow.
func TestSlackHasABound(t *testing.T) {
	l := Limit{Every: MaxEvery, Burst: MaxBurst}
	at := time.Duration(0)
	for range 1000 {
		next, wait := l.Take(at, time.Hour)
		if wait != 0 || next <= at {
			t.Fatalf("at %v: next %v, wait %v", at, next, wait)
		}
		at = next
	}
	if l.Wait(maxSlack+2*time.Hour, time.Hour) != time.Hour {
		t.Error("the burst has no end")
	}
}

// TestChange: what was used of a burst stays used.
func TestChange(t *testing.T) {
	const now = time.Hour
	for _, tt := range []struct {
		used     int
		from, to Limit
		left     int
	}{
		{5, PerSecond(10, 10), PerSecond(10, 10), 5},
		{5, PerSecond(10, 10), PerSecond(1000, 10), 5},
		{10, PerSecond(10, 10), PerSecond(1, 12), 2},
		{10, PerSecond(10, 10), PerSecond(1, 4), 0},
		{0, Limit{}, PerSecond(1, 4), 4},
		{3, PerSecond(1, 4), Limit{}, 1}, // it is not changed
		{1, Limit{MaxEvery, 1}, PerSecond(1000, 1), 0},
		{9, PerSecond(1, 9), Limit{MaxEvery, MaxBurst}, 1000},
	} {
		var b Bucket
		for range tt.used {
			b.Take(tt.from, now)
		}
		b.Change(tt.from, tt.to, now)
		l, left := tt.to, 0
		if !l.On() {
			l = tt.from
		}
		var c Bucket
		c.CopyFrom(&b)
		for left < 1000 && c.Take(l, now) == 0 {
			left++
		}
		if left != tt.left {
			t.Errorf("%d used of %v, then %v: %d are left, want %d", tt.used, tt.from, tt.to, left, tt.left)
		}
	}
}
