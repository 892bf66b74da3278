package conf

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// UsesTLS reports whether the check speaks TLS, and so whether Verify, ServerName, CA, Cert and Key apply.
func (c *Check) UsesTLS() bool { return c.TLS || c.Type == "tls" || c.Type == "https" }

// validateHealth reports mistakes in h beyond those of single values, and fills the fields that Parse derives from
// texts.
func validateHealth(r *report, path string, h *Health) {
	if h == nil {
		return
	}
	if h.StaleAfter != 0 && h.StaleAfter < h.Interval+h.Timeout {
		r.add(join(path, "stale_after"), Error{
			Found:   quote(h.StaleAfter.String()),
			Message: "a verdict would be unknown again before the next check can end",
			Allowed: fmt.Sprintf("needs interval plus timeout, %v, or more, or 0s", h.Interval+h.Timeout),
		})
	}
	validateCheck(r, path, &h.Check)
	for i := range h.Checks {
		sub, c := element(join(path, "checks"), i), &h.Checks[i]
		if c.Type == "all_of" || c.Type == "any_of" {
			r.add(join(sub, "type"),
				Error{Found: quote(c.Type), Message: "a check in checks cannot have checks of its own",
					Allowed: "needs any other type"})
		}
		validateCheck(r, sub, c)
	}
}

// validateCheck examines keys whatever the type, since keys of other types have their defaults. Where the type does
// decide, a mistaken type decides nothing.
func validateCheck(r *report, path string, c *Check) {
	kind := c.Type
	if r.seen[join(path, "type")] {
		kind = "" // and c.Type is the default, which the file does not contain
	}
	validateSteps(r, join(path, "steps"), c.Steps)
	validateTLS(r, path, c, kind)
	validateHTTP(r, path, c)
	if c.Authority != "" && !validAuthority(c.Authority) {
		r.add(join(path, "authority"), Error{Found: quote(c.Authority), Allowed: authorityNeeds})
	}
	c.PayloadBytes = validBytes(r, path, "payload", c.Payload, c.PayloadHex)
	c.AnswerBytes = validBytes(r, path, "answer", c.Answer, c.AnswerHex)
	if kind != "mysql" && (kind == "dns" || c.Query != "") {
		validateQuery(r, join(path, "query"), c)
	}
	validateLogin(r, path, c, kind)
	validateCommand(r, join(path, "command"), c.Command)
}

// validateSteps checks the list at path. The tags already require that a step has one key with a text.
func validateSteps(r *report, path string, steps []Step) {
	for i := range steps {
		s, sub := &steps[i], element(path, i)
		switch {
		case s.Send != "":
			s.Bytes = []byte(s.Send)
		case s.Expect != "":
			s.Bytes = []byte(s.Expect)
		case s.SendHex != "":
			s.Bytes = validHex(r, join(sub, "send_hex"), s.SendHex)
		case s.ExpectHex != "":
			s.Bytes = validHex(r, join(sub, "expect_hex"), s.ExpectHex)
		case s.ExpectRegexp != "":
			s.Regexp = validRegexp(r, join(sub, "expect_regexp"), s.ExpectRegexp)
		}
	}
}

func validHex(r *report, path, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		r.add(path, Error{Found: quote(s), Allowed: `needs pairs of hexadecimal digits, such as "0d0a"`})
	}
	return b
}

func validRegexp(r *report, path, s string) *regexp.Regexp {
	re, err := regexp.Compile(s)
	if err == nil {
		return re
	}
	message := "no regular expression"
	if wrong, ok := errors.AsType[*syntax.Error](err); ok {
		message = wrong.Code.String()
		if wrong.Expr != s {
			message += ": " + quote(wrong.Expr)
		}
	}
	r.add(path, Error{Found: quote(s), Message: message, Allowed: "needs a regular expression in the syntax of RE2"})
	return nil
}

func validateTLS(r *report, path string, c *Check, kind string) {
	if kind == "tcp" && c.TLS && len(c.Steps) == 0 && !r.seen[join(path, "steps")] {
		r.add(join(path, "tls"), Error{Found: "true", Message: "there are no steps",
			Allowed: `needs steps, or type "tls", which does without`})
	}
	keys := clientTLS{verify: c.Verify, serverName: c.ServerName, ca: c.CA, cert: c.Cert, key: c.Key}
	if kind != "" && !c.UsesTLS() && !r.seen[join(path, "tls")] {
		keys.unused(r, path, "the check", "needs tls = true")
	}
	keys.validate(r, path)
	for i, name := range c.ALPN {
		if len(name) == 0 || len(name) > 255 { // RFC 7301, 3.1
			r.add(element(join(path, "alpn"), i),
				Error{Found: quote(name), Allowed: `needs 1 to 255 bytes, such as "h2"`})
		}
	}
}

