package conf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The bounds of a Rate.
const (
	maxPerSecond = 1_000_000
	maxBurst     = 10_000_000
)

// errRateBounds is the error of UnmarshalText of Rate for a text in the right form with a number that is not allowed.
var errRateBounds = errors.New("not an allowed rate")

// A Rate is how often something may happen, written as a number for a second, a minute or an hour, "100/s", "600/m" or
// "10/h", and how many of these may happen at once, "100/s burst 200". The zero value, "", is no limit.
type Rate struct {
	Count int           // in Per: 1 or more, and 1,000,000 a second at most
	Per   time.Duration // time.Second, time.Minute or time.Hour
	Burst int           // 1 to 10,000,000
}

// ratePeriods are the units of a rate.
var ratePeriods = [...]struct {
	name string
	per  time.Duration
}{
	{"/s", time.Second}, {"/m", time.Minute}, {"/h", time.Hour},
}

// UnmarshalText reads whole numbers with one of the units /s, /m and /h. Without a burst, as many may happen at once as
// the rate allows in a second, and at least one.
func (r *Rate) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "" {
		*r = Rate{}
		return nil
	}
	rate, burst, hasBurst := strings.Cut(s, " burst ")
	var got Rate
	digits := rate
	for _, p := range ratePeriods {
		if number, ok := strings.CutSuffix(rate, p.name); ok {
			digits, got.Per = number, p.per
		}
	}
	count, countOK := rateNumber(digits)
	if got.Per == 0 || !countOK {
		return fmt.Errorf("rate %s: %w", quote(s), errUnit)
	}
	got.Count = count
	got.Burst = got.defaultBurst()
	if hasBurst {
		n, ok := rateNumber(burst)
		if !ok {
			return fmt.Errorf("rate %s: %w", quote(s), errUnit)
		}
		got.Burst = n
	}
	if got.Count < 1 || got.Count > maxPerSecond*int(got.Per/time.Second) || got.Burst < 1 || got.Burst > maxBurst {
		return fmt.Errorf("rate %s: %w", quote(s), errRateBounds)
	}
	*r = got
	return nil
}

// rateNumber reads a whole number without a sign. One that is too large for every use is a large number.
func rateNumber(s string) (n int, ok bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, _ = strconv.Atoi(s) // beyond the range it is the largest int
	return n, true
}

// defaultBurst is how many may happen at once if the text does not say it.
func (r Rate) defaultBurst() int { return max(1, r.Count/int(r.Per/time.Second)) }

// On reports whether there is a limit.
func (r Rate) On() bool { return r.Count > 0 }

// Every returns the mean time from one to the next, a microsecond or more; 0 = no limit.
func (r Rate) Every() time.Duration {
	if !r.On() {
		return 0
	}
	return r.Per / time.Duration(r.Count)
}

// String writes r as an operator would, without the burst that it has anyway.
func (r Rate) String() string {
	if !r.On() {
		return ""
	}
	text := strconv.Itoa(r.Count)
	for _, p := range ratePeriods {
		if p.per == r.Per {
			text += p.name
		}
	}
	if r.Burst != r.defaultBurst() {
		text += " burst " + strconv.Itoa(r.Burst)
	}
	return text
}

func (Rate) needs() string {
	return `needs a rate with a unit, such as "100/s" or "600/m burst 20"`
}

// bounds says which numbers are allowed in a text of the right form.
func (Rate) bounds() string {
	return "allowed is 1 or more, up to 1000000 a second, with a burst of 1 to 10000000"
}
