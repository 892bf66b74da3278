package conf

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// errUnit is the error of UnmarshalText of Duration, Size and Rate. The binder replaces it by a longer message for the
// operator.
var errUnit = errors.New("not a number with a known unit")

// A Duration is a time.Duration that is written with its unit, "250ms", "2s" or "1h30m". A number without a unit is
// refused, even zero, since readers would have to guess the unit. The zero value is 0s.
type Duration time.Duration

// UnmarshalText reads a duration as time.ParseDuration does, but requires a unit even for zero.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	v, err := time.ParseDuration(s)
	if err != nil || !strings.ContainsAny(s, "smh") { // every unit ends in one of these
		return fmt.Errorf("duration %s: %w", quote(s), errUnit)
	}
	*d = Duration(v)
	return nil
}

// String writes d as an operator would: "1m" where time.Duration says "1m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (Duration) needs() string {
	return `needs a duration with a unit, such as "250ms", "2s" or "5m"`
}

// A Size is a number of bytes that is written with its unit, "64KiB" or "10MB". A number without a unit is refused,
// even zero. The zero value is 0B.
type Size int64

// sizeUnits is ordered so that String finds the largest unit that divides a size first; of
// two spellings for one unit it writes the first.
var sizeUnits = [...]struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"TB", 1e12},
	{"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6},
	{"KiB", 1 << 10}, {"kB", 1e3}, {"KB", 1e3},
	{"B", 1},
}

// UnmarshalText reads a non-negative whole number with one of the units B, kB (or KB), KiB, MB, MiB, GB, GiB, TB and
// TiB.
func (z *Size) UnmarshalText(text []byte) error {
	s := string(text)
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	if err != nil {
		return fmt.Errorf("size %s: %w", quote(s), errUnit)
	}
	for _, u := range sizeUnits {
		if u.name == s[digits:] && n <= math.MaxInt64/u.bytes {
			*z = Size(n * u.bytes)
			return nil
		}
	}
	return fmt.Errorf("size %s: %w", quote(s), errUnit)
}

// String writes z exactly, in the largest unit that allows it.
func (z Size) String() string {
	for _, u := range sizeUnits {
		if z != 0 && int64(z)%u.bytes == 0 {
			return strconv.FormatInt(int64(z)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

func (Size) needs() string {
	return `needs a size with a unit, such as "64KiB" or "10MB"`
}
