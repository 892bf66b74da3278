package convert

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// tcpCheck carries over the rules of tcp-check: as a check of Redis where they are one, otherwise as steps. It reports
// whether they ask for TLS.
func (h *haproxy) tcpCheck(p *proxy, t *table) (tls bool) {
	var steps []string
	var sent, expected string
	auth := line{}
	for _, c := range p.checks {
		if c.words[0] != "tcp-check" {
			continue
		}
		value := c.word(2)
		switch c.word(1) {
		case "connect":
			tls = h.checkConnect(t, c) || tls
		case "comment", "":
		case "send", "send-lf":
			sent += value
			if strings.HasPrefix(strings.ToUpper(value), "AUTH ") {
				auth = c
			}
			steps = append(steps, fmt.Sprintf("{ send = %s }", quote(value)))
		case "send-binary":
			if _, err := hex.DecodeString(value); err != nil {
				h.unreadable(c, "hexadecimal digits")
				continue
			}
			steps = append(steps, fmt.Sprintf("{ send_hex = %s }", quote(value)))
		case "expect":
			step, text := h.tcpExpect(c)
			expected += text + "\n"
			if step != "" {
				steps = append(steps, step)
			}
		default:
			h.notes.left(c.at, c.raw, "a check has no such rule", "see steps of [pool.*.health]")
		}
	}
	upper := strings.ToUpper(sent)
	if strings.Contains(upper, "PING") && strings.Contains(expected, "PONG") || strings.Contains(expected, "role:") {
		h.redisCheck(p, t, expected, auth)
		return tls
	}
	if len(steps) > 0 {
		t.set("steps", "[\n  "+strings.Join(steps[:min(len(steps), 100)], ",\n  ")+",\n]")
	}
	return tls
}

// redisCheck writes a check of Redis, which sends PING and asks for the role itself.
func (h *haproxy) redisCheck(p *proxy, t *table, expected string, auth line) {
	t.set("type", quote("redis"))
	switch {
	case strings.Contains(expected, "role:master"):
		t.set("role", quote("primary"))
	case strings.Contains(expected, "role:slave"), strings.Contains(expected, "role:replica"):
		t.set("role", quote("replica"))
	}
	if auth.words != nil {
		h.notes.left(auth.at, "tcp-check send AUTH ...", "passwords do not stand in the configuration",
			"write it into a file, and name that with password_file")
	}
	noted := false
	for _, c := range p.checks {
		if c.words[0] != "tcp-check" {
			continue
		}
		if !noted {
			h.notes.differs(c.at, "tcp-check ...", `the steps from here on are those of type = "redis"`, "")
			noted = true
		}
		text := strings.Join(c.words[min(len(c.words), 3):], " ")
		if c.word(1) == "expect" && !redisExpects().MatchString(text) {
			h.notes.left(c.at, c.raw, "a check of Redis looks at the answer to PING, the role, the link and the lag alone",
				"see docs/redis.md")
		}
	}
}

// redisExpects matches what a check of Redis expects anyway.
func redisExpects() *regexp.Regexp {
	return regexp.MustCompile(`^(\+?PONG|\+?OK|role:(master|slave|replica)|master_link_status:up|loading:0)(\r\n)?$`)
}

// checkConnect carries over tcp-check connect or http-check connect, and reports whether it asks for TLS.
func (h *haproxy) checkConnect(t *table, c line) (tls bool) {
	for i := 2; i < len(c.words); i++ {
		switch c.words[i] {
		case "port":
			i++
			switch _, ok := parseNumber(c.word(i), 1, 65535); {
			case !ok:
				h.unreadable(c, "a port")
			case t.has("port") && t.value("port") != c.word(i):
				h.notes.left(c.at, c.raw, "a check is at one port", "see checks of [pool.*.health]")
			default:
				t.set("port", c.word(i))
			}
		case "ssl":
			tls = true
		case "default", "linger":
		case "comment", "sni", "alpn":
			i++
		default:
			h.notes.left(c.at, c.raw, c.words[i]+" of a check has no counterpart", "")
		}
	}
	return tls
}

// tcpExpect returns a step of tcp-check expect, and the text that it expects.
func (h *haproxy) tcpExpect(c line) (step, text string) {
	words := c.words[2:]
	for len(words) > 1 && (words[0] == "min-recv" || words[0] == "comment") {
		words = words[2:]
	}
	if len(words) < 2 || words[0] == "!" {
		h.notes.left(c.at, c.raw, "a step expects a text, bytes or a regular expression, and nothing else", "")
		return "", ""
	}
	text = strings.Join(words[1:], " ")
	switch words[0] {
	case "string":
		return fmt.Sprintf("{ expect = %s }", quote(text)), text
	case "rstring":
		if _, err := regexp.Compile(text); err != nil {
			h.notes.left(c.at, c.raw, "the regular expression is none of RE2", "see expect_regexp")
			return "", text
		}
		return fmt.Sprintf("{ expect_regexp = %s }", quote(text)), text
	case "binary":
		if b, err := hex.DecodeString(text); err == nil {
			return fmt.Sprintf("{ expect_hex = %s }", quote(text)), string(b)
		}
	}
	h.notes.left(c.at, c.raw, "a step expects a text, bytes or a regular expression, and nothing else", "")
	return "", ""
}