func validateHTTP(r *report, path string, c *Check) {
	// The characters of a token in RFC 9110, 5.6.2, without lower-case letters: "get" is a typo.
	const methodChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"
	if c.Method == "" || strings.Trim(c.Method, methodChars) != "" {
		r.add(join(path, "method"),
			Error{Found: quote(c.Method), Allowed: `needs a method in upper case, such as "GET"`})
	}
	_, err := url.ParseRequestURI(c.Path)
	notInURL := func(c rune) bool { return c <= ' ' || c > '~' || c == '#' }
	if !strings.HasPrefix(c.Path, "/") || err != nil || strings.ContainsFunc(c.Path, notInURL) {
		r.add(join(path, "path"),
			Error{Found: quote(c.Path), Allowed: `needs a path that begins with "/", with blanks and the like as %20`})
	}
	if c.Host != "" && !validAuthority(c.Host) {
		r.add(join(path, "host"), Error{Found: quote(c.Host), Allowed: authorityNeeds})
	}
	c.Statuses = make([]StatusRange, len(c.Status))
	for i, s := range c.Status {
		codes, ok := parseStatus(s)
		if !ok {
			r.add(element(join(path, "status"), i),
				Error{Found: quote(s),
					Allowed: `needs a status or a range of them from 100 to 599, such as "204" or "200-399"`})
		}
		c.Statuses[i] = codes
	}
}

// parseStatus reads "N" or "N-M".
func parseStatus(s string) (StatusRange, bool) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	ok := err1 == nil && err2 == nil && len(from) == 3 && len(to) == 3 && first >= 100 && first <= last && last <= 599
	return StatusRange{int(first), int(last)}, ok
}

const authorityNeeds = `needs "HOST" or "HOST:PORT", with an IPv6 address in brackets`

// validAuthority reports whether s is allowed as HTTP's header Host or gRPC's :authority.
func validAuthority(s string) bool {
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
		host = h
		if strings.HasPrefix(s, "[") {
			host = "[" + h + "]"
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		return closed && isIP(inner) && strings.Contains(inner, ":")
	}
	return validHost(host) || isIP(host) && !strings.Contains(host, ":")
}

func isIP(s string) bool {
	ip, err := netip.ParseAddr(s)
	return err == nil && ip.Zone() == ""
}

// maxDatagramBytes is the largest payload of one datagram: 65535 bytes of IPv4, less 20 for its header (RFC 791, 3.1)
// and 8 for that of UDP (RFC 768).
const maxDatagramBytes = 65507

// validBytes returns the bytes of the text at key, or of the hexadecimal text at key with _hex.
func validBytes(r *report, path, key, text, hexText string) []byte {
	at, b := join(path, key), []byte(text)
	if hexText != "" {
		at = join(path, key+"_hex")
		if text != "" {
			r.add(at, Error{Found: quote(hexText), Message: key + " stands beside it",
				Allowed: "needs one of them alone"})
			return nil
		}
		b = validHex(r, at, hexText)
	}
	if len(b) > maxDatagramBytes {
		r.add(at, Error{Found: fmt.Sprintf("%d bytes", len(b)),
			Allowed: fmt.Sprintf("needs what a datagram holds, %d or less", maxDatagramBytes)})
	}
	return b
}

// queryTypes returns the record types that a check may ask for.
func queryTypes() []string {
	return []string{"A", "AAAA", "NS", "SOA", "MX", "TXT", "SRV", "CNAME", "PTR"}
}

