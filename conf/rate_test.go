package conf

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRate(t *testing.T) {
	for _, tt := range []struct {
		text  string
		want  Rate
		out   string
		every time.Duration
	}{
		{"", Rate{}, "", 0},
		{"100/s", Rate{100, time.Second, 100}, "100/s", 10 * time.Millisecond},
		{"100/s burst 200", Rate{100, time.Second, 200}, "100/s burst 200", 10 * time.Millisecond},
		{"100/s burst 100", Rate{100, time.Second, 100}, "100/s", 10 * time.Millisecond},
		{"600/m", Rate{600, time.Minute, 10}, "600/m", 100 * time.Millisecond},
		{"600/m burst 20", Rate{600, time.Minute, 20}, "600/m burst 20", 100 * time.Millisecond},
		{"59/m", Rate{59, time.Minute, 1}, "59/m", time.Minute / 59},
		{"10/h", Rate{10, time.Hour, 1}, "10/h", 6 * time.Minute},
		{"1/h burst 5", Rate{1, time.Hour, 5}, "1/h burst 5", time.Hour},
		{"007/s", Rate{7, time.Second, 7}, "7/s", time.Second / 7},
		{"1000000/s burst 10000000", Rate{1e6, time.Second, 1e7}, "1000000/s burst 10000000", time.Microsecond},
		{"60000000/m", Rate{6e7, time.Minute, 1e6}, "60000000/m", time.Microsecond},
		{"3600000000/h burst 1", Rate{3.6e9, time.Hour, 1}, "3600000000/h burst 1", time.Microsecond},
	} {
		r := Rate{Count: 7}
		err := r.UnmarshalText([]byte(tt.text))
		if err != nil || r != tt.want || r.String() != tt.out || r.Every() != tt.every || r.On() != (tt.text != "") {
			t.Errorf("%q gives %+v (%q, every %v), %v; want %+v (%q, every %v)", tt.text, r, r, r.Every(), err, tt.want,
				tt.out, tt.every)
		}
	}
	for want, texts := range map[error][]string{
		errUnit: {"100", "0", "/s", "s", "100 /s", "100/ s", "100/S", "100/d", "100/ms", "100/sec", "-1/s", "+1/s", "1.5/s",
			"1e3/s", "100/s burst", "100/s burst ", "100/s burst x", "100/s burst -1", "100/s burst 1.5", "100/s  burst 5",
			"100/s burst 5 burst 6", "100/s burst 5/s", "burst 5", "100/s burst 5 ", " 100/s", "100/s\x00", "100/s/s"},
		errRateBounds: {"0/s", "0/m burst 5", "1000001/s", "60000001/m", "3600000001/h", "100/s burst 0",
			"100/s burst 10000001", "99999999999999999999/s", "100/s burst 99999999999999999999", "9223372036854775807/h"},
	} {
		for _, text := range texts {
			r := Rate{Count: 7}
			if err := r.UnmarshalText([]byte(text)); !errors.Is(err, want) || r != (Rate{Count: 7}) {
				t.Errorf("%q gives %+v, %v; want %v and the old value", text, r, err, want)
			}
		}
	}
}

// TestRateRoundTrip: what String writes, UnmarshalText reads back exactly.
func TestRateRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		per := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "per")
		r := Rate{
			Count: rapid.IntRange(1, maxPerSecond*int(per/time.Second)).Draw(t, "count"), Per: per,
			Burst: rapid.IntRange(1, maxBurst).Draw(t, "burst"),
		}
		var r2 Rate
		if err := r2.UnmarshalText([]byte(r.String())); err != nil || r2 != r || r2.Every() < time.Microsecond {
			t.Fatalf("%+v is %q, which gives %+v, %v", r, r, r2, err)
		}
	})
}

// TestRateOfBackend: a rate is a text in the file, in the effective configuration and in a comparison.
func TestRateOfBackend(t *testing.T) {
	with := func(keys string) *Config {
		return mustParse(t, "listener.a = { pool = \"p\", address = \":1\" }\n"+
			"pool.p.backends = [{ address = \"10.0.0.1:1\", name = \"b\""+keys+" }]\n")
	}
	for keys, want := range map[string]string{
		"":                                    `max_rate = ""`,
		`, max_rate = "600/m burst 10"`:       `max_rate = "600/m"`,
		`, max_rate = "500/s burst 50"`:       `max_rate = "500/s burst 50"`,
		`, max_rate = "3600000000/h burst 1"`: `max_rate = "3600000000/h burst 1"`,
	} {
		c := with(keys)
		text := string(c.Effective())
		if !strings.Contains(text, want) {
			t.Errorf("of %q the effective configuration has not %s:\n%s", keys, want, text)
		}
		if d := c.Compare(mustParse(t, text)); len(d) != 0 {
			t.Errorf("of %q the effective configuration differs: %v", keys, d)
		}
	}
	a, b := with(`, max_rate = "5/s"`), with(`, max_rate = "300/m burst 5"`)
	want := []Difference{{Keys: []string{"pool", "p", "backends", "b", "max_rate"}, From: `"5/s"`, To: `"300/m"`}}
	if d := a.Compare(b); !reflect.DeepEqual(d, want) {
		t.Errorf("the differences are %v, want %v", d, want)
	}
}
