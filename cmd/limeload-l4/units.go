package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// clean makes a text safe for a terminal: it escapes unprintable characters, such as control characters in an answer
// that a hostile backend gave to a check. It also escapes line breaks; see cleanLines.
func clean(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		i += n
	}
	return b.String()
}

// cleanLines is clean for a text of several lines.
func cleanLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}

// size formats a number of bytes.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.95 && unit < 5 { // would be printed as 1024.0
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[unit])
}

// duration formats a duration with at most two units.
func duration(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(d, 0)
	switch {
	case d == 0:
		return "0s"
	case d < time.Second:
		return d.Round(max(time.Microsecond, d.Truncate(100*time.Millisecond)/100)).String()
	case d < 10*time.Second:
		return d.Truncate(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Truncate(time.Second).String()
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

// seconds is duration for the numbers of the API.
func seconds(s float64) string { return duration(time.Duration(s * float64(time.Second))) }

// ago returns how long ago a time was.
func ago(t time.Time) string { return duration(time.Since(t)) }

// counted returns a number with its noun.
func counted[N int | int64 | uint64](n N, noun string) string {
	return fmt.Sprintf("%d %s", n, plural(int(n), noun))
}