// validateQuery checks the key query, which is at path.
func validateQuery(r *report, path string, c *Check) {
	words := strings.Fields(c.Query)
	e := Error{Found: quote(c.Query)}
	switch {
	case len(words) == 0 || len(words) > 2:
		e.Allowed = `needs "NAME" or "NAME TYPE", such as "example.com A"`
	case words[0] != "." && !validHost(words[0]): // a query for the root suits some resolvers best
		e.Message = quote(words[0]) + " is not a host name"
	case len(words) == 2 && !slices.Contains(queryTypes(), words[1]):
		e.Message = "the type is " + quote(words[1])
		e.Allowed = "allowed is " + either(queryTypes())
		e.Nearest = nearest(words[1], queryTypes())
	default:
		c.QueryName, c.QueryType = words[0], "A"
		if len(words) == 2 {
			c.QueryType = words[1]
		}
		return
	}
	r.add(path, e)
}

// maxStatementBytes is how long the query of a mysql check may be: longer ones belong into a view or a function.
const maxStatementBytes = 4096

// validateLogin checks the keys of the types that log in.
func validateLogin(r *report, path string, c *Check, kind string) {
	if (kind == "postgres" || kind == "mysql") && c.User == "" {
		r.add(join(path, "user"),
			Error{Message: "missing", Allowed: `needs the user that the check logs in as, such as "limeload"`})
	}
	if (kind == "mqtt" || kind == "ldap") && c.PasswordFile != "" && c.User == "" && !r.seen[join(path, "user")] {
		r.add(join(path, "password_file"), Error{Found: quote(c.PasswordFile), Message: "its user is missing",
			Allowed: "needs both user and password_file, or none"})
	}
	if kind == "ldap" && c.User != "" && c.PasswordFile == "" && !r.seen[join(path, "password_file")] {
		// A server takes a bind with a name and no password as anonymous (RFC 4513, 5.1.2), so it would check no login.
		r.add(join(path, "user"), Error{Found: quote(c.User), Message: "its password_file is missing",
			Allowed: "needs both user and password_file, or none"})
	}
	if kind == "mysql" {
		preset(r, join(path, "database"), `type "mysql"`, &c.Database, "")
		if len(c.Query) > maxStatementBytes {
			r.add(join(path, "query"), Error{Found: fmt.Sprintf("%d bytes", len(c.Query)),
				Allowed: fmt.Sprintf("needs %d bytes or less", maxStatementBytes)})
		}
	} else if c.Database == "" {
		r.add(join(path, "database"), Error{Found: `""`, Allowed: "needs the name of a database"})
	}
	for _, text := range [][2]string{{"user", c.User}, {"database", c.Database}} {
		if hasNUL(text[1]) {
			r.add(join(path, text[0]), Error{Found: quote(text[1]), Allowed: noNUL})
		}
	}
	if c.Fallback != "" && c.Role != "replica" && !r.seen[join(path, "role")] && !r.seen[join(path, "fallback")] {
		r.add(join(path, "fallback"), Error{Found: quote(c.Fallback), Message: "role is " + quote(c.Role),
			Allowed: `needs role "replica", or ""`})
	}
	if c.MaxLag != 0 && c.Role == "primary" {
		r.add(join(path, "max_lag"), Error{Found: quote(c.MaxLag.String()), Message: `role "primary" has no lag`,
			Allowed: `needs role "replica" or "any", or 0s`})
	}
}

func validateCommand(r *report, path string, command []string) {
	for i, word := range command {
		switch {
		case i == 0 && !filepath.IsAbs(word):
			r.add(element(path, i), Error{Found: quote(word), Allowed: "needs the absolute path of a program"})
		case hasNUL(word):
			r.add(element(path, i), Error{Found: quote(word), Allowed: noNUL})
		}
	}
}

// For postgres and the kernel a NUL ends a text.
const noNUL = "needs a text without NUL"

func hasNUL(s string) bool { return strings.Contains(s, "\x00") }

// WantsPrimary reports whether the checks require the primary. Then at most one backend is healthy, and the default of
// Pool.OnUnhealthy is "close". It returns false for nil.
func (h *Health) WantsPrimary() bool {
	if h == nil {
		return false
	}
	return h.wants("primary")
}

// WantedRole returns the role that the checks require: "primary", "replica", or "any". It returns "any" for nil.
func (h *Health) WantedRole() string {
	switch {
	case h.WantsPrimary():
		return "primary"
	case h != nil && h.wants("replica"):
		return "replica"
	}
	return "any"
}

func (h *Health) wants(role string) bool {
	wants := func(c Check) bool { return c.Role == role } // which has another default with the other types
	return wants(h.Check) || slices.ContainsFunc(h.Checks, wants)
}
