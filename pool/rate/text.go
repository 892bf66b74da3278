package rate

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// periods are the units of a rate's text, the shortest first.
var periods = [...]struct {
	name string
	per  time.Duration
}{
	{"/s", time.Second}, {"/m", time.Minute}, {"/h", time.Hour},
}

// Parse returns the limit that a text such as "100/s burst 200", "600/m" or "10/h" says; "" is none. Without a burst,
// as many may happen at once as the rate allows in a second, and at least one. The configuration file has the same
// texts.
func Parse(text string) (Limit, error) {
	if text == "" {
		return Limit{}, nil
	}
	wrong := fmt.Errorf("not a rate: %q", text)
	rate, burst, hasBurst := strings.Cut(text, " burst ")
	var l Limit
	for _, p := range periods {
		number, is := strings.CutSuffix(rate, p.name)
		if !is {
			continue
		}
		n, ok := number10(number)
		if !ok || n > MaxCount*int(p.per/time.Second) {
			return Limit{}, wrong
		}
		l = Limit{Every: p.per / time.Duration(n), Burst: max(1, n/int(p.per/time.Second))}
	}
	if hasBurst {
		n, ok := number10(burst)
		if !ok || n > MaxBurst {
			return Limit{}, wrong
		}
		l.Burst = n
	}
	if !l.On() {
		return Limit{}, wrong
	}
	return l, nil
}

// number10 reads a whole number above 0 without a sign.
func number10(s string) (n int, ok bool) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0
}

// roundest returns the number from low to high with the most zeros at its end, or 0 if there is none: Every is rounded
// to nanoseconds, so that several large numbers have the same.
func roundest(low, high int) int {
	for step := MaxCount; step > 0; step /= 10 {
		if n := high / step * step; n >= low {
			return n
		}
	}
	return 0
}

// String writes l as Parse reads it, in the shortest unit that allows a whole number: "1/s" for "60/m". A burst that
// Parse adds by itself is left out. "" is no limit.
func (l Limit) String() string {
	if !l.On() {
		return ""
	}
	text, burst := fmt.Sprintf("1 every %v", l.Every), 0 // no text of Parse
	for _, p := range periods {
		if n := roundest(int(p.per/(l.Every+1))+1, int(p.per/l.Every)); n > 0 {
			text, burst = strconv.Itoa(n)+p.name, max(1, n/int(p.per/time.Second))
			break
		}
	}
	if l.Burst != burst {
		text += " burst " + strconv.Itoa(max(l.Burst, 1))
	}
	return text
}
