package conf

import (
	"fmt"
	"strconv"
	"strings"
)

// A Percent is how much of a whole may change in a second, written as "1%/s" or "0.5%/s". The zero value is nothing.
type Percent float64

// UnmarshalText reads a number with the unit %/s, which is not negative.
func (p *Percent) UnmarshalText(text []byte) error {
	s := string(text)
	digits, ok := strings.CutSuffix(s, "%/s")
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || strings.Trim(digits, "0123456789.") != "" {
		return fmt.Errorf("share %s: %w", quote(s), errUnit)
	}
	*p = Percent(n)
	return nil
}

// String returns the share as in the configuration.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%/s" }

// Share returns the share as a number from 0 to 1.
func (p Percent) Share() float64 { return float64(p) / 100 }

func (Percent) needs() string { return `needs a share for a second, such as "1%/s"` }
