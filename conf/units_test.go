package conf

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDuration(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
		out  string
	}{
		{"250ms", 250 * time.Millisecond, "250ms"},
		{"2s", 2 * time.Second, "2s"},
		{"5m", 5 * time.Minute, "5m"},
		{"1h30m", 90 * time.Minute, "1h30m"},
		{"60m", time.Hour, "1h"},
		{"1.5s", 1500 * time.Millisecond, "1.5s"},
		{"10us", 10 * time.Microsecond, "10µs"},
		{"0s", 0, "0s"},
		{"100s", 100 * time.Second, "1m40s"},
		{"10m10s", 610 * time.Second, "10m10s"},
		{"1h0m10s", 3610 * time.Second, "1h0m10s"},
		{"-3s", -3 * time.Second, "-3s"}, // bounds are for the binder
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(tt.text)); err != nil || d.Std() != tt.want || d.String() != tt.out {
			t.Errorf("%q gives %v (%v), %v; want %v (%q)", tt.text, d.Std(), d, err, tt.want, tt.out)
		}
	}
	for _, text := range []string{"", "0", "-0", "15", "1.5", "s", "5d", "5 s", "5S", "1e3s", "9999999h",
		"five minutes", "\x00s"} {
		d := Duration(7)
		if err := d.UnmarshalText([]byte(text)); !errors.Is(err, errUnit) || d != 7 {
			t.Errorf("%q gives %v, %v; want errUnit and the old value", text, d, err)
		}
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Size
		out  string
	}{
		{"64KiB", 65536, "64KiB"},
		{"10MB", 10_000_000, "10MB"},
		{"1kB", 1000, "1kB"},
		{"1KB", 1000, "1kB"},
		{"1024MiB", 1 << 30, "1GiB"},
		{"3TB", 3e12, "3TB"},
		{"2TiB", 2 << 40, "2TiB"},
		{"7GB", 7e9, "7GB"},
		{"1500B", 1500, "1500B"},
		{"0B", 0, "0B"},
		{"8388607TiB", 8388607 << 40, "8388607TiB"},
	} {
		var z Size
		if err := z.UnmarshalText([]byte(tt.text)); err != nil || z != tt.want || z.String() != tt.out {
			t.Errorf("%q gives %d (%v), %v; want %d (%q)", tt.text, int64(z), z, err, int64(tt.want), tt.out)
		}
	}
	for _, text := range []string{"", "0", "15", "B", "1.5MiB", "-1B", "+1B", "1 KiB", "1kib", "1M", "8388608TiB",
		"99999999999999999999B"} {
		z := Size(7)
		if err := z.UnmarshalText([]byte(text)); !errors.Is(err, errUnit) || z != 7 {
			t.Errorf("%q gives %v, %v; want errUnit and the old value", text, z, err)
		}
	}
}

// TestUnitsRoundTrip: what String writes, UnmarshalText reads back exactly.
func TestUnitsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64().Draw(t, "duration"))
		var d2 Duration
		if err := d2.UnmarshalText([]byte(d.String())); err != nil || d2 != d {
			t.Errorf("%d ns is written %q, read back as %d ns, %v", int64(d), d, int64(d2), err)
		}
		z := Size(rapid.Int64Min(0).Draw(t, "size"))
		var z2 Size
		if err := z2.UnmarshalText([]byte(z.String())); err != nil || z2 != z {
			t.Errorf("%d bytes are written %q, read back as %d, %v", int64(z), z, int64(z2), err)
		}
	})
}
