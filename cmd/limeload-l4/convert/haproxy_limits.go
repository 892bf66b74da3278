package convert

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// limit carries over a rule that rejects clients with too many sessions, or too many new ones, if it is one.
func (h *haproxy) limit(p *proxy, l line, made []*listener) bool {
	at := conditionAt(l)
	if at < 0 || l.words[at] != "if" || l.word(2) != "reject" {
		return false
	}
	alternatives, ok := p.readTerms(l.words[at+1:])
	if !ok || len(alternatives) != 1 || len(alternatives[0]) != 1 || alternatives[0][0].negated ||
		len(alternatives[0][0].tests) != 1 {
		return false
	}
	c := alternatives[0][0].tests[0]
	n, err := 0, error(nil)
	switch {
	case len(c.values) == 2 && (c.values[0] == "gt" || c.values[0] == "ge"):
		n, err = strconv.Atoi(c.values[1])
		if c.values[0] == "ge" {
			n--
		}
	default:
		return false
	}
	if err != nil || n < 1 || n > 1_000_000 {
		return false
	}
	name := strings.TrimSuffix(strings.TrimPrefix(c.fetch, "src_"), "(0)")
	for _, prefix := range []string{"sc0_", "sc1_", "sc2_", "sc_"} {
		name = strings.TrimPrefix(name, prefix)
	}
	if i := strings.IndexByte(name, '('); i > 0 {
		name = name[:i]
	}
	switch name {
	case "conn_cur":
		for _, one := range made {
			one.in("limits").set("client_sessions", strconv.Itoa(n))
		}
	case "conn_rate", "sess_rate":
		period, known := h.ratePeriod(p, name)
		if !known {
			return false // nobody knows how fast is too fast
		}
		perMinute := min(max(1, int(time.Duration(n)*time.Minute/period)), 60_000_000) // a million a second
		for _, one := range made {
			one.in("limits").setWith("client_rate", quote(fmt.Sprintf("%d/m burst %d", perMinute, n)),
				fmt.Sprintf("%d in %v", n, period))
		}
	default:
		return false
	}
	return true
}

// ratePeriod returns the time over which a stick-table counts a rate: one of p, or else of another section, if all of
// them say the same.
func (h *haproxy) ratePeriod(p *proxy, name string) (period time.Duration, known bool) {
	if period, known = p.ratePeriod(name); known {
		return period, true
	}
	for _, other := range h.proxies {
		d, ok := other.ratePeriod(name)
		if ok && known && d != period {
			return 0, false
		}
		if ok {
			period, known = d, true
		}
	}
	return period, known
}

// ratePeriod returns the time over which a stick-table of p counts a rate.
func (p *proxy) ratePeriod(name string) (time.Duration, bool) {
	for _, l := range p.sticks {
		for _, word := range l.words {
			for part := range strings.SplitSeq(word, ",") {
				if text, is := strings.CutPrefix(part, name+"("); is {
					if d, ok := haTime(strings.TrimSuffix(text, ")")); ok && d >= time.Millisecond {
						return d, true
					}
				}
			}
		}
	}
	return 0, false
}
